/** How long a prompt's prefill takes with the engine to itself: zero-load TTFT, and the test for "doomed". */
import { attentionPairs, type CostModel, type StepShape, stepUs } from "../cost.ts"

/** µs to compute `tokens` tokens from `position` in batches of at most `maxBatchTokens`, nothing else running. */
export function prefillUs(cost: CostModel, position: number, tokens: number, maxBatchTokens: number): number {
  let total = 0
  for (let done = 0; done < tokens; ) {
    const chunk = Math.min(maxBatchTokens, tokens - done)
    const pairs = attentionPairs(position + done, chunk)
    const fast = chunk >= cost.fastPassTokens
    const last = done + chunk >= tokens
    const shape: StepShape = {
      tokens: chunk,
      sequences: 1,
      passes: 1,
      fastPairs: fast ? pairs : 0,
      slowPairs: fast ? 0 : pairs,
      outputs: last ? 1 : 0,
      specSteps: 0,
    }
    total += stepUs(cost, shape)
    done += chunk
  }
  return total
}

/** Most prompt tokens that a batch of `us` µs computes, at least one. */
export function tokensWithin(cost: CostModel, us: number, maxBatchTokens: number): number {
  let low = 1
  let high = maxBatchTokens
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (prefillUs(cost, 0, middle, middle) <= us) low = middle
    else high = middle - 1
  }
  return low
}
