/** Sampling options of a request body. What it does not say is llama.cpp's default. */
import { randomInt } from "node:crypto"
import type { Sampling } from "../engine/port.ts"
import { UserError } from "../errors.ts"
import type { Generation } from "../replica/generation.ts"
import { isRawNumber } from "../text/constraint/exact-json.ts"
import type { CommonBody } from "./schemas.ts"

export interface SamplingExtras {
  /** Tokens wanted per position, the chosen one included; 0 = none. */
  logprobs: number
  /** The same of the prompt's tokens; left out: none. */
  promptLogprobs?: number
  grammar: string | null
  vocabSize: number
}

/** `exact`: the body as it was sent. */
export function samplingOf(
  body: CommonBody,
  exact: Readonly<Record<string, unknown>>,
  { vocabSize, ...extras }: SamplingExtras,
): Sampling {
  return {
    temperature: body.temperature ?? 0.8,
    topK: Math.max(0, body.top_k ?? 40),
    topP: body.top_p ?? 0.95,
    minP: body.min_p ?? 0.05,
    repeatPenalty: body.repeat_penalty ?? body.repetition_penalty ?? 1,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    repeatLastTokens: body.repeat_last_n ?? 64,
    seed: seedOf(exact.seed),
    ignoreEos: body.ignore_eos ?? false,
    minTokens: minTokens(body),
    logitBias: logitBias(body.logit_bias, vocabSize),
    ...extras,
  }
}

/** Of 64 bits, exact: samplers take 32. Small ones are what they are, each bit of the others counts. */
function seedOf(seed: unknown): number {
  if (seed === null || seed === undefined) return randomInt(2 ** 32)
  const bits = BigInt.asUintN(64, BigInt(isRawNumber(seed) ? JSON.stringify(seed) : (seed as number)))
  const low = Number(bits & 0xffffffffn)
  const high = Number(bits >> 32n)
  // Of negative ones the upper half is only their sign, as a rule.
  return high === 0 || high === 0xffffffff ? low : (low ^ Math.imul(high, 0x9e3779b1)) >>> 0
}

/** -1 is llama.cpp's word for what the context leaves. */
export function longest(maxTokens: number | null): Pick<Generation, "maxTokens" | "toContextEnd"> {
  return maxTokens === -1 ? { maxTokens: null, toContextEnd: true } : { maxTokens }
}

/** Where an answer ends, what it shall not have, and what of its prompt counts. */
export function promptAndStops(
  body: CommonBody,
): Pick<Generation, "stops" | "stopTokens" | "badWords" | "lastPromptTokens"> {
  const { stop, stop_token_ids: tokens, bad_words: badWords, truncate_prompt_tokens: last } = body
  return {
    stops: stopsOf(stop),
    ...(tokens && tokens.length > 0 && { stopTokens: tokens }),
    ...(badWords && badWords.length > 0 && { badWords }),
    // -1 is vLLM's word for what the context leaves.
    ...(last && { lastPromptTokens: last < 0 ? "fitting" : last }),
  }
}

function stopsOf(stop: CommonBody["stop"]): string[] {
  if (stop === null || stop === undefined) return []
  return (typeof stop === "string" ? [stop] : stop).filter((text) => text !== "")
}

/** Fields that are accepted for compatibility and change nothing: no policy here orders requests by a number. */
export function ignoredFields(body: CommonBody): string[] {
  return body.priority ? ["priority"] : []
}

function minTokens(body: CommonBody): number {
  const least = body.min_tokens ?? 0
  const most = body.max_completion_tokens ?? body.max_tokens
  if (most === null || most === undefined || most === -1 || least <= most) return least
  throw new UserError(`Invalid 'min_tokens': ${least} is more than the most tokens asked for, ${most}.`, {
    code: "invalid_value",
    param: "min_tokens",
  })
}

function logitBias(given: CommonBody["logit_bias"], vocabSize: number): [number, number][] {
  return Object.entries(given ?? {}).map(([key, bias]) => {
    const token = Number(key)
    if (token < vocabSize) return [token, bias]
    const param = `logit_bias.${key.slice(0, 20)}`
    throw new UserError(`Invalid '${param}': the model's vocabulary has ${vocabSize} tokens.`, {
      code: "invalid_value",
      param,
    })
  })
}
