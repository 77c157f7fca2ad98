/** What is believed of an engine before its steps were seen: a mid-size model, rather slow. */
import type { CostModel, CostPiece } from "../core/cost.ts"
import type { CudaGraphs } from "../core/graphs.ts"
import type { Belief } from "./least-squares.ts"

/** Coefficients that are fitted, in the order of a row. `piecewise`, `eager`: see CudaGraphs; eager steps count in both. */
export const STEP_FEATURES = [
  "step",
  "tokens",
  "sequences",
  "fastPairs",
  "slowPairs",
  "specSteps",
  "piecewise",
  "eager",
] as const
export type StepFeature = (typeof STEP_FEATURES)[number]
export type Coefficients = Readonly<Record<StepFeature, number>>

/** Chunks of as many tokens are limited by arithmetic, shorter pieces and decodes by reading KV: a pair costs these much more. */
export const LAYOUT = { fastPassTokens: 16, unifiedKv: true } as const

/** Graphs of an engine, without what it has to be found out. */
export type CapturedGraphs = Omit<CudaGraphs, "piecewiseUs" | "eagerUs">

/** One GPU, µs per unit. */
export const GPU_GUESS: Coefficients = {
  ...{ step: 30_000, tokens: 200, sequences: 10, fastPairs: 0.01, slowPairs: 0.1, specSteps: 1000 },
  ...{ piecewise: 2000, eager: 3000 },
}
/** A few cores. */
export const CPU_GUESS: Coefficients = {
  ...{ step: 50_000, tokens: 3000, sequences: 150, fastPairs: 0.5, slowPairs: 2, specSteps: 5000 },
  ...{ piecewise: 0, eager: 0 },
}

/** How far off the guess may be, in multiples of it: the small terms are known least. */
const GUESS_SPREADS: Coefficients = {
  ...{ step: 1, tokens: 1, sequences: 1, fastPairs: 3, slowPairs: 3, specSteps: 1 },
  ...{ piecewise: 1, eager: 1 },
}
/** Scatter of steps that is believed at first. */
export const FIRST_SIGMA = 0.3

export function beliefsOf(guess: Coefficients): Belief[] {
  return STEP_FEATURES.map((feature) => ({
    mean: guess[feature],
    spread: Math.max(1e-9, guess[feature] * GUESS_SPREADS[feature]),
  }))
}

/** An engine that is `factor` times as slow; what launches take is not the GPU's but the processor's beside it. */
export function scaledGuess(guess: Coefficients, factor: number): Coefficients {
  const { piecewise, eager } = guess
  const scaled = STEP_FEATURES.map((feature) => [feature, guess[feature] * factor])
  return { ...(Object.fromEntries(scaled) as Coefficients), piecewise, eager }
}

/** The model that the guess makes. */
export function guessedModel(guess: Coefficients, graphs?: CapturedGraphs): CostModel {
  return modelOf([pieceOf(STEP_FEATURES.map((feature) => guess[feature]))], guess, FIRST_SIGMA, graphs)
}

/** A piece of fitted coefficients; what costs nothing is left out. */
export function pieceOf(coefficients: readonly number[]): CostPiece {
  const piece: CostPiece = {}
  for (const [at, feature] of STEP_FEATURES.entries())
    if (feature !== "piecewise" && feature !== "eager" && coefficients[at]! > 0)
      piece[feature] = coefficients[at]!
  return { ...piece, step: Math.max(1, piece.step ?? 0) }
}

export function modelOf(
  pieces: CostPiece[],
  { piecewise, eager }: Pick<Coefficients, "piecewise" | "eager">,
  residualSigma: number,
  graphs?: CapturedGraphs,
): CostModel {
  const model = { pieces, residualSigma, ...LAYOUT }
  if (graphs === undefined) return model
  return { ...model, graphs: { ...graphs, piecewiseUs: piecewise, eagerUs: piecewise + eager } }
}
