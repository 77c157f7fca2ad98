/** Sampling options of a request body. What it does not say is llama.cpp's default. */
import { randomInt } from "node:crypto"
import type { Sampling } from "../engine/engine.ts"
import { UserError } from "../errors.ts"
import { JSON_OBJECT_GRAMMAR } from "../serve/grammar.ts"
import type { CommonBody } from "./schemas.ts"

/** `logprobs`: tokens wanted per position, the chosen one included; 0 = none. */
export function samplingOf(body: CommonBody, logprobs: number, vocabSize: number): Sampling {
  return {
    temperature: body.temperature ?? 0.8,
    topK: Math.max(0, body.top_k ?? 40),
    topP: body.top_p ?? 0.95,
    minP: body.min_p ?? 0.05,
    repeatPenalty: body.repeat_penalty ?? body.repetition_penalty ?? 1,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    repeatLastTokens: body.repeat_last_n ?? 64,
    seed:
      body.seed === null || body.seed === undefined
        ? randomInt(2 ** 32)
        : Number(BigInt.asUintN(32, BigInt(body.seed))),
    ignoreEos: body.ignore_eos ?? false,
    logitBias: logitBias(body.logit_bias, vocabSize),
    grammar: body.response_format?.type === "json_object" ? JSON_OBJECT_GRAMMAR : null,
    logprobs,
  }
}

export function stopsOf(stop: CommonBody["stop"]): string[] {
  if (stop === null || stop === undefined) return []
  return (typeof stop === "string" ? [stop] : stop).filter((text) => text !== "")
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
