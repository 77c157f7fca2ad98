/** A request's sampling as a chain of llama.cpp's own samplers; plain greedy needs none. */
import type { Sampling } from "../port.ts"
import type { Native, Pointer } from "./native.ts"

/** The chain for a request, or null when its choice is the largest logit. Free it with `freeSampler`. */
export function samplerChain(
  native: Native,
  vocabSize: number,
  sampling: Sampling,
  prompt: Int32Array,
): Pointer | null {
  const penalized = hasPenalties(sampling)
  if (sampling.temperature <= 0 && !penalized) return null
  const parts: Pointer[] = []
  if (penalized) {
    const { repeatLastTokens, repeatPenalty, frequencyPenalty, presencePenalty } = sampling
    const penalties = native.penalties(
      vocabSize,
      repeatLastTokens,
      repeatPenalty,
      frequencyPenalty,
      presencePenalty,
    )
    for (const token of prompt.subarray(-repeatLastTokens)) native.acceptToken(penalties, token)
    parts.push(penalties)
  }
  if (sampling.temperature <= 0) parts.push(native.greedy())
  else {
    if (sampling.topK > 0) parts.push(native.topK(sampling.topK))
    if (sampling.topP < 1) parts.push(native.topP(sampling.topP, 1))
    if (sampling.minP > 0) parts.push(native.minP(sampling.minP, 1))
    parts.push(native.temperature(sampling.temperature), native.dist(sampling.seed))
  }
  const chain = native.newChain({ no_perf: true })
  for (const part of parts) native.addToChain(chain, part)
  return chain
}

function hasPenalties(sampling: Sampling): boolean {
  const { repeatLastTokens, repeatPenalty, frequencyPenalty, presencePenalty } = sampling
  return repeatLastTokens > 0 && (repeatPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0)
}
