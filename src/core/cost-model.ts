/** A fitted engine as plain data; `cost.ts` says what it predicts. */
import type { CudaGraphs } from "./graphs.ts"

/** Order of the coefficients of a piece: microseconds per unit; `step` is the constant. */
export const COST_FEATURES = [
  "step",
  "tokens",
  "sequences",
  "passes",
  "fastPairs",
  "slowPairs",
  "outputs",
  "specSteps",
] as const
export type CostFeature = (typeof COST_FEATURES)[number]
/** Coefficients (µs per unit) of one linear piece; missing ones are 0. */
export type CostPiece = Partial<Record<CostFeature, number>>

/** A fitted engine: step time = max over pieces of Σ coefficient × feature, in µs. */
export interface CostModel {
  pieces: CostPiece[]
  /** Standard deviation of (actual / predicted), from the fit: the planner's margin is about 2σ. */
  residualSigma: number
  /** Passes with at least this many tokens per sequence use the engine's fast attention. */
  fastPassTokens: number
  /** See EngineLimits.unifiedKv: decides how a batch splits into passes. */
  unifiedKv: boolean
  /** The engine pads batches to the sizes of captured CUDA graphs. Left out: it does not. */
  graphs?: CudaGraphs
}
