/** Answers of /v1/chat/completions, /v1/completions and /v1/embeddings. */
import { z } from "zod"
import { count, done, error, metrics, serviceTier, text, unixSeconds, usage } from "./common.ts"

const finishReason = z.enum(["stop", "length", "tool_calls"])
const ofOneChoice = metrics.optional().describe("Where there is one choice; else each has its own.")
const ofEachChoice = metrics.optional().describe("Where there are several choices.")

const envelope = {
  id: text,
  created: unixSeconds,
  model: text,
}
const token = { token: text, bytes: z.array(z.int().min(0).max(255)), logprob: z.number() }
const chatLogprobs = z
  .object({
    content: z.array(z.object({ ...token, top_logprobs: z.array(z.object(token)) })),
    refusal: z.null(),
  })
  .nullable()
const toolCall = z.object({
  id: text,
  type: z.literal("function"),
  function: z.object({ name: text, arguments: text.describe("JSON: one object.") }),
})
const thoughts = text.optional().describe("What the model thought, apart from its answer.")

export const chatCompletion = z.object({
  ...envelope,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.object({
      index: count,
      message: z.object({
        role: z.literal("assistant"),
        content: text.nullable(),
        refusal: z.null(),
        reasoning_content: thoughts,
        tool_calls: z.array(toolCall).optional(),
      }),
      logprobs: chatLogprobs,
      finish_reason: finishReason,
      metrics: ofEachChoice,
    }),
  ),
  usage,
  service_tier: serviceTier,
  metrics: ofOneChoice,
})

const callDelta = z.object({
  index: count,
  id: text.optional().describe("In its first event."),
  type: z.literal("function").optional(),
  function: z.object({ name: text.optional(), arguments: text }),
})
const chunkUsage = usage
  .nullish()
  .describe("With stream_options: in the last chunk, or in all that have tokens; else null.")

export const chatChunk = z.object({
  ...envelope,
  object: z.literal("chat.completion.chunk"),
  choices: z
    .array(
      z.object({
        index: count,
        delta: z.object({
          role: z.literal("assistant").optional(),
          content: text.optional(),
          reasoning_content: thoughts,
          tool_calls: z.array(callDelta).optional(),
        }),
        logprobs: chatLogprobs,
        finish_reason: finishReason.nullable(),
        metrics: ofEachChoice,
      }),
    )
    .describe("Empty in the chunk that has the usage."),
  usage: chunkUsage,
  service_tier: serviceTier.optional(),
  metrics: ofOneChoice,
})

const completionLogprobs = z
  .object({
    tokens: z.array(text),
    token_logprobs: z.array(z.number().nullable()),
    top_logprobs: z.array(z.record(text, z.number()).nullable()),
    text_offset: z.array(count).describe("Where each token begins in the text, in characters (code points)."),
  })
  .nullable()
const completionChoice = { index: count, text, logprobs: completionLogprobs, metrics: ofEachChoice }

export const completion = z.object({
  ...envelope,
  object: z.literal("text_completion"),
  choices: z.array(z.object({ ...completionChoice, finish_reason: finishReason })),
  usage,
  service_tier: serviceTier,
  metrics: ofOneChoice,
})

export const completionChunk = z.object({
  ...envelope,
  object: z.literal("text_completion"),
  choices: z
    .array(z.object({ ...completionChoice, finish_reason: finishReason.nullable() }))
    .describe("Empty in the chunk that has the usage."),
  usage: chunkUsage,
  service_tier: serviceTier.optional(),
  metrics: ofOneChoice,
})

/** A chunk, or what ends a stream that had begun. */
export const chatEvent = z.union([chatChunk, error, done])
export const completionEvent = z.union([completionChunk, error, done])

export const embeddings = z.object({
  object: z.literal("list"),
  data: z.array(
    z.object({
      object: z.literal("embedding"),
      index: count,
      embedding: z
        .union([z.array(z.number()), text])
        .describe("Of length one. As a text: its floats of 32 bits, little-endian, in base64."),
      metrics: metrics.optional().describe("Where there are several inputs."),
    }),
  ),
  model: text,
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
  service_tier: serviceTier,
  metrics: metrics.optional().describe("Where there is one input; else each embedding has its own."),
})
