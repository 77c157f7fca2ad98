/** Answers of /v1/responses: a response, its items, and the events of its stream. */
import { z } from "zod"
import { count, metrics, serviceTier, text, unixSeconds } from "./common.ts"

const status = z.enum(["in_progress", "completed", "incomplete"])
const token = { token: text, logprob: z.number(), bytes: z.array(z.int().min(0).max(255)) }
const logprobs = z.array(z.object({ ...token, top_logprobs: z.array(z.object(token)) }))

const outputText = z.object({
  type: z.literal("output_text"),
  annotations: z.array(z.looseObject({})),
  logprobs,
  text,
})
const summaryText = z.object({ type: z.literal("summary_text"), text })
const reasoningText = z.object({ type: z.literal("reasoning_text"), text })

const callItem = {
  id: text,
  type: z.literal("function_call"),
  call_id: text,
  name: text,
  arguments: text.describe("JSON: one object."),
}
const reasoningItem = {
  id: text,
  type: z.literal("reasoning"),
  summary: z.array(summaryText),
  content: z.array(reasoningText).optional(),
  encrypted_content: text.nullish().describe("Thoughts in base64; nothing is encrypted."),
}

export const outputItem = z.discriminatedUnion("type", [
  z.object({
    id: text,
    type: z.literal("message"),
    status,
    role: z.literal("assistant"),
    content: z.array(outputText),
  }),
  z.object({ ...callItem, status }),
  z.object({ ...reasoningItem, status }),
])

export const response = z.object({
  id: text,
  object: z.literal("response"),
  created_at: unixSeconds,
  completed_at: unixSeconds.optional(),
  status: z.enum(["in_progress", "completed", "incomplete", "failed"]),
  background: z.literal(false),
  error: z.object({ code: text, message: text }).nullable(),
  incomplete_details: z.object({ reason: z.literal("max_output_tokens") }).nullable(),
  instructions: text.nullable(),
  max_output_tokens: count.nullable(),
  max_tool_calls: count.nullable(),
  model: text,
  output: z.array(outputItem),
  parallel_tool_calls: z.boolean(),
  previous_response_id: text.nullable(),
  prompt_cache_key: text.nullable(),
  reasoning: z.object({ effort: text.nullable(), summary: text.nullable() }),
  safety_identifier: text.nullable(),
  service_tier: z.union([serviceTier, z.literal("auto")]),
  store: z.boolean(),
  temperature: z.number().nullable(),
  text: z.object({ format: z.looseObject({ type: text }), verbosity: z.literal("medium") }),
  tool_choice: z.union([text, z.looseObject({})]),
  tools: z.array(z.looseObject({})),
  top_logprobs: count,
  top_p: z.number().nullable(),
  truncation: text,
  usage: z
    .object({
      input_tokens: count,
      input_tokens_details: z.object({ cached_tokens: count }),
      output_tokens: count,
      output_tokens_details: z.object({ reasoning_tokens: count }),
      total_tokens: count,
    })
    .nullable(),
  user: text.nullable(),
  metadata: z.record(text, text),
  metrics: metrics.optional().describe("Once it has ended."),
})

const event = <T extends string, S extends z.ZodRawShape>(type: T, fields: S) =>
  z.object({ type: z.literal(type), sequence_number: count, ...fields })
const place = { item_id: text, output_index: count }
const content = { ...place, content_index: count }
const summary = { ...place, summary_index: count }
const part = z.union([outputText, reasoningText])

export const responseEvent = z.discriminatedUnion("type", [
  event("response.created", { response }),
  event("response.in_progress", { response }),
  event("response.completed", { response }),
  event("response.incomplete", { response }),
  event("response.failed", { response }),
  event("response.output_item.added", { output_index: count, item: outputItem }),
  event("response.output_item.done", { output_index: count, item: outputItem }),
  event("response.content_part.added", { ...content, part }),
  event("response.content_part.done", { ...content, part }),
  event("response.output_text.delta", { ...content, delta: text, logprobs }),
  event("response.output_text.done", { ...content, text, logprobs }),
  event("response.reasoning_text.delta", { ...content, delta: text }),
  event("response.reasoning_text.done", { ...content, text }),
  event("response.reasoning_summary_part.added", { ...summary, part: summaryText }),
  event("response.reasoning_summary_part.done", { ...summary, part: summaryText }),
  event("response.reasoning_summary_text.delta", { ...summary, delta: text }),
  event("response.reasoning_summary_text.done", { ...summary, text }),
  event("response.function_call_arguments.delta", { ...place, delta: text }),
  event("response.function_call_arguments.done", { ...place, name: text, arguments: text }),
])

export const responseDeleted = z.object({
  id: text,
  object: z.literal("response"),
  deleted: z.literal(true),
})

/** What a response was made from: as its client sent it, or as it was answered. */
const kept = { id: text, status: text.nullish() }
const messagePart = z.looseObject({ type: text })
const inputItem = z.union([
  z.object({ ...kept, type: z.literal("message"), role: text, content: z.array(messagePart) }),
  z.object({ ...kept, ...callItem }),
  z.object({
    ...kept,
    type: z.literal("function_call_output"),
    call_id: text,
    output: z.union([text, z.array(messagePart)]),
  }),
  z.object({
    ...kept,
    type: z.literal("reasoning"),
    summary: z.array(z.looseObject({ text })).nullish(),
    content: z.array(z.looseObject({ text })).nullish(),
    encrypted_content: text.nullish(),
  }),
])
export const inputItems = z.object({
  object: z.literal("list"),
  data: z.array(inputItem),
  first_id: text.nullable(),
  last_id: text.nullable(),
  has_more: z.boolean(),
})
