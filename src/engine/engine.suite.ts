/** One suite for every engine behind the port: the scheduler may rely on what holds here. */
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import type { Batch, BatchItem, EngineLimits, RequestId } from "../core/protocol.ts"
import { UserError } from "../errors.ts"
import { Random } from "../random.ts"
import { FITS_FREE_TEXT, FREE_TEXT } from "./constraint/testing.ts"
import { join, promptOf, Script } from "./engine.script.ts"
import { type Engine, GREEDY, type Sampling, type StepRow } from "./port.ts"

export interface SuiteSubject {
  name: string
  /** Token by token the same result however a request is batched (docs/design.md, Engine). */
  open(sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">): Promise<Engine>
  /** An end-of-generation token. */
  endToken: number
}

export const SUITE_CONTEXT_TOKENS = 256
export const SUITE_BATCH_TOKENS = 128
const SEQUENCES = 4

export function engineSuite(subject: SuiteSubject): void {
  for (const unifiedKv of [false, true]) {
    describe(`${subject.name}, ${unifiedKv ? "unified" : "separate"} KV`, () => suite(subject, unifiedKv))
  }
}

function suite(subject: SuiteSubject, unifiedKv: boolean): void {
  let engine: Engine
  let run: Script
  const open = async (kvTokens = SEQUENCES * SUITE_CONTEXT_TOKENS) => {
    engine = await subject.open({ maxSequences: SEQUENCES, unifiedKv, kvTokens })
    run = new Script(engine)
  }
  beforeEach(() => open())
  afterEach(() => engine.close())

  /** What the engine answers to a prompt alone, in one piece. */
  async function alone(
    prompt: Int32Array,
    count: number,
    sampling: Partial<Sampling> = {},
  ): Promise<number[]> {
    const id = run.open(prompt, { ignoreEos: true, ...sampling })
    await run.step([run.all(id)])
    for (let i = 1; i < count; i++) await run.step([run.all(id)])
    const tokens = run.output(id)
    await run.drop(id)
    return tokens
  }

  test("a prompt in chunks gives what it gives in one piece", async () => {
    const prompt = promptOf(1, 100)
    const expected = await alone(prompt, 12)
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
    for (const prompt of prompts) expected.push(await alone(prompt, 10))
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
      const expected = [await alone(first, 8), await alone(second, 8)]
      const a = run.open(first)
      await run.step([run.all(a)])
      const b = run.open(second)
      await run.step([run.all(a), run.copied(b, a, 48)])
      for (let i = 0; i < 6; i++) await run.step([run.all(a), run.all(b)])
      expect(run.output(a)).toEqual(expected[0])
      expect(run.output(b)).toEqual(expected[1]!.slice(0, 7))
    })

    test("from a request released or evicted in the same batch come before it goes", async () => {
      const expected = [await alone(second, 6), await alone(third, 6)]
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
      const expected = await alone(second, 4)
      const ids = [first, promptOf(10, 5), promptOf(11, 5), promptOf(12, 5)].map((prompt) => run.open(prompt))
      await run.step(ids.map((id) => run.all(id)))
      const b = run.open(second)
      await run.step([run.copied(b, ids[0]!, 48)], { release: [ids[0]!] })
      for (let i = 0; i < 3; i++) await run.step([run.all(b), run.all(ids[1]!)])
      expect(run.output(b)).toEqual(expected)
    })

    test("of tokens that differ are refused; nothing is lost but what was to leave", async () => {
      const expected = [await alone(first, 5), await alone(second, 5)]
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
    const expected = await alone(prompt, 12)
    const [id, other] = [run.open(prompt), run.open(promptOf(14, 10))]
    for (let i = 0; i < 5; i++) await run.step([run.all(id), ...(i === 0 ? [run.all(other)] : [])])
    await run.step([run.all(other)], { evict: [id] })
    await run.step([run.next(id, 30)])
    while (run.output(id).length < 12) await run.step([run.all(id)])
    expect(run.output(id)).toEqual(expected)
  })

  test("released requests make room for others", async () => {
    const expected = await alone(promptOf(15, 12), 2)
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
    const expected = await alone(prompt, 5)
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
      for (const prompt of prompts) expected.push(await alone(prompt, 5))
      await engine.close()
      await open(256)
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

  test("an end token ends a request, unless it is to be ignored", async () => {
    const logitBias = [[subject.endToken, 100]] as const
    const [ends, goesOn] = [false, true].map((ignoreEos) =>
      run.open(promptOf(21, 8), { logitBias, ignoreEos }),
    )
    const rows = await run.step([run.all(ends!), run.all(goesOn!)])
    expect(rows.map((row) => row.end)).toEqual([true, false])
    expect(rows[0]!.tokens).toEqual([subject.endToken])
    await expect(engine.execute(run.batch([run.all(ends!)]))).rejects.toThrow(/has ended/)
    for (let i = 0; i < 20; i++) expect((await run.step([run.all(goesOn!)]))[0]!.end).toBe(false)
  })

  test("no end token comes before the least number of tokens", async () => {
    const id = run.open(promptOf(21, 8), { logitBias: [[subject.endToken, 100]], minTokens: 3 })
    const ends: boolean[] = []
    for (let i = 0; i < 4; i++) ends.push((await run.step([run.all(id)]))[0]!.end)
    expect(ends).toEqual([false, false, false, true])
  })

  describe("embeddings", () => {
    const prompt = promptOf(33, 70)
    const asked = { embedding: true, ignoreEos: true }
    const embed = async (chunk: number, tokens = prompt, beside: RequestId[] = []) => {
      const id = run.open(tokens, asked)
      const others = () => beside.map((other) => run.all(other))
      while (run.held(id) + chunk < tokens.length) await run.step([run.next(id, chunk), ...others()])
      const rows = await run.step([run.all(id), ...others()])
      const { embedding, tokens: made } = rows.find((row) => row.id === id)!
      expect(made).toHaveLength(1)
      await run.drop(id)
      return embedding!
    }
    const cosine = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)

    test("are of length one, and the same however a prompt is computed", async () => {
      const whole = await embed(100)
      expect(cosine(whole, whole)).toBeCloseTo(1, 4)
      const other = run.open(promptOf(34, 20), { ignoreEos: true })
      for (const chunk of [1, 33])
        expect(cosine(whole, await embed(chunk, prompt, [other]))).toBeCloseTo(1, 4)
      expect(cosine(whole, await embed(100, promptOf(35, 70)))).toBeLessThan(0.999)
    })

    test("change nothing of the answers beside them", async () => {
      const expected = await alone(promptOf(36, 30), 6)
      const id = run.open(promptOf(36, 30), { ignoreEos: true })
      const [first, second] = [run.open(prompt, asked), run.open(promptOf(37, 9), asked)]
      const rows = await run.step([run.next(first, 40), run.all(id), run.all(second)])
      expect(rows.filter((row) => row.embedding !== undefined).map((row) => row.id)).toEqual([second])
      await run.step([run.all(id), run.all(first)], { release: [second] })
      for (let i = 0; i < 4; i++) await run.step([run.all(id)])
      expect(run.output(id)).toEqual(expected)
    })

    test("are told once their KV, lost in between, is computed again; and of a prompt whose beginning another has", async () => {
      const whole = await embed(100)
      const id = run.open(prompt, asked)
      await run.step([run.next(id, 40)])
      const other = run.open(promptOf(38, 5))
      await run.step([run.all(other)], { evict: [id] })
      const rows = await run.step([run.all(id)])
      expect(cosine(rows[0]!.embedding!, whole)).toBeCloseTo(1, 4)
      if (engine.model.pooling !== "last") return
      const copy = run.open(prompt, asked)
      const copied = await run.step([run.copied(copy, id, 64)])
      expect(cosine(copied[0]!.embedding!, whole)).toBeCloseTo(1, 4)
    })
  })

  describe("log-probabilities of a prompt's tokens", () => {
    const prompt = promptOf(30, 70)

    test("are those with which they were produced, however it is computed", async () => {
      const told = run.open(prompt, { logprobs: 3, ignoreEos: true })
      const expected = []
      for (let i = 0; i < 6; i++) expected.push(...(await run.step([run.all(told)]))[0]!.logprobs!)
      const whole = join(prompt, Int32Array.from(run.output(told)))
      const beside = run.open(promptOf(31, 20))
      for (const chunk of [1, 33, 76]) {
        const id = run.open(whole, { promptLogprobs: 3, logprobs: 3, ignoreEos: true })
        while (run.held(id) + chunk < whole.length)
          expect((await run.step([run.next(id, chunk), run.all(beside)])).map((row) => row.id)).toEqual([
            beside,
          ])
        const [row] = (await run.step([run.all(id)])) as [StepRow]
        expect(row.prompt).toHaveLength(whole.length - 1)
        expect(row.prompt!.map(({ token }) => token)).toEqual([...whole.subarray(1)])
        for (const [i, { token, logprob, top }] of row.prompt!.slice(prompt.length - 1).entries()) {
          expect(token).toBe(expected[i]!.token)
          expect(logprob).toBeCloseTo(expected[i]!.logprob, 3)
          expect(top.map((one) => one.token)).toEqual(expected[i]!.top.map((one) => one.token))
        }
        expect((await run.step([run.all(id)]))[0]!.prompt).toBeUndefined()
        await run.drop(id)
      }
    })

    test("are told once, also where its KV was lost in between", async () => {
      const [id, other] = [run.open(prompt, { promptLogprobs: 2 }), run.open(prompt)]
      await run.step([run.next(id, 40), run.all(other)])
      await run.step([run.all(other)], { evict: [id] })
      await run.step([run.next(id, 20), run.all(other)])
      const [row, after] = [(await run.step([run.all(id)]))[0]!, (await run.step([run.all(id)]))[0]!]
      expect(row.prompt).toHaveLength(prompt.length - 1)
      expect(row.prompt!.every(({ top }) => top.length === 2)).toBe(true)
      expect(after.prompt).toBeUndefined()
      expect(row.tokens).toEqual([run.output(other)[0]])
    })

    test("are none of what goes on here, nor where they are not asked for", async () => {
      const id = run.open(prompt, { promptLogprobs: 2, ignoreEos: true }, [30, 31])
      expect((await run.step([run.all(id)]))[0]!.prompt).toBeUndefined()
    })
  })

  test("log-probabilities are ordered, negative, and lead with the greedy choice", async () => {
    const id = run.open(promptOf(22, 8), { logprobs: 4, ignoreEos: true })
    const [row] = await run.step([run.all(id)])
    const [logprob] = row!.logprobs!
    expect(logprob!.token).toBe(row!.tokens[0])
    expect(logprob!.top).toHaveLength(4)
    expect(logprob!.top[0]).toEqual({ token: logprob!.token, logprob: logprob!.logprob })
    const values = logprob!.top.map((entry) => entry.logprob)
    expect(values).toEqual(values.toSorted((x, y) => y - x))
    expect(values[0]).toBeLessThan(0)
    expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThanOrEqual(1)
  })

  test("sampling is reproducible by its seed", async () => {
    const draw = (seed: number) => alone(promptOf(23, 8), 24, { temperature: 1.2, seed })
    const first = await draw(1)
    expect(await draw(1)).toEqual(first)
    expect(await draw(2)).not.toEqual(first)
  })

  test("a grammar is kept to, with and without randomness", async () => {
    for (const temperature of [0, 1]) {
      const grammar = `root ::= "{" [a-c]+ "}"`
      const release = await engine.constraints.hold(grammar)
      const id = run.open(promptOf(24, 8), { grammar, temperature, seed: 5, logitBias: [[3, 0]] })
      let text = ""
      for (let i = 0; i < 40 && !run.ended(id); i++) {
        const [row] = await run.step([run.all(id)])
        if (!row!.end) text += Buffer.from(engine.tokenizer.bytes(row!.tokens[0]!)).toString("latin1")
      }
      expect(text).toMatch(run.ended(id) ? /^\{[abc]+\}$/ : /^\{[abc]+$/)
      await run.drop(id)
      release()
    }
  })

  test("an answer ends only where its grammar lets it, and there at once", async () => {
    const grammar = `root ::= "ab" | "abc"`
    await engine.constraints.hold(grammar)
    const logitBias = [[subject.endToken, 100]] as const
    const id = run.open(promptOf(24, 8), { grammar, logitBias, logprobs: 1 })
    for (let i = 0; i < 4 && !run.ended(id); i++) await run.step([run.all(id)])
    const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
    expect(text).toBe("ab")
    expect(run.output(id).at(-1)).toBe(subject.endToken)
  })

  test("free text is free, and what begins in it is held to its end", async () => {
    const release = await engine.constraints.hold(FREE_TEXT)
    const [brace] = await engine.tokenizer.encode("{", { special: false, addBos: false })
    let begun = 0
    for (let seed = 0; seed < 12; seed++) {
      const logitBias = [[brace!, seed % 2 === 0 ? 4 : 100]] as const
      const sampling = { grammar: FREE_TEXT, temperature: 1, seed, logitBias, minTokens: 20 }
      const id = run.open(promptOf(60 + seed, 8), sampling)
      for (let i = 0; i < 30 && !run.ended(id); i++) await run.step([run.all(id)])
      expect(run.output(id).length).toBeGreaterThan(20)
      const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString(
        "latin1",
      )
      expect(text).toMatch(FITS_FREE_TEXT)
      begun += text.split("{").length - 1
      await run.drop(id)
    }
    expect(begun).toBeGreaterThan(10)
    release()
  })

  test("several grammars are kept to in one batch, beside free text", async () => {
    const grammars = [`root ::= [a-b]+`, null, `root ::= [0-9]+`, null]
    for (const grammar of grammars) if (grammar !== null) await engine.constraints.hold(grammar)
    const free = await alone(promptOf(25, 8), 12)
    const ids = grammars.map((grammar) => run.open(promptOf(25, 8), { grammar, ignoreEos: grammar === null }))
    for (let i = 0; i < 12; i++) await run.step(ids.filter((id) => !run.ended(id)).map((id) => run.all(id)))
    const text = (id: RequestId) =>
      Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString("latin1")
    expect(text(ids[0]!)).toMatch(/^[ab]+$/)
    expect(text(ids[2]!)).toMatch(/^[0-9]+$/)
    expect([run.output(ids[1]!), run.output(ids[3]!)]).toEqual([free, free])
  })

  test("an evicted request goes on in its grammar", async () => {
    const grammar = `root ::= "0123456789abcdefghij"`
    await engine.constraints.hold(grammar)
    const id = run.open(promptOf(26, 8), { grammar })
    for (let i = 0; i < 5; i++) await run.step([run.all(id)])
    await run.step([], { evict: [id] })
    for (let i = 0; i < 30 && !run.ended(id); i++) await run.step([run.all(id)])
    const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
    expect(text).toBe("0123456789abcdefghij")
  })

  test("alternatives that begin alike at every level are followed to any depth", async () => {
    // A parser that keeps every way apart has twice as many at each level: 2^120 here.
    const grammar = `root ::= a\na ::= "[" a "]" | "[" a "," a "]" | "[" "]"`
    await engine.constraints.hold(grammar)
    const [bracket] = await engine.tokenizer.encode("[", { special: false, addBos: false })
    const sampling = { grammar, logitBias: [[bracket!, 100]] as const }
    const ids = Array.from({ length: SEQUENCES }, (_, i) => run.open(promptOf(27 + i, 8), sampling))
    for (let i = 0; i < 120; i++) await run.step(ids.map((id) => run.all(id)))
    for (const id of ids) {
      const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
      expect(text).toMatch(/^\[+[\],[]*$/)
    }
  })

  test("a grammar that is none is the user's error; one that is not on hold is refused", async () => {
    await expect(engine.constraints.hold("root ::= (")).rejects.toThrow(UserError)
    const unknown = { ...GREEDY, grammar: `root ::= "never held"` }
    expect(() => engine.open(1, promptOf(1, 4), unknown)).toThrow(/not compiled/)
    expect(() => engine.open(1, promptOf(1, 4), GREEDY)).not.toThrow()
  })

  describe("a wrong batch is refused", () => {
    const item = (change: Partial<BatchItem>): BatchItem => ({
      id: 1,
      position: 0,
      tokens: 20,
      sample: true,
      draft: 0,
      ...change,
    })
    const cases: [string, BatchItem[], Partial<Batch>][] = [
      ["unknown request", [item({ id: 99 })], {}],
      [
        "the same request twice",
        [item({ tokens: 5, sample: false }), item({ tokens: 5, sample: false })],
        {},
      ],
      ["a gap", [item({ position: 3, tokens: 17 })], {}],
      ["no tokens", [item({ tokens: 0, sample: false })], {}],
      ["more tokens than known", [item({ tokens: 21 })], {}],
      ["sampling too early", [item({ tokens: 10 })], {}],
      ["not sampling at the end", [item({ sample: false })], {}],
      ["speculation", [item({ draft: 2 })], {}],
      ["computing what it releases", [item({})], { release: [1] }],
      ["releasing what is not open", [], { release: [99] }],
      ["evicting what is not open", [], { evict: [99] }],
      ["dropping twice", [], { release: [1], evict: [1] }],
      ["trimming what is not open", [], { trim: [{ id: 99, tokens: 1 }] }],
      ["trimming to nothing", [], { trim: [{ id: 1, tokens: 0 }] }],
      ["trimming what it computes", [item({})], { trim: [{ id: 1, tokens: 1 }] }],
      ["trimming and dropping", [], { release: [1], trim: [{ id: 1, tokens: 1 }] }],
      [
        "copying more than the source holds",
        [item({ position: 16, tokens: 4, copy: { from: 2, tokens: 16 } })],
        {},
      ],
      ["copying from itself", [item({ position: 16, tokens: 4, copy: { from: 1, tokens: 16 } })], {}],
      ["copying from no request", [item({ position: 16, tokens: 4, copy: { from: 99, tokens: 16 } })], {}],
    ]
    test.each(cases)("%s", async (_, items, drop) => {
      engine.open(1, promptOf(25, 20), GREEDY)
      engine.open(2, promptOf(25, 20), GREEDY)
      const batch: Batch = { number: 1, items, evict: [], release: [], predictedUs: 0, ...drop }
      await expect(engine.execute(batch)).rejects.toThrow(/wrong batch 1/)
      const good = await engine.execute({ ...batch, items: [item({})], evict: [], release: [], trim: [] })
      expect(good).toMatchObject({ ok: true })
    })

    test("too many tokens, sequences or too long a request", async () => {
      const many = Array.from({ length: SEQUENCES + 1 }, () => run.open(promptOf(26, 40)))
      await expect(engine.execute(run.batch(many.map((id) => run.next(id, 1))))).rejects.toThrow(/sequences/)
      await expect(engine.execute(run.batch(many.slice(1).map((id) => run.all(id))))).rejects.toThrow(
        /batch limit/,
      )
      expect(() => engine.open(1000, promptOf(1, SUITE_CONTEXT_TOKENS + 1), GREEDY)).toThrow(/exceeds/)
    })

    test("while a step runs, and after the end", async () => {
      const [a, b] = [run.open(promptOf(27, 40)), run.open(promptOf(28, 40))]
      const running = engine.execute(run.batch([run.all(a)]))
      await expect(engine.execute(run.batch([run.all(b)]))).rejects.toThrow(/while another/)
      expect(await running).toMatchObject({ ok: true })
      await engine.close()
      await expect(engine.execute(run.batch([run.all(b)]))).rejects.toThrow(/closed/)
    })
  })

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
    for (const [i, prompt] of prompts.entries()) expected.push(await alone(prompt, wanted[i]!))
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
