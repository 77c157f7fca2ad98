/** How long a prompt's prefill takes with the engine to itself: zero-load TTFT, and the test for "doomed". */
import { attentionPairs, type CostModel, type StepShape, stepUs } from "../cost.ts"
import type { LiveRequest } from "../request.ts"

/** µs to compute `tokens` tokens from `position` in batches of at most `maxBatchTokens`, nothing else running. `allRows`: see
 * RequestSpec. */
export function prefillUs(
  cost: CostModel,
  position: number,
  tokens: number,
  maxBatchTokens: number,
  allRows = false,
): number {
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
      outputs: allRows ? chunk : last ? 1 : 0,
      specSteps: 0,
    }
    total += stepUs(cost, shape)
    done += chunk
  }
  return total
}

/** The same of what a request owes from `start` on: its KV is in place before. */
export function owedUs(request: LiveRequest, start: number, cost: CostModel, maxBatchTokens: number): number {
  const { known, spec, output } = request
  return prefillUs(cost, start, known - start, maxBatchTokens, spec.allRows === true && output === 0)
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

/** What a batch of `us` µs full of prompt takes more in two halves, µs: what batches cost whatever is in them. Less than a step of one
 * token where an engine reads its weights meanwhile. */
export function splitUs(cost: CostModel, us: number, maxBatchTokens: number): number {
  const half = Math.ceil(tokensWithin(cost, us, maxBatchTokens) / 2)
  return Math.max(0, prefillUs(cost, 0, 2 * half, half) - prefillUs(cost, 0, 2 * half, 2 * half))
}
