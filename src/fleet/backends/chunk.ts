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
  /** vLLM's: the stop string, or the token, that ended it. */
  stop_reason: z.unknown().optional(),
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

type Json = Record<string, unknown>

/** Nearly all chunks are plain text of one choice: these are told by a look at their fields, as the schema would, at a
 * tenth of its cost, which is paid for every token. null: ask the schema, it is another chunk or none. */
export function plainChunk(json: unknown): Chunk | null {
  if (!isObject(json) || !isNone(json.error) || !isPlainChoices(json.choices)) return null
  if (!isNone(json.usage) && !(isObject(json.usage) && isPlainUsage(json.usage))) return null
  const { timings } = json
  if (!isNone(timings) && !(isObject(timings) && areCounts(timings.predicted_n, timings.cache_n))) return null
  return json as Chunk
}

function isPlainChoices(choices: unknown): boolean {
  if (isNone(choices)) return true
  if (!Array.isArray(choices) || choices.length > 1) return false
  return choices.length === 0 || (isObject(choices[0]) && isPlainChoice(choices[0]))
}

function isPlainChoice({ delta, text, logprobs, finish_reason, token_ids }: Json): boolean {
  if (!isText(text) || !isText(finish_reason) || !isNone(logprobs)) return false
  if (!isNone(token_ids) && !(Array.isArray(token_ids) && token_ids.every(isTokenId))) return false
  if (isNone(delta)) return true
  if (!isObject(delta) || !isNone(delta.tool_calls)) return false
  return isText(delta.content) && isText(delta.reasoning_content) && isText(delta.reasoning)
}

function isPlainUsage(usage: Json): boolean {
  const { prompt_tokens_details: prompt, completion_tokens_details: completion } = usage
  if (!areCounts(usage.prompt_tokens, usage.completion_tokens)) return false
  if (!isNone(prompt) && !(isObject(prompt) && areCounts(prompt.cached_tokens))) return false
  return isNone(completion) || (isObject(completion) && areCounts(completion.reasoning_tokens))
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}
function isNone(value: unknown): value is null | undefined {
  return value === null || value === undefined
}
function isText(value: unknown): boolean {
  return typeof value === "string" || isNone(value)
}
function isTokenId(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
function areCounts(...values: unknown[]): boolean {
  return values.every((value) => isNone(value) || (Number.isFinite(value) && (value as number) >= 0))
}
