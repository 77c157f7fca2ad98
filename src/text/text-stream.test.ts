/** However a text is split into tokens, what a client sees is the same. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ControlTokens } from "../engine/control-tokens.ts"
import type { Tokenizer } from "../engine/port.ts"
import { addCall, type TextDelta, type TextOptions, TextStream } from "./text-stream.ts"
import { HERMES } from "./tools/hermes.ts"

const HERMES_CALLS: TextOptions["calls"] = {
  format: HERMES,
  tools: [{ name: "look", parameters: {} }],
  bare: true,
}

/** A tokenizer whose token i is the i-th piece of bytes. */
function pieces(parts: Uint8Array[]): Tokenizer {
  return {
    encode: async () => new Int32Array(0),
    controls: new ControlTokens([]),
    longestTokenBytes: 1,
    bytes: (token) => parts[token]!,
    isEnd: () => false,
  }
}

function run(parts: Uint8Array[], options: TextOptions): TextDelta & { stopped: boolean; answerAt: number } {
  const stream = new TextStream(pieces(parts), options)
  const all = {
    content: "",
    reasoning: "",
    toolCalls: [] as TextDelta["toolCalls"],
    stopped: false,
    answerAt: -1,
  }
  for (let token = 0; token < parts.length && !all.stopped; token++) {
    const step = stream.push({ tokens: [token], end: false })
    add(all, step)
    if (step.answeringFrom >= 0) all.answerAt = token
    all.stopped = step.stopped
  }
  add(all, stream.flush())
  return all
}

function add(all: TextDelta, step: TextDelta): void {
  all.content += step.content
  all.reasoning += step.reasoning
  for (const call of step.toolCalls) addCall(all.toolCalls, call)
}

const bytes = (text: string) => new TextEncoder().encode(text)
const whole = (text: string, options: TextOptions) => run([bytes(text)], options)
const plain: TextOptions = { stops: [], think: null, calls: null }

/** Texts in which markers, stops, and near misses are frequent. */
const text = fc
  .array(
    fc.constantFrom(
      "<think>",
      "</think>",
      "<tool_call>",
      '<tool_call>{"name":"g"}</tool_call>',
      "</tool_call>",
      '{"name":"f","arguments":{"a":1}}',
      '{"name":',
      "<",
      "</",
      "think",
      "ab",
      "aab",
      "STOP",
      "ST",
      "é",
      "🙂",
      " ",
      "\n",
      "b",
    ),
    { maxLength: 14 },
  )
  .map((parts) => parts.join(""))
const options: fc.Arbitrary<TextOptions> = fc.record({
  stops: fc.array(fc.constantFrom("STOP", "aab", "ab", "b\n", "🙂", "</"), { maxLength: 3 }),
  think: fc.constantFrom(null, { opened: true }, { opened: false }),
  calls: fc.constantFrom(null, HERMES_CALLS),
})

describe("the text a client sees", () => {
  it("is the same for every split of the text into tokens", () => {
    fc.assert(
      fc.property(
        text,
        options,
        fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 }),
        (t, o, sizes) => {
          const all = bytes(t)
          const parts: Uint8Array[] = []
          for (let at = 0, i = 0; at < all.length; i++) {
            const end = at + sizes[i % sizes.length]!
            parts.push(all.slice(at, end))
            at = end
          }
          const { answerAt: _, ...split } = run(parts, o)
          const single = run(
            [...all].map((byte) => Uint8Array.of(byte)),
            o,
          )
          const { answerAt: __, ...one } = single
          expect(split).toEqual(one)
        },
      ),
      { numRuns: 3000 },
    )
  })

  it("never contains a stop string, and loses nothing when there is none", () => {
    fc.assert(
      fc.property(text, (t) => {
        const cut = whole(t, { ...plain, stops: ["STOP", "ab"] })
        expect(cut.content).not.toMatch(/STOP|ab/)
        expect(t.startsWith(cut.content)).toBe(true)
        expect(whole(t, plain).content).toBe(t)
      }),
    )
  })

  it("cuts at the stop string that is complete first, and says so", () => {
    expect(whole("one STOP two", { ...plain, stops: ["two", "STOP"] })).toMatchObject({
      content: "one ",
      stopped: true,
    })
    expect(whole("abcd", { ...plain, stops: ["abcd", "bc"] })).toMatchObject({ content: "a", stopped: true })
    expect(whole("one STO", { ...plain, stops: ["STOP"] })).toMatchObject({
      content: "one STO",
      stopped: false,
    })
  })
})

describe("thinking", () => {
  const think: TextOptions = { stops: [], think: { opened: false }, calls: null }
  const tokens = (...parts: string[]) => parts.map(bytes)

  it("is split off, with the white space around the markers", () => {
    expect(whole("<think>\nwhy\n</think>\n\nbecause", think)).toMatchObject({
      reasoning: "why\n",
      content: "because",
    })
    expect(whole("no thinking here", think)).toMatchObject({ reasoning: "", content: "no thinking here" })
    expect(whole("why</think>so", { ...think, think: { opened: true } })).toMatchObject({
      reasoning: "why",
      content: "so",
    })
  })

  it("reports the first answer token: the one after the end marker", () => {
    expect(run(tokens("<th", "ink>", "a", "</", "think>", "b", "c"), think).answerAt).toBe(5)
    expect(run(tokens("hello", " you"), think).answerAt).toBe(0)
    expect(run(tokens("\n", "<t", "able>", "x"), think).answerAt).toBe(2)
    expect(run(tokens("<think>", "never", "ends"), think).answerAt).toBe(-1)
  })

  it("finds the phase change inside a row of several tokens", () => {
    const stream = new TextStream(pieces(tokens("<think>", "a", "</think>", "b")), think)
    expect(stream.push({ tokens: [0, 1, 2, 3], end: false })).toMatchObject({
      answeringFrom: 3,
      content: "b",
    })
  })
})

it("a row that speculated past a stop string is used up to there", () => {
  const stream = new TextStream(pieces(["one", " two", " STOP", " four"].map(bytes)), {
    stops: ["STOP"],
    think: null,
    calls: null,
  })
  expect(stream.push({ tokens: [0, 1], end: false })).toMatchObject({ used: 2, stopped: false })
  expect(stream.push({ tokens: [2, 3], end: false })).toMatchObject({ used: 1, stopped: true })
})

describe("tool calls", () => {
  const tools: TextOptions = { stops: [], think: null, calls: HERMES_CALLS }

  it("are taken out of the text", () => {
    const call = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'
    expect(whole(`Let me see.${call}\n${call}`, tools)).toMatchObject({
      content: "Let me see.",
      toolCalls: [
        { index: 0, name: "look", arguments: '{"at": "sky"}' },
        { index: 1, name: "look", arguments: '{"at": "sky"}' },
      ],
    })
  })

  it("that are not JSON stay content", () => {
    expect(whole("<tool_call>nonsense</tool_call>", tools)).toMatchObject({
      content: "<tool_call>nonsense</tool_call>",
      toolCalls: [],
    })
  })
})
