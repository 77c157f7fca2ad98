/** Answers that may call tools, held to a grammar: whatever a model says, a call that begins ends as one of its tool. */
import fc from "fast-check"
import { beforeAll, describe, expect, it, test } from "vitest"
import { allows } from "../../engine/constraint/mask.ts"
import { type Judge, judge } from "../../engine/constraint/testing.ts"
import { UserError } from "../../errors.ts"
import { Random } from "../../random.ts"
import { afterThinking, callingGrammar } from "../constraint/grammar.ts"
import { Splitter } from "../splitter.ts"
import { addCall } from "../text-stream.ts"
import type { ToolFormat } from "./format.ts"
import { FORMATS } from "./formats.ts"
import { HERMES } from "./hermes.ts"
import { LLAMA } from "./llama.ts"
import type { CallDelta, Tool } from "./parts.ts"

type Given = Record<string, unknown>
const isInteger = (value: unknown) => Number.isInteger(value)
const isText = (value: unknown) => typeof value === "string"
const may = (value: unknown, fits: (value: unknown) => boolean) => value === undefined || fits(value)
const only = (given: Given, ...keys: string[]) => Object.keys(given).every((key) => keys.includes(key))

/** Tools, and whether arguments fit them. */
const TOOLS: readonly (Tool & { fits(given: Given): boolean })[] = [
  {
    name: "look",
    parameters: {
      type: "object",
      properties: {
        at: { type: "string" },
        near: { type: "integer", minimum: 0, maximum: 99 },
        kind: { enum: ["a", "b c"] },
        when: { anyOf: [{ type: "string" }, { type: "null" }] },
      },
      required: ["at", "kind"],
    },
    fits: ({ at, near, kind, when, ...rest }) =>
      [
        isText(at) && (kind === "a" || kind === "b c"),
        may(near, (n) => isInteger(n) && (n as number) >= 0 && (n as number) <= 99),
        may(when, (one) => one === null || isText(one)) && only(rest),
      ].every(Boolean),
  },
  {
    name: "look.up",
    parameters: {
      type: "object",
      properties: {
        list: { type: "array", items: { type: "integer" }, maxItems: 3 },
        deep: { type: "object", properties: { k: { type: "string", maxLength: 5 } }, required: ["k"] },
        yes: { type: "boolean" },
      },
      required: ["deep"],
    },
    fits: ({ list, deep, yes, ...rest }) =>
      isText((deep as Given).k) &&
      [...((deep as Given).k as string)].length <= 5 &&
      may(list, (all) => Array.isArray(all) && all.length <= 3 && all.every(isInteger)) &&
      may(yes, (one) => typeof one === "boolean") &&
      only(rest),
  },
  { name: "now", parameters: undefined, fits: (given) => only(given) },
  { name: "any", parameters: { type: "object", properties: { a: {} } }, strict: false, fits: () => true },
  {
    name: "pick",
    parameters: {
      $ref: "#/$defs/p",
      $defs: { p: { type: "object", properties: { n: { const: 7 } }, required: ["n"] } },
    },
    fits: ({ n, ...rest }) => n === 7 && only(rest),
  },
  { name: "odd", parameters: { type: "object", not: { required: ["a"] } }, fits: () => true },
]
const named = new Map(TOOLS.map((tool) => [tool.name, tool]))

