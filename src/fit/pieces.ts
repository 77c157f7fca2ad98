/** Linear pieces for steps: one, or two where small batches take as long as larger ones (a GPU reads its weights, however few
 * tokens there are), and a last one for batches larger than all that were seen. */
import { quantile } from "simple-statistics"
import type { CostPiece, StepShape } from "../core/cost.ts"
import { type CudaGraphs, graphExtras, graphMode } from "../core/graphs.ts"
import { type CapturedGraphs, type Coefficients, pieceOf, STEP_FEATURES } from "./guess.ts"
import { type Belief, leastSquares, predictedUs, type Row } from "./least-squares.ts"
import type { SeenStep } from "./seen-steps.ts"

const TOKENS = STEP_FEATURES.indexOf("tokens")
const STEP = STEP_FEATURES.indexOf("step")
const PIECEWISE = STEP_FEATURES.indexOf("piecewise")
const EAGER = STEP_FEATURES.indexOf("eager")

/** Two pieces need so many steps on either side of the bend, and must err less by this share. */
const LEAST_SIDE = 12
const CLEARLY_LESS = 0.85
/** Rounds in which steps change sides at most. */
const SETTLING = 3
/** Where a bend is looked for: quantiles of the tokens of a step. */
const BENDS = [0.25, 0.4, 0.55, 0.7, 0.85]
/** The largest batch seen is the one that so many were as large as: one may be a slip. */
const SEEN_OFTEN = 3

export interface FittedPieces {
  pieces: CostPiece[]
  launches: Pick<Coefficients, "piecewise" | "eager">
}

/** `mostUsPerToken`: what a token is believed to cost at most in batches larger than all that were seen. */
export function fitPieces(
  steps: readonly SeenStep[],
  beliefs: readonly Belief[],
  mostUsPerToken: number,
  graphs?: CapturedGraphs,
): FittedPieces {
  const rows = steps.map(({ shape, us }) => ({ features: featuresOf(shape, graphs), us }))
  const one = leastSquares(rows, beliefs)
  const launches = { piecewise: one[PIECEWISE]!, eager: one[EAGER]! }
  const fits: readonly (readonly number[])[] = bent(rows, beliefs, one) ?? [one]
  return { pieces: [...fits.map(pieceOf), ...beyond(rows, fits, mostUsPerToken)], launches }
}

/** What of a step its time depends on, in the order of STEP_FEATURES. */
export function featuresOf(shape: StepShape, captured?: CapturedGraphs): number[] {
  const { sequences, fastPairs, slowPairs, specSteps } = shape
  if (captured === undefined) return [1, shape.tokens, sequences, fastPairs, slowPairs, specSteps, 0, 0]
  const graphs: CudaGraphs = { ...captured, piecewiseUs: 0, eagerUs: 0 }
  const tokens = shape.tokens + graphExtras(graphs, shape).tokens
  const mode = graphMode(graphs, shape.tokens, shape.tokens === sequences * graphs.decodeTokens)
  const [outside, eager] = [mode === "full" ? 0 : 1, mode === "eager" ? 1 : 0]
  return [1, tokens, sequences, fastPairs, slowPairs, specSteps, outside, eager]
}

interface Bent {
  fits: number[][]
  error: number
}

/** Two pieces whose larger one is right for more; null where one is as good. Parted by tokens at first, then by which of the two
 * is the larger. */
function bent(rows: readonly Row[], beliefs: readonly Belief[], one: readonly number[]): number[][] | null {
  if (rows.length < 2 * LEAST_SIDE) return null
  const launched = launchedBy(one)
  const parted = (isSmall: (row: Row) => boolean): Bent | null => {
    const sides = [rows.filter(isSmall), rows.filter((row) => !isSmall(row))]
    if (sides.some(({ length }) => length < LEAST_SIDE)) return null
    const fits = sides.map((side) => leastSquares(side, beliefs, (row) => launched(side[row]!)))
    for (const fit of fits) fit[PIECEWISE] = fit[EAGER] = 0
    return { fits, error: meanError(rows, fits, launched) }
  }
  const better = (a: Bent | null, b: Bent | null) => (b !== null && (a === null || b.error < a.error) ? b : a)
  const tokens = rows.map(({ features }) => features[TOKENS]!)
  let best: Bent | null = null
  for (const bend of new Set(BENDS.map((share) => quantile(tokens, share))))
    best = better(
      best,
      parted(({ features }) => features[TOKENS]! <= bend),
    )
  for (let i = 0; best !== null && i < SETTLING; i++) {
    const [small, large] = best.fits as [number[], number[]]
    const next = better(
      best,
      parted(({ features }) => predictedUs(small, features) >= predictedUs(large, features)),
    )
    if (next === best) break
    best = next
  }
  const alone = meanError(rows, [one], () => 0)
  return best !== null && best.error < CLEARLY_LESS * alone ? best.fits : null
}

function launchedBy(fit: readonly number[]): (row: Row) => number {
  return ({ features }) => fit[PIECEWISE]! * features[PIECEWISE]! + fit[EAGER]! * features[EAGER]!
}

/** Mean of |ln(actual / predicted)|. */
function meanError(
  rows: readonly Row[],
  fits: readonly (readonly number[])[],
  launched: (row: Row) => number,
): number {
  let sum = 0
  for (const row of rows) {
    const us = Math.max(...fits.map((fit) => predictedUs(fit, row.features))) + launched(row)
    sum += Math.abs(Math.log(row.us / Math.max(1, us)))
  }
  return sum / rows.length
}

/** Batches may cost a token no more while weights are read, and all of it from some size on. So beyond the largest batch seen
 * a token costs what is believed, or what one cost in that batch on average where that is less: it cannot be more. */
function beyond(
  rows: readonly Row[],
  fits: readonly (readonly number[])[],
  mostUsPerToken: number,
): CostPiece[] {
  const sizes = rows.map(({ features }) => features[TOKENS]!).sort((a, b) => b - a)
  const largest = sizes[Math.min(SEEN_OFTEN, sizes.length) - 1] ?? 0
  if (largest === 0) return []
  const at = (fit: readonly number[]) => fit[STEP]! + fit[TOKENS]! * largest
  const last = fits.reduce((a, b) => (at(b) > at(a) ? b : a))
  const usPerToken = Math.min(mostUsPerToken, at(last) / largest)
  if (usPerToken <= last[TOKENS]!) return []
  const piece = [...last]
  piece[TOKENS] = usPerToken
  piece[STEP] = at(last) - usPerToken * largest
  return [pieceOf(piece)]
}
