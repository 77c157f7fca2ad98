/** What an engine is asked in its own words, where clients have others. */
import { expect, test } from "vitest"
import { jobOf } from "../../serve/host.suite.ts"
import { parseExactly } from "../../text/constraint/exact-json.ts"
import { askOf } from "./ask.ts"
import { BACKEND_KINDS, type OwnBatchingKind } from "./kinds.ts"

function asked(kind: OwnBatchingKind, fields: object, begun: { tokens: number; text: string } | null = null) {
  const chat = "messages" in fields
  const job = {
    ...jobOf(),
    body: fields as Record<string, unknown>,
    api: chat ? "chat" : "completions",
  } as const
  const options = { kind: BACKEND_KINDS[kind], model: "m", priorityMs: null, sloArgs: null, begun }
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
  const options = { kind: BACKEND_KINDS.vllm, model: "m", priorityMs: null, sloArgs: null, begun: null }
  const seeds = job.choices.map((choice) => JSON.stringify(askOf(job, choice, options).body.seed))
  expect(seeds).toEqual(["9223372036854775800", "9223372036854775801"])
})
