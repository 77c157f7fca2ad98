/** Answers that go on where another replica stopped: their client sees what it would have seen without a stop. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { Outcome } from "../core/protocol.ts"
import { ControlTokens } from "../engine/control-tokens.ts"
import type { StepRow, Tokenizer } from "../engine/port.ts"
import { Answer, type AnswerDelta, type AnswerEnd, type AnswerOptions, isCount, type Seen } from "./answer.ts"
import { addCall } from "./text-stream.ts"
import { HERMES } from "./tools/hermes.ts"
import type { CallDelta } from "./tools/parts.ts"

const END = 0
const HERMES_CALLS = { format: HERMES, tools: [{ name: "f", parameters: {} }], bare: true }

/** Token 0 ends; the others are these pieces of bytes. */
function tokenizerOf(pieces: readonly Uint8Array[]): Tokenizer {
  return {
    encode: async () => new Int32Array(0),
    controls: new ControlTokens([]),
    longestTokenBytes: 8,
    bytes: (token) => (token === END ? new Uint8Array() : pieces[token - 1]!),
    isEnd: (token) => token === END,
  }
}

class Client {
  readonly deltas: AnswerDelta[] = []
  ended: AnswerEnd | null = null
  delta = (delta: AnswerDelta): void => {
    expect(this.ended).toBeNull()
    this.deltas.push(delta)
  }
  end = (end: AnswerEnd): void => {
    expect(this.ended).toBeNull()
    this.ended = end
  }
  get text() {
    const all = <T>(of: (delta: AnswerDelta) => readonly T[]) => this.deltas.flatMap(of)
    return {
      content: all((delta) => [delta.content]).join(""),
      reasoning: all((delta) => [delta.reasoning]).join(""),
      toolCalls: this.deltas.reduce<CallDelta[]>((calls, { toolCalls }) => {
        for (const call of toolCalls) addCall(calls, call)
        return calls
      }, []),
      logprobs: all((delta) => delta.logprobs.map(({ logprob }) => logprob)),
      ended: this.ended,
    }
  }
}

/** Texts in which markers, stops, near misses and characters of several bytes are frequent. */
const text = fc
  .array(
    fc.constantFrom(
      ...["<think>", "</think>", "<tool_call>", '<tool_call>{"name":"g"}</tool_call>', "</tool_call>"],
      ...['{"name":"f","arguments":{"a":1}}', '{"name":', "<", "</", "think", "ab", "aab", "STOP", "ST"],
      ...["é", "🙂", "日本", " ", "\n", "b"],
    ),
    { maxLength: 14 },
  )
  .map((parts) => parts.join(""))
const options: fc.Arbitrary<AnswerOptions> = fc.record({
  promptTokens: fc.constant(7),
  thinking: fc.boolean(),
  thinkingTokens: fc.constantFrom(null, null, 0, 3, 9),
  text: fc.record({
    stops: fc.array(fc.constantFrom("STOP", "aab", "ab", "b\n", "🙂", "</"), { maxLength: 3 }),
    minTokens: fc.constantFrom(0, 0, 4),
    think: fc.constantFrom(null, { opened: true }, { opened: false }),
    calls: fc.constantFrom(null, HERMES_CALLS),
    singleCall: fc.boolean(),
  }),
})
const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 8 })
const generated = fc.record({
  text,
  options,
  /** Bytes of the tokens, and tokens of the steps, over and over. */
  pieces: sizes,
  steps: sizes,
  /** The same tokens as they are grouped when they are told to the other replica. */
  regrouped: sizes,
  cut: fc.nat(),
  /** Whether the model ends it, or only its limit does. */
  ends: fc.boolean(),
})

/** Consecutive parts of these sizes. */
function parts<T>(all: readonly T[], of: readonly number[]): T[][] {
  const out: T[][] = []
  for (let at = 0, i = 0; at < all.length; i++) {
    const size = of[i % of.length]!
    out.push(all.slice(at, at + size))
    at += size
  }
  return out
}

const rowOf = (tokens: number[]): StepRow => ({
  ...{ id: 1, tokens, drafted: tokens.length - 1, end: tokens.at(-1) === END },
  logprobs: tokens.map((token) => ({ token, logprob: -token, top: [] })),
})

/** Shows steps until one of them ends the answer; what the core heard of each. */
function show(answer: Answer, rows: readonly number[][]): Seen[] {
  const seen: Seen[] = []
  for (const tokens of rows) {
    seen.push(answer.onTokens(rowOf(tokens)))
    if (seen.at(-1)!.stopped) break
  }
  return seen
}

const outcome = { cachedTokens: 0 } as Outcome
const endOf = (seen: readonly Seen[]) => (seen.at(-1)?.stopped ? "stop" : "length")

/** Tokens before the answer's first, as the core counts them; −1: none was told. */
function thoughts(seen: readonly Seen[]): number {
  let before = 0
  for (const { answeringFrom, tokens } of seen) {
    if (answeringFrom >= 0) return before + answeringFrom
    before += tokens
  }
  return -1
}

