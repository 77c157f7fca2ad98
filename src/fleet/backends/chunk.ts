/** One chunk of a streamed answer, as engines really send them. What is not looked at may be anything. */
import { z } from "zod"

const text = z.string().nullish()
const count = z.number().nonnegative().nullish()

const candidate = z.looseObject({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.number()).nullish(),
})
const toolCall = z.looseObject({
  index: z.number().nullish(),
  function: z.looseObject({ name: text, arguments: text }).nullish(),
})

const choice = z.looseObject({
  delta: z
    .looseObject({
      content: text,
      reasoning_content: text,
      /** vLLM's newer name. */
      reasoning: text,
      tool_calls: z.array(toolCall).nullish(),
    })
    .nullish(),
  /** Of completions. */
  text,
  logprobs: z
    .looseObject({
      content: z.array(candidate.extend({ top_logprobs: z.array(candidate).nullish() })).nullish(),
      tokens: z.array(z.string()).nullish(),
      token_logprobs: z.array(z.number().nullable()).nullish(),
      top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullish(),
    })
    .nullish(),
  finish_reason: text,
  token_ids: z.array(z.int().nonnegative()).nullish(),
})

const usage = z.looseObject({
  prompt_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: z.looseObject({ cached_tokens: count }).nullish(),
  completion_tokens_details: z.looseObject({ reasoning_tokens: count }).nullish(),
})

export const chunkSchema = z.looseObject({
  choices: z.array(choice).nullish(),
  usage: usage.nullish(),
  timings: z.looseObject({ predicted_n: count, cache_n: count }).nullish(),
  error: z.union([z.string(), z.looseObject({ message: z.string().nullish() })]).nullish(),
})

export type Chunk = z.output<typeof chunkSchema>
export type ChunkChoice = NonNullable<Chunk["choices"]>[number]
