/** Engines that are described by step times alone: KV is plenty, and contexts are long. */
import type { CostModel } from "../../../src/core/cost.ts"
import type { Hardware } from "../../../src/sim/presets.ts"

/** Steps that take as long whatever they compute. */
export function steadySteps(stepMs: number): CostModel {
  return {
    pieces: [{ step: stepMs * 1000, tokens: 0, sequences: 0, fastPairs: 0 }],
    ...{ residualSigma: 0, fastPassTokens: 1, unifiedKv: true },
  }
}

/** `maxBatchTokens`: of a step. */
export function hardwareOf(
  cost: CostModel,
  limits: Pick<Hardware, "maxBatchTokens" | "maxSequences">,
  source: string,
): Hardware {
  return {
    ...{ cost, gpus: 0, kvTokens: 1e7, blockTokens: 16, ...limits },
    ...{ contextTokens: 8192, minChunkTokens: 1, unifiedKv: true, source },
  }
}
