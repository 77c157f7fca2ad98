/** Every way of writing calls: whatever is in them, and however the text is cut, they are read as they were meant. */
import fc from "fast-check"
import { describe, expect, it, test } from "vitest"
import { addCall } from "../text-stream.ts"
import { CallStream } from "./call-stream.ts"
import type { ToolFormat, WrittenCall } from "./format.ts"
import { FORMATS } from "./formats.ts"
import type { CallDelta, Part, Tool } from "./parts.ts"
import { typeOf } from "./values.ts"

interface Read {
  content: string
  reasoning: string
  calls: CallDelta[]
  whole: number
}

function read(
  format: ToolFormat,
  tools: readonly Tool[],
  pieces: readonly string[],
  { bare = true, brokenOff = false } = {},
): Read {
  const stream = new CallStream({ format, tools, bare })
  const all: Read = { content: "", reasoning: "", calls: [], whole: 0 }
  const add = (parts: Part[]) => {
    for (const part of parts) {
      if (part.kind === "call") addCall(all.calls, part.delta)
      else if (part.kind === "called") all.whole++
      else all[part.kind] += part.text
    }
  }
  for (const piece of pieces) add(stream.push(piece))
  add(stream.flush(brokenOff))
  return all
}

/** Consecutive pieces of these sizes, in whole characters. */
function cut(text: string, sizes: readonly number[]): string[] {
  const characters = [...text]
  const pieces: string[] = []
  for (let at = 0, i = 0; at < characters.length; i++) {
    const size = sizes[i % sizes.length]!
    pieces.push(characters.slice(at, at + size).join(""))
    at += size
  }
  return pieces
}

const MARKS = [
  ...[
    "<tool_call>",
    "</tool_call>",
    "<function=f>",
    "</function>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
  ],
  ...[
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<|end|>",
    "<|call|>",
    "<|message|>",
  ],
  ...["```", "\n", "{", "}", '"', "\\", "</think>", "<think>", ", ", ": ", "name", "arguments", "é🙂"],
]
/** Texts in which marks are frequent. */
const text = fc.array(fc.oneof(fc.constantFrom(...MARKS), fc.string({ maxLength: 3, unit: "binary" })), {
  maxLength: 6,
})
const string = text.map((parts) => parts.join(""))
const key = fc.oneof(fc.stringMatching(/^[a-z_]{1,6}$/), fc.constantFrom("name", "arguments", "parameters"))
const anyValue = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    ...[string, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean()],
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(string, tie("value"), { maxKeys: 3, noNullPrototype: true }),
  ),
})).value
const anyArguments = fc.dictionary(key, anyValue, { maxKeys: 4, noNullPrototype: true }) as fc.Arbitrary<
  Record<string, unknown>
>
const call: fc.Arbitrary<WrittenCall> = fc.record({
  name: fc.stringMatching(/^[a-zA-Z][\w-]{0,8}$/),
  arguments: anyArguments,
})
const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 })

/** Schemas that these arguments fit. */
function toolsOf(calls: readonly WrittenCall[]): Tool[] {
  return calls.map(({ name, arguments: given }) => ({
    name,
    parameters: {
      type: "object",
      properties: Object.fromEntries(
        Object.entries(given).map(([key, value]) => [key, { type: typeOf(value) }]),
      ),
    },
  }))
}

/** How a model says something before it calls; null: it does not. */
function saying(format: ToolFormat, content: string): string | null {
  if (content === "") return ""
  if (format.name === "llama") return null
  if (format.name !== "harmony") return content
  return `<|channel|>commentary<|message|>${content}<|end|><|start|>assistant`
}

/** XML has no way to write the end of a value in it. */
const canWrite = (format: ToolFormat, calls: readonly WrittenCall[]) =>
  format.name !== "qwen-coder" ||
  calls.every(({ arguments: given }) => !/<\/parameter>/.test(JSON.stringify(given)))

