/** One suite for answers that go on where another engine stopped: they are what they would have been there. */
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import type { EngineLimits } from "../core/protocol.ts"
import { boundsHeader, markOf } from "./constraint/counted.ts"
import { FREE_TEXT } from "./constraint/testing.ts"
import { promptOf, Script } from "./engine.script.ts"
import { type Engine, GREEDY, type Sampling } from "./port.ts"

export interface GoingOnSubject {
  name: string
  unifiedKv: boolean
  /** Token by token the same result however a request is batched (docs/design.md, Engine). */
  open(
    sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">,
    speculates: boolean,
  ): Promise<Engine>
  endToken: number
}

const SEQUENCES = 4
const CONTEXT = 256
const LONGEST_CHUNK = 24
const TOKENS = 40
/** Around the ends of KV blocks of 16 tokens, and of the penalties' window. */
const SPLITS = [1, 2, 6, 15, 16, 19, 20, 39]

export function goingOnSuite(subject: GoingOnSubject): void {
  const { name, unifiedKv } = subject
  describe(`${name}, ${unifiedKv ? "unified" : "separate"} KV`, () => suite(subject))
}

function suite(subject: GoingOnSubject): void {
  const { unifiedKv } = subject
  const open = (speculates = false) =>
    subject.open({ maxSequences: SEQUENCES, unifiedKv, kvTokens: SEQUENCES * CONTEXT }, speculates)
  let first: Engine
  let second: Engine
  beforeEach(async () => {
    first = await open()
    second = await open()
  })
  afterEach(async () => {
    await first.close()
    await second.close()
  })

  /** The answer of the first engine, and its log-probabilities. */
  async function whole(prompt: Int32Array, sampling: Partial<Sampling>) {
    const run = new Script(first)
    const id = run.open(prompt, sampling)
    const logprobs: number[] = []
    while (run.output(id).length < TOKENS && !run.ended(id))
      for (const row of await run.step([run.next(id, 128)]))
        logprobs.push(...(row.logprobs ?? []).map((entry) => entry.logprob))
    return { tokens: run.output(id), logprobs }
  }

  /** What the second engine makes of it from each split on, several at once and in pieces. */
  async function fromSplits(prompt: Int32Array, sampling: Partial<Sampling>, tokens: number[], draft = 0) {
    const run = new Script(second)
    const found = new Map<number, { tokens: number[]; logprobs: number[]; drafted: number }>()
    const splits = SPLITS.filter((split) => split < tokens.length)
    for (let i = 0; i < splits.length; i += SEQUENCES) {
      const ids = splits.slice(i, i + SEQUENCES).map((split) => {
        const id = run.open(prompt, sampling, tokens.slice(0, split))
        found.set(split, { tokens: run.output(id), logprobs: [], drafted: 0 })
        return [split, id] as const
      })
      const going = () => ids.filter(([, id]) => run.output(id).length < TOKENS && !run.ended(id))
      while (going().length > 0) {
        const items = going().map(([, id]) => run.speculating(id, LONGEST_CHUNK, draft))
        for (const row of await run.step(items)) {
          const [split] = ids.find(([, id]) => id === row.id)!
          const seen = found.get(split)!
          seen.logprobs.push(...(row.logprobs ?? []).map((entry) => entry.logprob))
          seen.drafted += row.drafted
        }
      }
      await run.drop(...ids.map(([, id]) => id))
    }
    expect(found.size).toBeGreaterThan(0)
    return found
  }

  const logitBias = [20, 21, 22].map((token) => [token, 9] as const)
  const samplings: [string, Partial<Sampling>][] = [
    ["greedy", { ignoreEos: true }],
    ["greedy with biases", { ignoreEos: true, logitBias: [[65, 2] as const, [66, -100] as const] }],
    [
      "greedy with penalties",
      {
        ignoreEos: true,
        repeatPenalty: 1.3,
        frequencyPenalty: 0.2,
        presencePenalty: 0.4,
        repeatLastTokens: 20,
      },
    ],
    ["drawn by a seed", { ignoreEos: true, temperature: 1.2, seed: 11 }],
    ["drawn from few", { ignoreEos: true, temperature: 0.9, topP: 0.95, topK: 40, seed: 5, logitBias }],
    // Often there is but one to choose from.
    ["drawn from one or two", { ignoreEos: true, temperature: 0.7, topP: 0.3, seed: 6, logitBias }],
    [
      "drawn without some words",
      {
        ...{ ignoreEos: true, temperature: 0.9, topK: 40, seed: 4, logitBias },
        badWords: [[20, 21], [22, 22, 20], [101], [32, 116]],
      },
    ],
    [
      "drawn with penalties",
      {
        ...{ ignoreEos: true, temperature: 1.3, minP: 0.02, seed: 3, logitBias },
        ...{ frequencyPenalty: 0.3, repeatPenalty: 1.1, repeatLastTokens: 20 },
      },
    ],
  ]
  test.each(samplings)("%s: tokens after a split are those without one", async (_, sampling) => {
    const prompt = promptOf(50, 40)
    const { tokens } = await whole(prompt, sampling)
    expect(tokens).toHaveLength(TOKENS)
    for (const [split, found] of await fromSplits(prompt, sampling, tokens))
      expect([split, found.tokens]).toEqual([split, tokens])
  })

  test("tokens that were drawn elsewhere have moved the luck on", async () => {
    const sampling = { ignoreEos: true, temperature: 1.2, seed: 11 }
    const { tokens } = await whole(promptOf(50, 40), sampling)
    const run = new Script(second)
    // The same known tokens, all of them the prompt's: its luck begins anew.
    const id = run.open(Int32Array.from([...promptOf(50, 40), ...tokens.slice(0, 8)]), sampling)
    while (run.output(id).length < 20) await run.step([run.all(id)])
    expect(run.output(id)).not.toEqual(tokens.slice(8, 28))
  })

  test("log-probabilities are those without a split", async () => {
    const sampling = { ignoreEos: true, logprobs: 3 }
    const { tokens, logprobs } = await whole(promptOf(51, 30), sampling)
    for (const [split, found] of await fromSplits(promptOf(51, 30), sampling, tokens)) {
      expect(found.logprobs).toHaveLength(TOKENS - split)
      for (const [i, value] of found.logprobs.entries()) expect(value).toBeCloseTo(logprobs[split + i]!, 4)
    }
  })

  test("an answer may end after as many tokens as it might have", async () => {
    const sampling = { logitBias: [[subject.endToken, 100] as const], minTokens: 22 }
    const { tokens } = await whole(promptOf(52, 10), sampling)
    expect(tokens).toHaveLength(23)
    for (const [, found] of await fromSplits(promptOf(52, 10), sampling, tokens))
      expect(found.tokens).toEqual(tokens)
  })

  test.each([0, 1])("a grammar is gone on in, at temperature %d", async (temperature) => {
    const grammar = `root ::= "{" ("ab" | "abc" | "[" [0-9]+ "]")+ "}"`
    for (const engine of [first, second]) await engine.constraints.hold(grammar)
    const sampling = { grammar, temperature, seed: 9 }
    const { tokens } = await whole(promptOf(53, 12), sampling)
    for (const [split, found] of await fromSplits(promptOf(53, 12), sampling, tokens))
      expect([split, found.tokens]).toEqual([split, tokens])
  })

  test.each([0, 1])("what begins in free text is gone on in, at temperature %d", async (temperature) => {
    for (const engine of [first, second]) await engine.constraints.hold(FREE_TEXT)
    const [brace] = await first.tokenizer.encode("{", { special: false, addBos: false })
    const sampling = { grammar: FREE_TEXT, temperature, seed: 9, logitBias: [[brace!, 5]] as const }
    const { tokens } = await whole(promptOf(61, 12), sampling)
    for (const [split, found] of await fromSplits(promptOf(61, 12), sampling, tokens))
      expect([split, found.tokens]).toEqual([split, tokens])
  })

  test("a bounded string is counted on", async () => {
    const chars = `root ::= "\\"" "${markOf(0)}" [a-z]* "\\""`
    const grammar = boundsHeader([{ min: 12, max: 14 }]) + chars
    for (const engine of [first, second]) await engine.constraints.hold(grammar)
    const sampling = { grammar, temperature: 1, seed: 4 }
    const { tokens } = await whole(promptOf(54, 12), sampling)
    const text = (all: readonly number[]) =>
      Buffer.concat(all.map((token) => second.tokenizer.bytes(token))).toString()
    expect(text(tokens)).toMatch(/^"[a-z]{12,14}"$/)
    for (const [, found] of await fromSplits(promptOf(54, 12), sampling, tokens))
      expect(text(found.tokens)).toBe(text(tokens))
  })

  test("one that is evicted later goes on all the same", async () => {
    const sampling = { ignoreEos: true, temperature: 1, seed: 8 }
    const { tokens } = await whole(promptOf(55, 30), sampling)
    const run = new Script(second)
    const id = run.open(promptOf(55, 30), sampling, tokens.slice(0, 12))
    while (run.output(id).length < 20) await run.step([run.next(id, LONGEST_CHUNK)])
    await run.step([], { evict: [id] })
    while (run.output(id).length < TOKENS) await run.step([run.next(id, LONGEST_CHUNK)])
    expect(run.output(id)).toEqual(tokens)
  })

  test.each([
    ["greedy", { ignoreEos: true, logitBias }],
    ["drawn by a seed", { ignoreEos: true, temperature: 0.9, topK: 40, seed: 11, logitBias }],
  ] as [string, Partial<Sampling>][])("%s: drafts see what was said elsewhere", async (_, sampling) => {
    await second.close()
    second = await open(true)
    const { tokens } = await whole(promptOf(56, 40), sampling)
    let drafted = 0
    for (const [split, found] of await fromSplits(promptOf(56, 40), sampling, tokens, 5)) {
      expect([split, found.tokens.slice(0, TOKENS)]).toEqual([split, tokens])
      drafted += found.drafted
    }
    expect(drafted).toBeGreaterThan(0)
  })

  test("what has ended, or is too long, is refused", () => {
    const output = Int32Array.of(70, subject.endToken)
    expect(() => second.open(1, promptOf(57, 4), GREEDY, output)).toThrow(/has ended/)
    const long = new Int32Array(CONTEXT - 3).fill(70)
    expect(() => second.open(1, promptOf(57, 4), GREEDY, long)).toThrow(/prompt and output .* exceeds/)
    // It is not open, then.
    second.open(1, promptOf(57, 4), GREEDY, long.subarray(1))
  })
}
