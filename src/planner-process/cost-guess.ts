/** Step times of an engine of which nothing has been seen: rather slow, so that little is promised. What steps really take
 * corrects it within some dozens of them (core/learn/calibration.ts). */
import type { CostModel } from "../core/cost.ts"

/** A mid-size model on one GPU, µs. */
const STEP_US = 30_000
const TOKEN_US = 200
const SIGMA = 0.3

export function guessedCost(): CostModel {
  return {
    pieces: [{ step: STEP_US, tokens: TOKEN_US }],
    ...{ residualSigma: SIGMA, fastPassTokens: 1, unifiedKv: true },
  }
}
