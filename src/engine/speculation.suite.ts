/** One suite for speculation on every engine and drafter: whatever is drafted, the answers are the same. */
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import type { BatchItem, EngineLimits, RequestId } from "../core/protocol.ts"
import { Random } from "../random.ts"
import { FREE_TEXT } from "./constraint/testing.ts"
import { join, promptOf, Script } from "./engine.script.ts"
import type { Engine, Sampling } from "./port.ts"

export interface SpeculationSubject {
  name: string
  open(
    sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">,
    speculates: boolean,
  ): Promise<Engine>
  endToken: number
}

const SEQUENCES = 4
const CONTEXT = 256
const CHUNK = 24
const LONGEST_CHUNK = 120
const LONGEST_DRAFT = 7

export function speculationSuite(subject: SpeculationSubject): void {
  for (const unifiedKv of [false, true])
    describe(`${subject.name}, ${unifiedKv ? "unified" : "separate"} KV`, () => suite(subject, unifiedKv))
}

function suite(subject: SpeculationSubject, unifiedKv: boolean): void {
  const open = (speculates: boolean, kvTokens = SEQUENCES * CONTEXT) =>
    subject.open({ maxSequences: SEQUENCES, unifiedKv, kvTokens }, speculates)
  let engine: Engine
  let run: Script
  beforeEach(async () => {
    engine = await open(true)
    run = new Script(engine)
  })
  afterEach(() => engine.close())

  /** What an engine that never speculates answers to each prompt alone. */
  async function answers(
    prompts: readonly Int32Array[],
    count: (i: number) => number,
    sampling: (i: number) => Partial<Sampling> = () => ({}),
  ): Promise<number[][]> {
    const plain = await open(false)
    const script = new Script(plain)
    const out: number[][] = []
    for (const [i, prompt] of prompts.entries()) {
      const { grammar = null } = sampling(i)
      if (grammar !== null) await plain.constraints.hold(grammar)
      const id = script.open(prompt, { ignoreEos: true, ...sampling(i) })
      while (script.output(id).length < count(i) && !script.ended(id))
        await script.step([script.next(id, LONGEST_CHUNK)])
      out.push(script.output(id))
      await script.drop(id)
    }
    await plain.close()
    return out
  }

  /** A random model repeats itself when it has few words. */
  const logitBias = [20, 21, 22].map((token) => [token, 9] as const)
  const samplings: [string, Partial<Sampling>][] = [
    ["greedy", {}],
    ["sampled by a seed", { temperature: 0.9, topP: 0.95, topK: 40, seed: 11, logitBias }],
    ["greedy with penalties", { repeatPenalty: 1.1, presencePenalty: 0.4, logitBias }],
    [
      "sampled with penalties",
      { temperature: 1.3, minP: 0.02, frequencyPenalty: 0.1, repeatLastTokens: 20, seed: 3, logitBias },
    ],
  ]
  test.each(samplings)("%s: the answer with speculation is the answer without", async (_, sampling) => {
    const prompts = [repetitive(50, 60), promptOf(51, 30), repetitive(52, 20), repetitive(53, 100)]
    const expected = await answers(
      prompts,
      () => 60,
      () => sampling,
    )
    const ids = prompts.map((prompt) => run.open(prompt, { ignoreEos: true, ...sampling }))
    const random = new Random(5)
    let drafted = 0
    let accepted = 0
    for (let steps = 0; ids.some((id) => run.output(id).length < 60); steps++) {
      expect(steps).toBeLessThan(300)
      const items = ids
        .filter((id) => run.output(id).length < 60)
        .map((id) => run.speculating(id, CHUNK, random.below(LONGEST_DRAFT + 1)))
      for (const row of await run.step(items)) {
        drafted += row.drafted
        accepted += row.tokens.length - 1
        expect(row.drafted).toBeLessThanOrEqual(items.find((item) => item.id === row.id)!.draft)
        expect(row.tokens.length).toBeLessThanOrEqual(1 + row.drafted)
      }
    }
    for (const [i, id] of ids.entries()) expect(run.output(id).slice(0, 60)).toEqual(expected[i])
    expect(drafted).toBeGreaterThan(20)
    expect(accepted).toBeGreaterThan(5)
    expect(accepted).toBeLessThan(drafted)
  })

  test("a drafter saves steps where text repeats", async () => {
    const id = run.open(repetitive(54, 120))
    let steps = 0
    while (run.output(id).length < 80) {
      await run.step([run.speculating(id, 128, 4)])
      steps++
    }
    expect(steps).toBeLessThan(80)
  })

  test("a request ends at an end token inside a draft", async () => {
    const prompt = repetitive(55, 40)
    // The end token is likely enough to come soon, and surely not at once.
    const sampling = (i: number) => ({
      ignoreEos: false,
      temperature: 1,
      seed: i,
      logitBias: [[subject.endToken, 4] as const],
    })
    const prompts = Array.from({ length: 12 }, () => prompt)
    const expected = await answers(prompts, () => 60, sampling)
    for (const [i, tokens] of expected.entries()) {
      const id = run.open(prompt, sampling(i))
      while (!run.ended(id) && run.output(id).length < 60) await run.step([run.speculating(id, 64, 6)])
      expect(run.output(id).slice(0, 60)).toEqual(tokens)
      if (run.ended(id)) expect(run.output(id).at(-1)).toBe(subject.endToken)
      await run.drop(id)
    }
  })

  test("log-probabilities are those of each kept token", async () => {
    const prompt = repetitive(56, 60)
    const sampling = { ignoreEos: true, logprobs: 2 }
    const seen: number[][] = []
    for (const draft of [0, 5]) {
      const id = run.open(prompt, sampling)
      const logprobs: number[] = []
      while (logprobs.length < 30) {
        const [row] = await run.step([run.speculating(id, 128, draft)])
        expect(row!.logprobs!.map((entry) => entry.token)).toEqual(row!.tokens)
        logprobs.push(...row!.logprobs!.map((entry) => entry.logprob))
      }
      seen.push(logprobs.slice(0, 30))
      await run.drop(id)
    }
    for (const [i, value] of seen[0]!.entries()) expect(seen[1]![i]).toBeCloseTo(value, 4)
  })

  test("a grammar is kept to, and gives what it gives without speculation", async () => {
    const grammar = `root ::= "{" ("ab" | "abc")+ "}"`
    await engine.constraints.hold(grammar)
    for (const temperature of [0, 1]) {
      const sampling = { grammar, temperature, ignoreEos: false, seed: 9 }
      const [expected] = await answers(
        [promptOf(24, 6)],
        () => 40,
        () => sampling,
      )
      const id = run.open(promptOf(24, 6), sampling)
      while (!run.ended(id) && run.output(id).length < 40) await run.step([run.speculating(id, 64, 5)])
      expect(run.output(id).slice(0, 40)).toEqual(expected)
      await run.drop(id)
    }
  })

  test("free text is drafted, and what begins in it held, as without speculation", async () => {
    await engine.constraints.hold(FREE_TEXT)
    // Few tokens, so that some come again: what nothing repeats is not drafted.
    const likely = await engine.tokenizer.encode("{ab", { special: false, addBos: false })
    const logitBias = [...likely].map((token) => [token, 50] as const)
    let drafted = 0
    for (const temperature of [0, 1]) {
      const sampling = { grammar: FREE_TEXT, temperature, ignoreEos: true, seed: 9, logitBias }
      const [expected] = await answers(
        [repetitive(62, 40)],
        () => 40,
        () => sampling,
      )
      const id = run.open(repetitive(62, 40), sampling)
      while (!run.ended(id) && run.output(id).length < 40)
        for (const row of await run.step([run.speculating(id, 64, 5)])) drafted += row.drafted
      expect(run.output(id).slice(0, 40)).toEqual(expected)
      await run.drop(id)
    }
    expect(drafted).toBeGreaterThan(0)
  })

  test("the last tokens of a context can be drafted", async () => {
    const prompt = repetitive(57, CONTEXT - 20)
    const [expected] = await answers([prompt], () => 20)
    const id = run.open(prompt)
    while (run.held(id) < CONTEXT && run.output(id).length < 20)
      await run.step([run.speculating(id, 100, LONGEST_DRAFT)])
    expect(run.output(id).slice(0, 20)).toEqual(expected!.slice(0, run.output(id).length))
  })

  test.runIf(unifiedKv)("rejected drafts give their room in the KV pool back", async () => {
    await engine.close()
    engine = await open(true, CONTEXT)
    run = new Script(engine)
    const long = run.open(repetitive(58, 40))
    let held = 0
    for (let i = 0; i < 40 && held < 140; i++) {
      await run.step([run.speculating(long, 64, LONGEST_DRAFT)])
      held = run.held(long)
    }
    // All that is left, to the last block.
    const rest = 16 * Math.floor((CONTEXT - held) / 16) - 16
    const other = run.open(promptOf(59, rest))
    for (let at = 0; at < rest; at += CHUNK) await run.step([run.next(other, CHUNK)])
    expect(run.output(other)).toHaveLength(1)
  })

  test("a random schedule of everything, with speculation, gives every request its own answer", async () => {
    const random = new Random(unifiedKv ? 21 : 22)
    const heads = [repetitive(60, 64), promptOf(61, 64)]
    const kinds = samplings.map(([, sampling]) => sampling)
    const prompts = Array.from({ length: 16 }, (_, i) =>
      join(heads[i % 2]!.subarray(0, 16 * random.below(5)), repetitive(70 + i, 3 + random.below(60))),
    )
    const wanted = prompts.map(() => 1 + random.below(50))
    const sampling = (i: number) => kinds[i % kinds.length]!
    const expected = await answers(prompts, (i) => wanted[i]!, sampling)
    const ids = prompts.map((prompt, i) => run.open(prompt, { ignoreEos: true, ...sampling(i) }))
    const cancelled = new Set(ids.filter((_, i) => i % 5 === 4))
    const waiting = [...ids]
    const running = new Set<RequestId>()
    const leaving: RequestId[] = []
    let drafted = 0
    for (let steps = 0; waiting.length > 0 || running.size > 0 || leaving.length > 0; steps++) {
      expect(steps).toBeLessThan(2000)
      const evict = [...running].filter((id) => run.held(id) > 0 && random.uniform() < 0.05)
      const release = leaving.splice(0, random.below(leaving.length + 1))
      const places = () =>
        SEQUENCES -
        leaving.length -
        [...running].filter((id) => run.held(id) > 0 || items.some((i) => i.id === id)).length
      const items: BatchItem[] = []
      while (waiting.length > 0 && places() > 0 && random.uniform() < 0.5) {
        const id = waiting.shift()!
        const source = [...running].find(
          (other) => !evict.includes(other) && run.commonPrefix(other, id) >= 16,
        )
        const item = source === undefined ? null : run.copied(id, source, run.commonPrefix(source, id), CHUNK)
        running.add(id)
        items.push(item ?? run.speculating(id, 1 + random.below(CHUNK), random.below(8)))
      }
      for (const id of running) {
        if (items.some((item) => item.id === id) || evict.includes(id)) continue
        if (run.held(id) === 0 && places() <= 0) continue
        if (random.uniform() < 0.8)
          items.push(run.speculating(id, 1 + random.below(CHUNK), random.below(LONGEST_DRAFT + 1)))
      }
      for (const row of await run.step(items.slice(0, SEQUENCES), { evict, release })) drafted += row.drafted
      for (const id of running) {
        const enough = run.output(id).length >= wanted[ids.indexOf(id)]!
        if (!enough && !(cancelled.has(id) && run.held(id) > 0 && random.uniform() < 0.1)) continue
        running.delete(id)
        leaving.push(id)
      }
    }
    for (const [i, id] of ids.entries()) {
      const output = run.output(id).slice(0, wanted[i])
      expect(output).toEqual(expected[i]!.slice(0, output.length))
      if (!cancelled.has(id)) expect(output).toHaveLength(wanted[i]!)
    }
    expect(drafted).toBeGreaterThan(20)
  })

  test("drafts of a prompt's middle, of no whole number, or without a drafter are refused", async () => {
    const id = run.open(promptOf(62, 20))
    const item = { ...run.next(id, 5), draft: 2 }
    await expect(engine.execute(run.batch([item]))).rejects.toThrow(/before its last known token/)
    for (const draft of [-1, 1.5])
      await expect(engine.execute(run.batch([{ ...run.all(id), draft }]))).rejects.toThrow(/drafts/)
    const plain = await open(false)
    const script = new Script(plain)
    const other = script.open(promptOf(62, 20))
    await expect(plain.execute(script.batch([script.speculating(other, 64, 1)]))).rejects.toThrow(
      /without a drafter/,
    )
    await plain.close()
  })
}

/** A short phrase over and over, with a few slips. */
function repetitive(seed: number, length: number): Int32Array {
  const random = new Random(seed)
  const phrase = promptOf(seed, 7)
  return Int32Array.from({ length }, (_, i) =>
    random.uniform() < 0.1 ? 10 + random.below(200) : phrase[i % 7]!,
  )
}
