/** A request's sampling as a chain of llama.cpp's own samplers; plain greedy needs none. */
import type { Sampling } from "../port.ts"
import type { OpenRequest } from "../request-table.ts"
import { type Native, type Pointer, soleCandidate } from "./native.ts"

/** The chain for a request, in the state that its known tokens leave it in, or null when its choice is the largest
 * logit. Free it with `freeSampler`. */
export function samplerChain(
  native: Native,
  vocabSize: number,
  { sampling, tokens, known, promptTokens }: OpenRequest,
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
    for (const token of tokens.subarray(0, known).subarray(-repeatLastTokens))
      native.acceptToken(penalties, token)
    parts.push(penalties)
  }
  if (sampling.temperature <= 0) parts.push(native.greedy())
  else {
    if (sampling.topK > 0) parts.push(native.topK(sampling.topK))
    if (sampling.topP < 1) parts.push(native.topP(sampling.topP, 1))
    if (sampling.minP > 0) parts.push(native.minP(sampling.minP, 1))
    const dist = native.dist(sampling.seed)
    // One number is drawn for each token, also where there is but one to choose.
    drawn(native, dist, known - promptTokens)
    parts.push(native.temperature(sampling.temperature), dist)
  }
  const chain = native.newChain({ no_perf: true })
  for (const part of parts) native.addToChain(chain, part)
  return chain
}

/** Moves a `dist` sampler on by so many tokens: it chooses from a single candidate. */
function drawn(native: Native, dist: Pointer, tokens: number): void {
  if (tokens === 0) return
  const candidates = soleCandidate()
  for (let i = 0; i < tokens; i++) native.applySampler(dist, candidates.pointer)
  candidates.free()
}

function hasPenalties(sampling: Sampling): boolean {
  const { repeatLastTokens, repeatPenalty, frequencyPenalty, presencePenalty } = sampling
  return repeatLastTokens > 0 && (repeatPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0)
}