describe.each(FORMATS.map((format) => [format.name, format] as const))("%s", (_, format) => {
  test("any arguments are read as they were written, however the text is cut", () => {
    const calls = fc.uniqueArray(call, { minLength: 1, maxLength: 3, selector: ({ name }) => name })
    fc.assert(
      fc.property(calls, fc.constantFrom("", "Let me see. "), sizes, (calls, content, sizes) => {
        fc.pre(canWrite(format, calls))
        const before = saying(format, content)
        fc.pre(before !== null)
        const found = read(format, toolsOf(calls), cut(before + format.write(calls), sizes))
        expect(found).toMatchObject({ content, reasoning: "", whole: calls.length })
        expect(found.calls.map(({ name }) => name)).toEqual(calls.map(({ name }) => name))
        const given = found.calls.map((one) => JSON.parse(one.arguments))
        expect(given).toEqual(calls.map((one) => JSON.parse(JSON.stringify(one.arguments))))
      }),
      { numRuns: 200 },
    )
  })

  test("a text that is cut off anywhere leaves no marks in the content, and its calls are beginnings of theirs", () => {
    fc.assert(
      fc.property(call, fc.constantFrom("", "Let me see. "), fc.nat(), sizes, (one, content, at, sizes) => {
        fc.pre(canWrite(format, [one]))
        const before = saying(format, content)
        fc.pre(before !== null)
        const characters = [...(before + format.write([one]))]
        const some = characters.slice(0, at % (characters.length + 1)).join("")
        const whole = read(format, toolsOf([one]), [characters.join("")])
        const found = read(format, toolsOf([one]), cut(some, sizes), { brokenOff: true })
        // One character is no mark, nor is a brace with part of a first key: they may be the answer.
        const shown = found.content.slice(content.length)
        if (!/^\{("[a-z]*)?$/.test(shown) && shown.length !== 1)
          expect(content.startsWith(found.content)).toBe(true)
        for (const [i, got] of found.calls.entries()) {
          expect(got.name).toBe(whole.calls[i]!.name)
          expect(whole.calls[i]!.arguments.startsWith(got.arguments)).toBe(true)
        }
      }),
      { numRuns: 200 },
    )
  })

  test("any text is read the same, however it is cut", () => {
    const pieces = [...MARKS, '{"name": "f", "arguments": {"a": 1}}', "<tool_call>\n", "assistant", "ab", " "]
    const anyText = fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((parts) => parts.join(""))
    fc.assert(
      fc.property(anyText, sizes, (text, sizes) => {
        const tools = [{ name: "f", parameters: {} }]
        expect(read(format, tools, cut(text, sizes))).toEqual(read(format, tools, [text]))
      }),
      { numRuns: 500 },
    )
  })

  test("arguments come while they are written", () => {
    const given = { query: "a".repeat(200) }
    const stream = new CallStream({ format, tools: toolsOf([{ name: "f", arguments: given }]), bare: true })
    const pieces = cut(format.write([{ name: "f", arguments: given }]), [10])
    const told = pieces.map((piece) => stream.push(piece).filter(({ kind }) => kind === "call").length)
    expect(told.filter((count) => count > 0).length).toBeGreaterThan(20)
  })

  test("big integers and the order of keys stay as they are", () => {
    const given = '{"b": 123456789012345678901234567890, "a": 1.10}'
    const text = format.write([{ name: "f", arguments: {} }]).replace("{}", () => given)
    if (format.name === "qwen-coder") return
    expect(read(format, [{ name: "f", parameters: {} }], [text]).calls[0]!.arguments).toBe(given)
  })

  test("a call of nothing has an empty object", () => {
    const found = read(
      format,
      [{ name: "f", parameters: undefined }],
      [format.write([{ name: "f", arguments: {} }])],
    )
    expect(found.calls).toEqual([{ index: 0, name: "f", arguments: "{}" }])
  })

  it("takes an answer that is nothing but JSON for a call of a given tool, and no other", () => {
    if (format.name === "harmony") return
    const tools = [{ name: "f", parameters: {} }]
    const one = '{"name": "f", "arguments": {"a": [1]}}'
    expect(read(format, tools, [` ${one}\n`])).toMatchObject({ content: "", calls: [{ name: "f" }] })
    expect(read(format, tools, [`[${one}, ${one}]`]).calls).toHaveLength(2)
    for (const other of [
      '{"name": "g", "arguments": {}}',
      '{"name": "f", "age": 3}',
      '{"a": 1}',
      "[1, 2]",
      '{"name": "f"',
    ])
      expect(read(format, tools, [other]).calls).toEqual([])
    expect(read(format, tools, [one], { bare: false })).toMatchObject({ content: one, calls: [] })
  })
})
