/** One suite for every engine behind the port: the scheduler may rely on what holds here. */
import { beforeEach, describe, expect, test } from "vitest"
import type { BatchItem, RequestId } from "../core/protocol.ts"
import { Random } from "../random.ts"
import { join, promptOf, type Script } from "./engine.script.ts"
import { answersSuite } from "./engine-answers.suite.ts"
import { EngineAtHand, SEQUENCES, type SuiteSubject } from "./engine-at-hand.suite.ts"
import { grammarsSuite } from "./engine-grammars.suite.ts"
import { refusalsSuite } from "./engine-refusals.suite.ts"
import type { Engine } from "./port.ts"

export function engineSuite(subject: SuiteSubject): void {
  for (const unifiedKv of [false, true]) {
    describe(`${subject.name}, ${unifiedKv ? "unified" : "separate"} KV`, () => {
      const hand = new EngineAtHand(subject, unifiedKv)
      suite(hand)
      answersSuite(hand)
      grammarsSuite(hand)
      refusalsSuite(hand)
    })
  }
}

function suite(hand: EngineAtHand): void {
  const { subject, unifiedKv } = hand
  let engine: Engine
  let run: Script
  beforeEach(() => {
    ;({ engine, run } = hand)
  })

  test("a prompt in chunks gives what it gives in one piece", async () => {
    const prompt = promptOf(1, 100)
    const expected = await hand.alone(prompt, 12)
    for (const chunk of [1, 7, 64]) {
      const id = run.open(prompt)
      while (run.held(id) + chunk < prompt.length) expect(await run.step([run.next(id, chunk)])).toEqual([])
      for (let i = 0; i < 12; i++) await run.step([run.all(id)])
      expect(run.output(id)).toEqual(expected)
      await run.drop(id)
    }
  })

  test("requests batched together give what they give alone", async () => {
    const prompts = [promptOf(2, 9), promptOf(3, 33), promptOf(4, 20), promptOf(5, 50)]
    const expected: number[][] = []
    for (const prompt of prompts) expected.push(await hand.alone(prompt, 10))
    const [first, ...rest] = prompts.map((prompt) => run.open(prompt))
    await run.step([run.all(first!)])
    await run.step([run.all(first!), ...rest.map((id) => run.next(id, 5))])
    for (let i = 0; i < 8; i++) await run.step([first!, ...rest].map((id) => run.all(id)))
    expect(run.output(first!)).toEqual(expected[0])
    for (const [i, id] of rest.entries()) expect(run.output(id)).toEqual(expected[i + 1]!.slice(0, 8))
  })

  describe("prefix copies", () => {
    const shared = promptOf(6, 48)
    const first = join(shared, promptOf(7, 20))
    const second = join(shared, promptOf(8, 11))
    const third = join(shared, promptOf(9, 30))

    test("from a live request change neither of the two", async () => {
      const expected = [await hand.alone(first, 8), await hand.alone(second, 8)]
      const a = run.open(first)
      await run.step([run.all(a)])
      const b = run.open(second)
      await run.step([run.all(a), run.copied(b, a, 48)])
      for (let i = 0; i < 6; i++) await run.step([run.all(a), run.all(b)])
      expect(run.output(a)).toEqual(expected[0])
      expect(run.output(b)).toEqual(expected[1]!.slice(0, 7))
    })

    test("from a request released or evicted in the same batch come before it goes", async () => {
      const expected = [await hand.alone(second, 6), await hand.alone(third, 6)]
      for (const how of ["release", "evict"] as const) {
        const a = run.open(first)
        await run.step([run.all(a)])
        const [b, c] = [run.open(second), run.open(third)]
        await run.step([run.copied(b, a, 48), run.copied(c, a, 32)], { [how]: [a] })
        for (let i = 0; i < 5; i++) await run.step([run.all(b), run.all(c)])
        expect([run.output(b), run.output(c)]).toEqual(expected)
        await run.drop(b, c, ...(how === "evict" ? [a] : []))
      }
    })

    test("take a leaving request's place when every sequence is in use", async () => {
      const expected = await hand.alone(second, 4)
      const ids = [first, promptOf(10, 5), promptOf(11, 5), promptOf(12, 5)].map((prompt) => run.open(prompt))
      await run.step(ids.map((id) => run.all(id)))
      const b = run.open(second)
      await run.step([run.copied(b, ids[0]!, 48)], { release: [ids[0]!] })
      for (let i = 0; i < 3; i++) await run.step([run.all(b), run.all(ids[1]!)])
      expect(run.output(b)).toEqual(expected)
    })

    test("of tokens that differ are refused; nothing is lost but what was to leave", async () => {
      const expected = [await hand.alone(first, 5), await hand.alone(second, 5)]
      const [a, released, evicted] = [run.open(first), run.open(promptOf(10, 5)), run.open(promptOf(11, 5))]
      await run.step([run.all(a), run.all(released), run.all(evicted)])
      const b = run.open(second)
      const leaving = { release: [released], evict: [evicted] }
      const output = await engine.execute(run.batch([run.all(a), run.copied(b, a, 52)], leaving))
      expect(output).toMatchObject({ ok: false, reason: "engineError" })
      // Four sequences are the most: there is room for two only where two have left.
      const others = [run.open(promptOf(12, 5)), run.open(promptOf(13, 5))]
      await run.step(others.map((id) => run.all(id)))
      await run.drop(...others)
      await run.step([run.all(a), run.all(b)])
      for (let i = 0; i < 4; i++) await run.step([run.all(a), run.all(b)])
      expect(run.output(a).slice(0, 5)).toEqual(expected[0])
      expect(run.output(b)).toEqual(expected[1])
    })
  })

  test("an evicted request is recomputed and goes on as if nothing had happened", async () => {
    const prompt = promptOf(13, 40)
    const expected = await hand.alone(prompt, 12)
    const [id, other] = [run.open(prompt), run.open(promptOf(14, 10))]
    for (let i = 0; i < 5; i++) await run.step([run.all(id), ...(i === 0 ? [run.all(other)] : [])])
    await run.step([run.all(other)], { evict: [id] })
    await run.step([run.next(id, 30)])
    while (run.output(id).length < 12) await run.step([run.all(id)])
    expect(run.output(id)).toEqual(expected)
  })

  test("released requests make room for others", async () => {
    const expected = await hand.alone(promptOf(15, 12), 2)
    let previous: RequestId[] = []
    for (let round = 0; round < 3; round++) {
      const ids = Array.from({ length: SEQUENCES }, () => run.open(promptOf(15, 12)))
      await run.step(
        ids.map((id) => run.all(id)),
        { release: previous },
      )
      await run.step(ids.map((id) => run.all(id)))
      for (const id of ids) expect(run.output(id)).toEqual(expected)
      previous = ids
    }
  })

  test("a request cancelled in the middle of its prompt leaves nothing behind", async () => {
    const prompt = promptOf(16, 30)
    const expected = await hand.alone(prompt, 5)
    const cancelled = run.open(promptOf(17, 100))
    await run.step([run.next(cancelled, 60)])
    const id = run.open(prompt)
    await run.step([run.all(id)], { release: [cancelled] })
    for (let i = 0; i < 4; i++) await run.step([run.all(id)])
    expect(run.output(id)).toEqual(expected)
  })

  test.runIf(unifiedKv)(
    "a full pool fails the step, advances nothing, and works again with room",
    async () => {
      const prompts = [promptOf(18, 100), promptOf(19, 100), promptOf(20, 100)]
      const expected: number[][] = []
      for (const prompt of prompts) expected.push(await hand.alone(prompt, 5))
      await engine.close()
      await hand.open(256)
      ;({ engine, run } = hand)
      const [a, b, c] = prompts.map((prompt) => run.open(prompt)) as [number, number, number]
      await run.step([run.all(a)])
      await run.step([run.all(b)])
      const failed = await engine.execute(run.batch([run.all(a), run.all(c)]))
      expect(failed).toMatchObject({ ok: false, reason: "kvFull" })
      await run.step([run.all(a)])
      await run.step([run.all(c)], { release: [b] })
      for (let i = 0; i < 3; i++) await run.step([run.all(a), run.all(c)])
      expect(run.output(a)).toEqual(expected[0])
      expect(run.output(c)).toEqual(expected[2]!.slice(0, 4))
    },
  )

  test("the tokenizer gives every text back, and special tokens only when asked", async () => {
    const { tokenizer } = engine
    const texts = ["Hello, the world of 42 things!", "naïve €9 — 日本語 🙂\n\ttab", "x".repeat(9_000), ""]
    for (const text of texts) {
      const tokens = await tokenizer.encode(text, { special: false, addBos: false })
      expect(Buffer.concat([...tokens].map((token) => tokenizer.bytes(token))).toString("utf8")).toBe(text)
    }
    const mark = "<|im_end|>"
    expect(await tokenizer.encode(mark, { special: true, addBos: false })).toHaveLength(1)
    expect((await tokenizer.encode(mark, { special: false, addBos: false })).length).toBeGreaterThan(3)
    const several = `a${mark}\n b ${mark}${mark}<`
    const found = tokenizer.controls.find(several)
    expect(found).toEqual([1, 15, 25])
    const all = await tokenizer.encode(several, { special: true, addBos: false })
    expect(await tokenizer.encode(several, { special: found, addBos: false })).toEqual(all)
    const one = [...(await tokenizer.encode(several, { special: [15], addBos: false }))]
    expect(one.filter((token) => token === all.find((each) => tokenizer.isEnd(each)))).toHaveLength(1)
    const many = mark.repeat(1000)
    expect(new Set(await tokenizer.encode(many, { special: true, addBos: false })).size).toBe(1)
    expect(await tokenizer.encode(many, { special: true, addBos: false })).toHaveLength(1000)
    expect(tokenizer.isEnd(subject.endToken)).toBe(true)
    for (let token = 0; token < engine.model.vocabSize; token++)
      expect(tokenizer.bytes(token).length).toBeLessThanOrEqual(tokenizer.longestTokenBytes)
    expect(() => tokenizer.bytes(engine.model.vocabSize)).toThrow(RangeError)
  })

  test("a random schedule of everything gives every request its own answer", async () => {
    const random = new Random(unifiedKv ? 1 : 2)
    const heads = [promptOf(30, 64), promptOf(31, 64)]
    const prompts = Array.from({ length: 14 }, (_, i) =>
      join(heads[random.below(2)]!.subarray(0, 16 * random.below(5)), promptOf(40 + i, 3 + random.below(40))),
    )
    const wanted = prompts.map(() => 1 + random.below(10))
    const expected: number[][] = []
    for (const [i, prompt] of prompts.entries()) expected.push(await hand.alone(prompt, wanted[i]!))
    const ids = prompts.map((prompt) => run.open(prompt))
    const waiting = [...ids]
    const running = new Set<RequestId>()
    const done: RequestId[] = []
    while (waiting.length > 0 || running.size > 0 || done.length > 0) {
      const evict = [...running].filter((id) => run.held(id) > 0 && random.uniform() < 0.06)
      const release = done.splice(0, random.below(done.length + 1))
      const trim = done
        .filter((id) => run.held(id) > 16 && random.uniform() < 0.2)
        .map((id) => ({ id, tokens: run.held(id) - (1 + random.below(16)) }))
      const kept = () =>
        [...running].filter((id) => run.held(id) > 0 && !evict.includes(id)).length + done.length
      const items: BatchItem[] = []
      let newcomers = evict.length
      while (waiting.length > 0 && kept() + newcomers < SEQUENCES && random.uniform() < 0.5) {
        const id = waiting.shift()!
        const source = [...running, ...release, ...done].find((other) => run.commonPrefix(other, id) >= 16)
        if (source !== undefined && !evict.includes(source)) {
          items.push(run.copied(id, source, run.commonPrefix(source, id), 1 + random.below(12)))
        } else items.push(run.next(id, 1 + random.below(12)))
        newcomers++
        running.add(id)
      }
      for (const id of running) {
        if (items.some((item) => item.id === id) || evict.includes(id)) continue
        if (run.held(id) === 0 && kept() + items.length >= SEQUENCES) continue
        if (random.uniform() < 0.8) items.push(run.next(id, 1 + random.below(12)))
      }
      await run.step(items.slice(0, SEQUENCES), { evict, release, trim })
      for (const [i, id] of ids.entries()) {
        if (running.has(id) && run.output(id).length >= wanted[i]!) {
          running.delete(id)
          done.push(id)
        }
      }
    }
    for (const [i, id] of ids.entries()) expect(run.output(id)).toEqual(expected[i])
  })
}