test("wherever it is cut, and however its tokens are grouped, the client sees the same", () => {
  let cuts = 0
  fc.assert(
    fc.property(generated, ({ text, options, pieces, steps, regrouped, cut, ends }) => {
      const bytes = parts([...new TextEncoder().encode(text)], pieces).map((part) => Uint8Array.from(part))
      const tokenizer = tokenizerOf(bytes)
      const tokens = [...bytes.keys()].map((i) => i + 1)
      const rows = parts(ends ? [...tokens, END] : tokens, steps)

      const whole = new Client()
      const answer = new Answer(tokenizer, whole, options)
      const seen = show(answer, rows)
      answer.onEnd({ reason: endOf(seen), outcome })

      const at = seen.length === 0 ? 0 : cut % (seen.length + 1)
      const client = new Client()
      const first = new Answer(tokenizer, client, options)
      const before = show(first, rows.slice(0, at))
      // What its gateway knows: the tokens that its replica told, as the answer used them.
      const told = rows.slice(0, at).flatMap((row, i) => row.slice(0, before[i]!.tokens))
      const second = new Answer(tokenizer, client, options)
      const replayed = parts(told, regrouped).map((group) => second.replay(group))
      expect(replayed.map(({ tokens: used }) => used)).toEqual(
        parts(told, regrouped).map(({ length }) => length),
      )
      expect(replayed.some(({ stopped }) => stopped)).toBe(before.some(({ stopped }) => stopped))
      const after = endOf(replayed) === "stop" ? [] : show(second, rows.slice(at))
      second.onEnd({ reason: endOf([...replayed, ...after]), outcome })

      const { ended, ...shown } = client.text
      const { ended: wholeEnd, ...expected } = whole.text
      expect(shown).toEqual(expected)
      expect(withoutDrafts(ended)).toEqual(withoutDrafts(wholeEnd))
      expect(thoughts([...replayed, ...after])).toBe(thoughts(seen))
      if (told.length > 0 && after.length > 0) cuts++
    }),
    { numRuns: 2000 },
  )
  expect(cuts).toBeGreaterThan(250)
})

test("a step without text tells its count, and it alone; what ends the answer as well", () => {
  const client = new Client()
  const pieces = [...new TextEncoder().encode("a🙂")].map((byte) => Uint8Array.of(byte))
  const answer = new Answer(tokenizerOf(pieces), client, {
    ...{ promptTokens: 7, thinking: false, thinkingTokens: null },
    text: { stops: [], minTokens: 0, think: null, calls: null, singleCall: false },
  })
  const plain = ({ logprobs: _, ...row }: StepRow) => row
  for (const tokens of [[1], [2], [3, 4], [5], [END]]) answer.onTokens(plain(rowOf(tokens)))
  expect(client.deltas.map((delta) => [delta.completionTokens, delta.content, isCount(delta)])).toEqual([
    [1, "a", false],
    [2, "", true],
    [4, "", true],
    [5, "🙂", false],
    [6, "", true],
  ])
})

/** How often it drafted is only known of the steps that a replica took itself. */
function withoutDrafts(end: AnswerEnd | null): unknown {
  if (end?.kind !== "finished") return end
  const { drafts: _, draftedTokens: __, acceptedTokens: ___, ...usage } = end.usage
  return { ...end, usage }
}

describe("a replay", () => {
  const tokenizer = tokenizerOf(["Hel", "lo <", "tool_", "call>", "{}", "x"].map((one) => Buffer.from(one)))
  const chat: AnswerOptions = {
    ...{ promptTokens: 3, thinking: false, thinkingTokens: null },
    text: { stops: ["xx"], think: { opened: false }, calls: HERMES_CALLS },
  }

  test("tells the client nothing, and counts its tokens", () => {
    const client = new Client()
    const answer = new Answer(tokenizer, client, chat)
    answer.replay([1, 2])
    expect(client.deltas).toEqual([])
    answer.onTokens(rowOf([3]))
    answer.onTokens({ ...rowOf([6]), logprobs: [] })
    // The tool call that might have been was none; the stop string may still be one.
    expect(client.deltas.at(-1)).toMatchObject({ content: "<tool_", completionTokens: 4 })
    answer.onEnd({ reason: "length", outcome })
    expect(client.text).toMatchObject({ content: "<tool_x", ended: { usage: { completionTokens: 4 } } })
  })

  test("says that the answer has ended, by an end token or by a stop string", () => {
    const answer = () => new Answer(tokenizer, new Client(), chat)
    expect(answer().replay([1, END])).toEqual({ stopped: true, answeringFrom: -1, tokens: 2 })
    expect(answer().replay([6, 6])).toMatchObject({ stopped: true, tokens: 2 })
    // What goes on after its end is seen by what is left over.
    expect(answer().replay([6, 6, 1])).toMatchObject({ stopped: true, tokens: 2 })
    expect(answer().replay([1, 2])).toMatchObject({ stopped: false, tokens: 2 })
  })
})
