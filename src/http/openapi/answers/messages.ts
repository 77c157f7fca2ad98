/** Answers of /v1/messages: a message, and the events of its stream. */
import { z } from "zod"
import { anthropicError, count, metrics, text } from "./common.ts"

const block = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text"), text, citations: z.null() }),
  z.object({ type: z.literal("thinking"), thinking: text, signature: text }),
  z.object({
    type: z.literal("tool_use"),
    id: text,
    name: text,
    input: z.looseObject({}),
    caller: z.object({ type: z.literal("direct") }),
  }),
])

const stop = {
  stop_reason: z.enum([
    ...(["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"] as const),
  ]),
  stop_sequence: text.nullable(),
  stop_details: z.null(),
}
const usage = {
  input_tokens: count.describe("Those that were not cached."),
  cache_creation_input_tokens: count,
  cache_read_input_tokens: count,
  cache_creation: z.null(),
  server_tool_use: z.null(),
  inference_geo: z.null(),
  speed: z.null(),
  output_tokens: count,
}
const details = { output_tokens_details: z.object({ thinking_tokens: count }) }
const envelope = {
  id: text,
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: text,
  container: z.null(),
  diagnostics: z.null(),
}

export const anthropicMessage = z.object({
  ...envelope,
  content: z.array(block),
  ...stop,
  usage: z.object({ ...usage, ...details, service_tier: z.enum(["standard", "priority", "flex"]) }),
  metrics,
})

const delta = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text_delta"), text }),
  z.object({ type: z.literal("thinking_delta"), thinking: text }),
  z.object({ type: z.literal("signature_delta"), signature: text }),
  z.object({ type: z.literal("input_json_delta"), partial_json: text }),
])

const messageStart = z.object({
  type: z.literal("message_start"),
  message: z.object({
    ...envelope,
    content: z.array(block),
    stop_reason: z.null(),
    stop_sequence: z.null(),
    usage: z.object(usage),
  }),
})

export const messageEvent = z.discriminatedUnion("type", [
  messageStart,
  z.object({ type: z.literal("ping") }),
  z.object({ type: z.literal("content_block_start"), index: count, content_block: block }),
  z.object({ type: z.literal("content_block_delta"), index: count, delta }),
  z.object({ type: z.literal("content_block_stop"), index: count }),
  z.object({
    type: z.literal("message_delta"),
    delta: z.object(stop),
    usage: z.object({ ...usage, ...details }),
    metrics,
  }),
  z.object({ type: z.literal("message_stop") }),
  anthropicError,
])

export const tokenCount = z.object({ input_tokens: count })
