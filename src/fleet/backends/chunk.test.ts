/** What is taken for a plain chunk at a glance is what the schema takes, and nothing else. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { chunkSchema, plainChunk } from "./chunk.ts"

const usage = { prompt_tokens: 12, completion_tokens: 3, total_tokens: 15 }
const base = { id: "c", object: "chat.completion.chunk", created: 1, model: "m" }

const PLAIN: [string, object][] = [
  [
    "vLLM's",
    {
      ...base,
      choices: [{ index: 0, delta: { content: " hi" }, logprobs: null, finish_reason: null, token_ids: [5] }],
      usage: { ...usage, prompt_tokens_details: { cached_tokens: 0 } },
    },
  ],
  ["the first", { ...base, choices: [{ index: 0, delta: { role: "assistant", content: "" } }] }],
  ["one that thinks", { ...base, choices: [{ index: 0, delta: { reasoning_content: "hm" } }], usage: null }],
  ["one of completions", { ...base, choices: [{ index: 0, text: "a", finish_reason: "stop" }] }],
  ["the last", { ...base, choices: [], usage }],
  ["llama-server's", { ...base, choices: [{ delta: {} }], timings: { predicted_n: 4, cache_n: 1 } }],
]
test.each(PLAIN)("%s is plain", (_, chunk) => {
  expect(plainChunk(chunk)).toEqual(chunkSchema.parse(chunk))
})

/** Any value where some field stands, or the one that belongs there. */
const any = fc.oneof(
  ...[fc.string(), fc.double(), fc.integer(), fc.constantFrom(null, true, "5", -1, 1.5, Infinity)],
  ...[fc.array(fc.integer({ min: -2 })), fc.constant({}), fc.constant([]), fc.constant([[]])],
)
const or = (usual: fc.Arbitrary<unknown>) => fc.oneof({ weight: 4, arbitrary: usual }, any)
const maybe = (fields: Record<string, fc.Arbitrary<unknown>>) => or(fc.record(fields, { requiredKeys: [] }))
const text = or(fc.string())
const count = or(fc.nat())
const chunks = maybe({
  choices: or(
    fc.array(
      maybe({
        delta: maybe({
          content: text,
          reasoning: text,
          reasoning_content: text,
          tool_calls: or(fc.constant([])),
        }),
        ...{ text, finish_reason: text, logprobs: or(fc.constant(null)) },
        token_ids: or(fc.array(fc.nat())),
      }),
      { maxLength: 2 },
    ),
  ),
  usage: maybe({
    ...{ prompt_tokens: count, completion_tokens: count },
    prompt_tokens_details: maybe({ cached_tokens: count }),
    completion_tokens_details: maybe({ reasoning_tokens: count }),
  }),
  timings: maybe({ predicted_n: count, cache_n: count }),
  error: or(fc.constant(null)),
})

test("what is plain is what the schema makes of it", () => {
  let plain = 0
  fc.assert(
    fc.property(chunks, (chunk) => {
      const found = plainChunk(chunk)
      if (found === null) return
      plain++
      expect(chunkSchema.parse(chunk)).toEqual(found)
    }),
    { numRuns: 3000 },
  )
  expect(plain).toBeGreaterThan(100)
})
