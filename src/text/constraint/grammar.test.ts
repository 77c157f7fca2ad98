/** Grammars of whole answers, judged by XGrammar itself: calls of tools, thoughts, and what is asked of text. */
import { beforeAll, describe, expect, it } from "vitest"
import { type Judge, judge } from "../../engine/constraint/testing.ts"
import { FORMATS } from "../tools/formats.ts"
import { HERMES } from "../tools/hermes.ts"
import { afterThinking, outputGrammar } from "./grammar.ts"

let byBytes: Judge
beforeAll(async () => {
  byBytes = await judge()
})
const accepts = (grammar: string, text: string) => byBytes.accepts(grammar, text)

describe("calls of tools", () => {
  const tools = [
    { name: "add", parameters: { type: "object", properties: { x: { type: "integer" } }, required: ["x"] } },
    { name: "now", parameters: undefined },
    { name: "any", parameters: {} },
  ]
  const call = (name: string, text: string) =>
    `<tool_call>\n{"name": "${name}", "arguments": ${text}}\n</tool_call>`

  it("one or several, with arguments after their own schema", async () => {
    const grammar = outputGrammar({ text: null, calls: tools, parallel: true })!
    const two = `${call("add", '{"x": 1}')}\n${call("any", '{"any": [1]}')}`
    for (const good of [call("add", '{"x":1}'), call("now", "{}"), two])
      expect(await accepts(grammar, good), good).toBe(true)
    for (const bad of ["hi", call("add", "{}"), call("sub", "{}"), call("now", '{"a":1}')])
      expect(await accepts(grammar, bad), bad).toBe(false)
    const single = outputGrammar({ text: null, calls: tools, parallel: false })!
    expect(await accepts(single, call("now", "{}"))).toBe(true)
    expect(await accepts(single, two)).toBe(false)
  })

  it.each([
    ["nothing", {}, ["{}", '{"a": [1]}'], ["[]", "1", "null"]],
    ["no properties", { type: "object", properties: {} }, ["{}"], ['{"a":1}']],
    ["an array", { type: "array", items: { type: "integer" } }, ['{"a": 1}'], ["[1]"]],
    [
      "an object or null",
      { anyOf: [{ type: "object", properties: { a: { const: 1 } } }, { type: "null" }] },
      ['{"a":1}'],
      ["null"],
    ],
    [
      "an object or null, as types",
      { type: ["object", "null"], properties: { a: { const: 1 } } },
      ['{"a":1}'],
      ["null", '{"b":1}'],
    ],
    [
      "an object or null, by reference",
      {
        $ref: "#/$defs/a",
        $defs: {
          a: { anyOf: [{ $ref: "#/$defs/b" }, { type: "null" }] },
          b: { type: "object", properties: { a: { const: 1 } } },
        },
      },
      ['{"a":1}'],
      ["null"],
    ],
    ["nothing but null", { type: "null" }, ['{"a":1}'], ["null"]],
  ])("have an object as arguments where the schema says %s", async (_, parameters, good, bad) => {
    for (const format of FORMATS) {
      const grammar = outputGrammar(
        { text: null, calls: [{ name: "f", parameters }], parallel: true },
        format,
      )!
      const written = format.name === "qwen-coder" ? HERMES : format
      const call = written.write([{ name: "f", arguments: {} }]).replace("<|call|>", "")
      const spaced = call
        .replace('"name":"f",', '"name": "f", ')
        .replace(/"(arguments|parameters)": ?/, '"$1": ')
      const with_ = (text: string) => {
        const all = spaced.replace("{}", () => text)
        return format.name === "mistral-list" ? all.replace(/}]$/, ', "id": "aaaaaaaa1"}]') : all
      }
      for (const one of good) expect(await accepts(grammar, with_(one)), `${format.name} ${one}`).toBe(true)
      for (const one of bad) expect(await accepts(grammar, with_(one)), `${format.name} ${one}`).toBe(false)
    }
  })

  it("or a formatted answer, where calling is left to the model", async () => {
    const grammar = outputGrammar({
      text: { kind: "object", param: "response_format" },
      calls: tools,
      parallel: true,
    })!
    for (const good of ['{"a": 1}', call("add", '{"x":1}')]) expect(await accepts(grammar, good)).toBe(true)
    expect(await accepts(grammar, "free text")).toBe(false)
  })
})

it("lets a model think before a formatted answer", async () => {
  const grammar = outputGrammar({
    text: {
      kind: "schema",
      what: "response_format 'it'",
      schema: { const: "yes" },
      param: "response_format",
    },
    ...{ calls: [], parallel: true },
  })!
  const optional = afterThinking(grammar, false)
  for (const good of ['"yes"', '<think>\na < b, <b>x</b> <</think>\n\n"yes"'])
    expect(await accepts(optional, good), good).toBe(true)
  for (const bad of ["yes", "<think>hm</think>", 'hm</think>"yes"'])
    expect(await accepts(optional, bad), bad).toBe(false)
  const opened = afterThinking(grammar, true)
  expect(await accepts(opened, 'hm\n</think>\n"yes"')).toBe(true)
  expect(await accepts(opened, '"yes"')).toBe(false)
})

it("asks nothing of free text", () => {
  expect(outputGrammar({ text: null, calls: [], parallel: true })).toBeNull()
})
