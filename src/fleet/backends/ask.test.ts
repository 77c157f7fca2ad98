/** What an engine is asked in its own words, where clients have others. */
import { describe, expect, test } from "vitest"
import { jobOf } from "../../serve/host.suite.ts"
import { parseExactly } from "../../text/constraint/exact-json.ts"
import { FORMAT_FIELDS } from "../../text/constraint/text-format.ts"
import { askOf } from "./ask.ts"
import { unknownForm } from "./form.ts"
import { BACKEND_KINDS, type OwnBatchingKind } from "./kinds.ts"

function asked(kind: OwnBatchingKind, fields: object, begun: { tokens: number; text: string } | null = null) {
  const chat = "messages" in fields
  const job = {
    ...jobOf(),
    body: fields as Record<string, unknown>,
    api: chat ? "chat" : "completions",
  } as const
  const options = {
    kind: BACKEND_KINDS[kind],
    model: "m",
    priorityMs: null,
    sloArgs: null,
    contextTokens: null,
    begun,
  }
  return askOf(job, job.choices[0]!, options).body
}

const messages = [{ role: "user", content: "hi" }]

test.each(["vllm", "sglang", "openai"] as const)("%s goes on to the end of the context for -1", (kind) => {
  expect(asked(kind, { messages, max_tokens: -1, max_completion_tokens: -1 })).not.toHaveProperty(
    "max_tokens",
  )
  expect(asked(kind, { messages, max_completion_tokens: -1 })).not.toHaveProperty("max_completion_tokens")
  expect(asked(kind, { prompt: "hi", max_tokens: -1 }).max_tokens).toBeNull()
  expect(asked(kind, { prompt: "hi", max_tokens: 7 }).max_tokens).toBe(7)
})

test("llama-server has that word, also where an answer goes on", () => {
  expect(asked("llama-server", { messages, max_tokens: -1 }).max_tokens).toBe(-1)
  expect(asked("llama-server", { messages, max_tokens: -1 }, { tokens: 3, text: "abc" }).max_tokens).toBe(-1)
  expect(asked("llama-server", { messages, max_tokens: 10 }, { tokens: 3, text: "abc" }).max_tokens).toBe(7)
})

test("a seed is handed on to its last bit, and counts up by choices", () => {
  const body = parseExactly('{"messages": [], "seed": 9223372036854775800}') as object
  const job = { ...jobOf({}, 2), body: body as Record<string, unknown> }
  const options = {
    kind: BACKEND_KINDS.vllm,
    model: "m",
    priorityMs: null,
    sloArgs: null,
    contextTokens: null,
    begun: null,
  }
  const seeds = job.choices.map((choice) => JSON.stringify(askOf(job, choice, options).body.seed))
  expect(seeds).toEqual(["9223372036854775800", "9223372036854775801"])
})

describe("a form of the text", () => {
  const schema = { type: "object", properties: { b: { type: "string" }, a: { type: "integer" } } }
  const asJson = { response_format: { type: "json_schema", json_schema: { name: "answer", schema } } }
  const grammar = 'root ::= "a"'
  const escaped = "(a\\.b|c\\|d)"
  const literals = 'root ::= "a.b" | "c|d"'

  test.each<[OwnBatchingKind, object, object | null]>([
    ["vllm", { guided_json: schema }, asJson],
    ["vllm", { json_schema: JSON.stringify(schema) }, asJson],
    ["vllm", { response_format: { type: "json_object", schema } }, asJson],
    ["vllm", { guided_regex: "a+" }, { structured_outputs: { regex: "a+" } }],
    ["vllm", { regex: "a+" }, { structured_outputs: { regex: "a+" } }],
    ["vllm", { guided_choice: ["x", "y"] }, { structured_outputs: { choice: ["x", "y"] } }],
    ["vllm", { grammar }, { structured_outputs: { grammar } }],
    ["vllm", { structured_outputs: { json_object: true } }, { response_format: { type: "json_object" } }],
    ["sglang", { guided_grammar: grammar }, { ebnf: grammar }],
    ["sglang", { structured_outputs: { regex: "a+" } }, { regex: "a+" }],
    ["sglang", { guided_choice: ["a.b", "c|d"] }, { regex: escaped }],
    ["sglang", { structured_outputs: { json: schema } }, asJson],
    ["llama-server", { ebnf: grammar }, { grammar }],
    ["llama-server", { guided_choice: ["a.b", "c|d"] }, { grammar: literals }],
    ["llama-server", { guided_choice: ['"\n'] }, { grammar: 'root ::= "\\x22\\x0a"' }],
    ["llama-server", { guided_regex: "a+" }, null],
    ["llama-server", { guided_json: schema }, asJson],
    ["openai", { guided_json: schema }, asJson],
    ["openai", { guided_choice: ["x"] }, null],
    ["openai", { grammar }, null],
  ])("%s: %j is %j", (kind, fields, told) => {
    const body = { messages, ...fields }
    const [field] = Object.keys(fields)
    if (told === null) {
      const param = unknownForm(body, BACKEND_KINDS[kind], "chat")
      expect(param?.split(".")[0]).toBe(field)
      return
    }
    expect(unknownForm(body, BACKEND_KINDS[kind], "chat")).toBeNull()
    const { messages: _, model: __, ...rest } = asked(kind, body)
    expect(rest).toMatchObject(told)
    const others = FORMAT_FIELDS.filter((name) => !Object.hasOwn(told, name))
    for (const name of others) expect(rest).not.toHaveProperty(name)
  })

  test("that is said as OpenAI does is handed on as it is, but to completions of llama-server", () => {
    const response_format = {
      type: "json_schema",
      json_schema: { name: "plant", strict: true, description: "A plant.", schema },
    }
    for (const kind of ["vllm", "sglang", "llama-server", "openai"] as const)
      expect(asked(kind, { messages, response_format }).response_format).toEqual(response_format)
    const completion = asked("llama-server", { prompt: "hi", response_format })
    expect(completion.json_schema).toEqual(schema)
    expect(completion).not.toHaveProperty("response_format")
    const object = asked("llama-server", { prompt: "hi", response_format: { type: "json_object" } })
    expect(object.json_schema).toEqual({ type: "object" })
    expect(asked("vllm", { prompt: "hi", response_format }).response_format).toEqual(response_format)
  })

  test("is none where the text is free", () => {
    for (const free of [{}, { response_format: { type: "text" } }, { guided_json: null }])
      expect(unknownForm({ messages, ...free }, BACKEND_KINDS.openai, "chat")).toBeNull()
    expect(unknownForm(undefined, BACKEND_KINDS.openai, "chat")).toBeNull()
  })
})
