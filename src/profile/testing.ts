/** What the profile's tests measure. */
import type { CostModel } from "../core/cost.ts"
import type { VirtualTime } from "../engine/fake/engine.ts"

export const COST: CostModel = {
  pieces: [
    { step: 2000, tokens: 300, sequences: 500, passes: 1500, fastPairs: 0.3, slowPairs: 2, outputs: 250 },
  ],
  residualSigma: 0,
  fastPassTokens: 8,
  unifiedKv: false,
}

/** Time passes at once. */
export function instantTime(): VirtualTime {
  let now = 0
  return {
    nowUs: () => now,
    wakeAt(atUs, fn) {
      queueMicrotask(() => {
        now = Math.max(now, atUs)
        fn()
      })
      return () => {}
    },
  }
}