const EXAMPLES = [
  { name: "look", arguments: { at: "x", kind: "a" } },
  { name: "now", arguments: {} },
  { name: "look.up", arguments: { deep: { k: "é" }, yes: true } },
  { name: "pick", arguments: { n: 7 } },
  { name: "any", arguments: { a: [1] } },
]
/** What a model might write, each tried wherever it may come. */
const PIECES = [
  ...["Let me see. ", "<think>", "</think>", "<", "{", "[", "\n", " ", '"', "é🙂", "a < b, <b>x</b> "],
  ...[
    '{"name": "',
    '{"name": "Bob", "age": 3}',
    '{ "name":"look", "arguments":',
    '[{"name": "now"',
    "look",
    "{}",
  ],
  ...[
    "<tool_call>",
    "<tool_call>\n",
    '<tool_call>{"name": "',
    "</tool_call>",
    "<function=",
    "<parameter=at>\n",
  ],
  ...["[TOOL_CALLS]", "[ARGS]", "[TOOL_CALLS]look[ARGS]{", "<|python_tag|>", "; "],
  ...["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁calls▁end｜>"],
  ...[
    "<|channel|>",
    "<|message|>",
    "<|start|>assistant",
    " to=functions.",
    "<|end|>",
    "commentary",
    "analysis",
  ],
]
/** What ends calls and parts of them. */
const CLOSERS = [
  ...['"', "}", "]", "a", "7", '": ', "\n</parameter>\n", "</function>", "\n</tool_call>", "{}"],
  ...["<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "\n```", "<|message|>", '"k": "', '"n": 7'],
]
/** Tokens across the borders of marks. */
const TOKENS = [
  ...[
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<｜tool▁calls▁begin｜>",
    "<|channel|>",
    "<|message|>",
    "<think>",
  ],
  ...[
    '>\n{"',
    '": {"',
    '":',
    ' {"',
    '","',
    '"}}',
    "_call>",
    "<tool",
    "l>\n",
    "]look",
    "=look>\n",
    "name",
    "the",
    " to=",
  ],
  ...['{"name', ' "', "}\n</", "{}}\n", "</parameter>", ">\n<", "[{", "}]", "},"],
]

const ASCII = Array.from({ length: 128 }, (_, byte) => byte)

let words: Judge
beforeAll(async () => {
  words = await judge(TOKENS)
})

/** Of these, or where none may come, of all. */
function randomly(mask: Int32Array, some: readonly number[]): number[] {
  const may = some.filter((one) => allows(mask, one))
  return may.length > 0
    ? may
    : Array.from({ length: 256 }, (_, byte) => byte).filter((one) => allows(mask, one))
}

interface Said {
  text: string
  /** It came to its end. */
  ended: boolean
}

/** A text that a model of pure chance says under a grammar: what it may say, and often what it would like to. */
async function saidBy(
  random: Random,
  grammar: string,
  pieces: readonly string[],
  first: string,
): Promise<Said> {
  const { vocabulary, start } = words
  const follower = await start(grammar)
  const end = vocabulary.ends[0]!
  const bytes: number[] = []
  let wish = tokensOf(first, random)
  let ended = false
  for (let step = 0; step < 400 && !ended; step++) {
    const mask = await follower.mask()
    const late = step > 60
    if (late && allows(mask, end)) {
      ended = true
      break
    }
    if (wish.length === 0 && (late || random.uniform() < 0.3)) {
      const from = late ? CLOSERS : pieces
      wish = tokensOf(from[random.below(from.length)]!, random)
    }
    const wished = wish.shift()
    let token = wished !== undefined && allows(mask, wished) ? wished : null
    if (token === null) {
      wish = []
      if (late && random.uniform() < 0.8) continue
      // Half a character of chance would be none.
      const all = randomly(mask, [...ASCII, ...TOKENS.map((_, i) => 256 + i), end])
      expect(all.length, JSON.stringify(textOf(bytes))).toBeGreaterThan(0)
      token = all[random.below(all.length)]!
    }
    expect(await follower.take(token)).toBe(true)
    if (token === end) ended = true
    else bytes.push(...vocabulary.bytes.subarray(vocabulary.starts[token], vocabulary.starts[token + 1]))
  }
  follower.dispose()
  return { text: textOf(bytes), ended }
}

/** In the longest tokens, or byte by byte. */
function tokensOf(text: string, random: Random): number[] {
  const whole = random.uniform() < 0.5
  const tokens: number[] = []
  for (let rest = text; rest !== ""; ) {
    const at = whole ? TOKENS.findIndex((token) => rest.startsWith(token)) : -1
    const piece = at < 0 ? String.fromCodePoint(rest.codePointAt(0)!) : TOKENS[at]!
    tokens.push(...(at < 0 ? new TextEncoder().encode(piece) : [256 + at]))
    rest = rest.slice(piece.length)
  }
  return tokens
}

function textOf(bytes: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(bytes))
}

interface Read {
  calls: CallDelta[]
  whole: number
}

function read(format: ToolFormat, { text, ended }: Said, opened: boolean, random: Random): Read {
  const splitter = new Splitter({
    think: { opened },
    calls: { format, tools: TOOLS, bare: true, held: true },
  })
  const found: Read = { calls: [], whole: 0 }
  const add = (parts: ReturnType<Splitter["push"]>) => {
    for (const part of parts) {
      if (part.kind === "call") addCall(found.calls, part.delta)
      else if (part.kind === "called") found.whole++
    }
  }
  for (let at = 0; at < text.length; ) {
    const size = 1 + random.below(20)
    add(splitter.push(text.slice(at, at + size)))
    at += size
  }
  add(splitter.flush(!ended))
  return found
}

describe.each(FORMATS.map((format) => [format.name, format] as const))("%s", (name, format) => {
  test("a call that begins ends as one of a tool, whatever is said and however it is cut", async () => {
    const grammar = callingGrammar(TOOLS, format)
    const opened = afterThinking(grammar, true)
    // Its own calls, and what they begin with.
    const examples = EXAMPLES.map((one) => format.write([one]))
    const two = format.write(EXAMPLES.slice(0, 2))
    const pieces = [...PIECES, ...examples, ...examples.map((text) => text.slice(0, -9)), two]
    const calls = new Map<string, number>()
    for (let seed = 0; seed < 28; seed++) {
      const random = new Random(seed)
      const thinks = seed % 4 === 3 && name !== "harmony"
      const first = seed % 2 === 0 ? examples[(seed / 2) % examples.length]! : ""
      const said = await saidBy(random, thinks ? opened : grammar, pieces, first)
      const found = read(format, said, thinks, random)
      const shown = JSON.stringify(said.text)
      if (said.ended) expect(found.whole, shown).toBe(found.calls.length)
      for (const [i, call] of found.calls.entries()) {
        const tool = named.get(call.name!)
        expect(tool, `${call.name} in ${shown}`).toBeDefined()
        if (i >= found.whole) continue
        const given = JSON.parse(call.arguments) as Given
        expect(typeof given === "object" && given !== null && !Array.isArray(given), shown).toBe(true)
        expect(tool!.fits(given), `${call.name} ${call.arguments} in ${shown}`).toBe(true)
        calls.set(call.name!, (calls.get(call.name!) ?? 0) + 1)
      }
    }
    expect([...calls.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThan(10)
    expect(calls.size).toBeGreaterThan(2)
  })

  it("lets anything be said that is no call, and its own calls", async () => {
    const grammar = callingGrammar(TOOLS, format)
    const given = { look: { at: 'x "y" \n é', kind: "b c" }, now: {} }
    const calls = Object.entries(given).map(([name, one]) => ({ name, arguments: one }))
    const texts = ["", "Hello.\n", "a < b <b>é🙂</b> [1] {2}", '{"a": 1}', '{"name": "Bob"}', "[1, 2]"]
    for (const text of texts) expect(await words.accepts(grammar, text), text).toBe(true)
    const saying = name === "llama" || name === "harmony" ? "" : "I will look.\n"
    for (const how of ["bytes", "longest"] as const)
      expect(await words.accepts(grammar, saying + format.write(calls), how)).toBe(true)
    const thought = "hm <tool_call> [TOOL_CALLS] x</think>\n\nYes."
    if (name === "harmony") return
    expect(await words.accepts(grammar, `<think>\n${thought}`)).toBe(true)
    expect(await words.accepts(afterThinking(grammar, true), thought)).toBe(true)
  })

  it("lets no call of another tool begin, nor one whose arguments do not fit", async () => {
    const grammar = callingGrammar(TOOLS, format)
    const wrong = [
      { name: "go", arguments: {} },
      { name: "now", arguments: { a: 1 } },
      { name: "pick", arguments: { n: 8 } },
      { name: "look.up", arguments: { deep: { k: "123456" } } },
    ]
    for (const call of wrong)
      if (name !== "llama" || call.name !== "go")
        expect(await words.accepts(grammar, format.write([call])), call.name).toBe(false)
  })
})

it("refuses a strict tool that no grammar keeps, and holds others of that kind to an object", () => {
  const odd = TOOLS.find(({ name }) => name === "odd")!
  expect(() => callingGrammar([odd], HERMES)).not.toThrow()
  expect(() => callingGrammar([{ ...odd, strict: true }], HERMES)).toThrow(UserError)
})

it("takes JSON that only begins like a call for what it is", async () => {
  const grammar = callingGrammar([TOOLS[0]!], LLAMA)
  for (const text of [
    '{"name": "Bob", "age": 3}',
    '{"name": "lookout"}',
    '{"names": []}',
    '[{"name": "Eve"}]',
  ])
    expect(await words.accepts(grammar, text), text).toBe(true)
  expect(await words.accepts(grammar, '{"name": "look", "age": 3}')).toBe(false)
})

test("free text is let through whatever it is", async () => {
  const grammar = callingGrammar(TOOLS, HERMES)
  const text = fc
    .string({ unit: "grapheme", maxLength: 60 })
    .filter((one) => !/<tool_call>|^\s*[[{]|\p{Surrogate}/u.test(one))
  await fc.assert(
    fc.asyncProperty(text, async (one) => {
      expect(await words.accepts(grammar, one)).toBe(true)
    }),
    { numRuns: 40 },
  )
})
