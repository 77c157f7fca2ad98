/** Linear pieces for steps: one, or two where small batches take as long as larger ones (a GPU reads its weights, however few
 * tokens there are), and a last one for batches larger than all that were seen. */
import { quantile } from "simple-statistics"
import type { CostPiece, StepShape } from "../core/cost.ts"
import { type CudaGraphs, graphExtras, graphMode } from "../core/graphs.ts"
import { type CapturedGraphs, type Coefficients, pieceOf, STEP_FEATURES } from "./guess.ts"
import { type Belief, leastSquares, predictedUs, type Row, sigmaOf } from "./least-squares.ts"
import type { SeenStep } from "./seen-steps.ts"

const TOKENS = STEP_FEATURES.indexOf("tokens")
const STEP = STEP_FEATURES.indexOf("step")
const PIECEWISE = STEP_FEATURES.indexOf("piecewise")
const EAGER = STEP_FEATURES.indexOf("eager")

/** Two pieces need so many steps on either side of the bend, and must err less by this share. */
const LEAST_SIDE = 12
/** Two pieces that meet, so many on either side. */
const HINGE = 4
const CLEARLY_LESS = 0.85
/** Rounds in which steps change sides at most. */
const SETTLING = 3
/** Where a bend is looked for: quantiles of the tokens of a step. */
const BENDS = [0.25, 0.4, 0.55, 0.7, 0.85]
/** The largest batch seen is the one that so many were as large as: one may be a slip. */
const SEEN_OFTEN = 3

/** Batches that are so many times as large bound what a token costs; so much of their time may be chance. */
const FAR_LARGER = 1.5
const HEADROOM = 1.1

/** Scatter of steps at first, a share of their time, and how many steps it counts as. */
const FIRST_SCATTER = 0.3
const FIRST_SCATTER_STEPS = 8

type Launches = Pick<Coefficients, "piecewise" | "eager">

/** Surely nothing. */
const NONE: Belief = { mean: 0, spread: 1e-9 }

export interface FittedPieces {
  pieces: CostPiece[]
  launches: Launches
}

/** `mostUsPerToken`: what a token is believed to cost at most in batches larger than all that were seen. */
export function fitPieces(
  steps: readonly SeenStep[],
  beliefs: readonly Belief[],
  mostUsPerToken: number,
  graphs?: CapturedGraphs,
): FittedPieces {
  const rows = steps.map(({ shape, us }) => ({ features: featuresOf(shape, graphs), us }))
  const one = fitted(rows, beliefs)
  const launches = launchesOf(one)
  const { fits, ...found } = bent(rows, beliefs, one) ?? { fits: [one], launches }
  const last = beyond(rows, fits, beliefs, found.launches, mostUsPerToken)
  return { pieces: [...fits.map(pieceOf), ...last], launches: found.launches }
}

/** `launches`: what is accounted for already is not looked for again. */
function fitted(rows: readonly Row[], beliefs: readonly Belief[], launches?: Launches): number[] {
  if (launches === undefined) return leastSquares(rows, beliefs)
  const known = beliefs.map((belief, at) => (at === PIECEWISE || at === EAGER ? NONE : belief))
  return leastSquares(rows, known, (row) => launchUs(rows[row]!, launches))
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
  fits: readonly (readonly number[])[]
  launches: Launches
  error: number
}

/** Two pieces whose larger one is right for more; null where one is as good. Two that meet are told by few steps and say what
 * launches take: one alone would put the bend on those that only large batches need. Then parted by tokens, and by which of
 * the two is the larger. */
function bent(rows: readonly Row[], beliefs: readonly Belief[], one: readonly number[]): Bent | null {
  if (rows.length < 2 * LEAST_SIDE) return null
  const judged = (fits: Bent["fits"], launches: Launches): Bent => ({
    ...{ fits, launches },
    error: meanError(rows, fits, launches),
  })
  const better = (a: Bent | null, b: Bent | null) => (b !== null && (a === null || b.error < a.error) ? b : a)
  const tokens = rows.map(({ features }) => features[TOKENS]!)
  const bends = [...new Set(BENDS.map((share) => quantile(tokens, share)))]
  let best: Bent | null = null
  for (const bend of bends) {
    const above = tokens.filter((count) => count > bend).length
    if (above < HINGE || tokens.length - above < HINGE) continue
    const { fits, launches } = hinged(rows, beliefs, bend)
    best = better(best, judged(fits, launches))
  }
  const alone = judged([one], launchesOf(one))
  const { launches } = better(alone, best)!
  const parted = (isSmall: (row: Row) => boolean): Bent | null => {
    const sides = [rows.filter(isSmall), rows.filter((row) => !isSmall(row))]
    if (sides.some(({ length }) => length < LEAST_SIDE)) return null
    return judged(
      sides.map((side) => fitted(side, beliefs, launches)),
      launches,
    )
  }
  for (const bend of bends)
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
  return best !== null && best.error < CLEARLY_LESS * alone.error ? best : null
}

/** Two pieces that meet at `bend` tokens and differ in nothing but what a token costs: told by a few steps on one side. Batches up
 * to there take as long as one of `bend` tokens at the higher price. */
function hinged(
  rows: readonly Row[],
  beliefs: readonly Belief[],
  bend: number,
  launches?: Launches,
): Pick<Bent, "fits" | "launches"> {
  const above = rows.map((row) => ({
    features: [...row.features, Math.max(bend, row.features[TOKENS]!)],
    us: row.us,
  }))
  const believed = [...beliefs, beliefs[TOKENS]!]
  believed[TOKENS] = { mean: 0, spread: beliefs[TOKENS]!.spread }
  const found = fitted(above, believed, launches)
  const usPerToken = found.pop()!
  const [small, large] = [[...found], [...found]]
  small[STEP]! += usPerToken * bend
  large[TOKENS]! += usPerToken
  const fits = [small, large].map((fit) => fit.map((us, at) => (at === PIECEWISE || at === EAGER ? 0 : us)))
  return { fits, launches: launches ?? launchesOf(found) }
}

function launchesOf(fit: readonly number[]): Launches {
  return { piecewise: fit[PIECEWISE]!, eager: fit[EAGER]! }
}
function launchUs({ features }: Row, { piecewise, eager }: Launches): number {
  return piecewise * features[PIECEWISE]! + eager * features[EAGER]!
}

/** Mean of |ln(actual / predicted)|. */
function meanError(rows: readonly Row[], fits: readonly (readonly number[])[], launches: Launches): number {
  let sum = 0
  for (const row of rows) {
    const us = pieceUs(fits, row) + launchUs(row, launches)
    sum += Math.abs(Math.log(row.us / Math.max(1, us)))
  }
  return sum / rows.length
}

function pieceUs(fits: readonly (readonly number[])[], { features }: Row): number {
  let most = 0
  for (const fit of fits) {
    const launch = fit[PIECEWISE]! * features[PIECEWISE]! + fit[EAGER]! * features[EAGER]!
    most = Math.max(most, predictedUs(fit, features) - launch)
  }
  return most
}

/** Batches may cost a token no more while weights are read, and all of it from some size on. So beyond the largest batch seen
 * a token costs what is believed, or what it did in the larger half of what was seen where that may be more, but no more than
 * one cost in the largest batch on average: it cannot. */
function beyond(
  rows: readonly Row[],
  fits: readonly (readonly number[])[],
  beliefs: readonly Belief[],
  launches: Launches,
  mostUsPerToken: number,
): CostPiece[] {
  const sizes = rows.map(({ features }) => features[TOKENS]!).sort((a, b) => b - a)
  const largest = sizes[Math.min(SEEN_OFTEN, sizes.length) - 1] ?? 0
  if (largest === 0) return []
  const at = (fit: readonly number[]) => fit[STEP]! + fit[TOKENS]! * largest
  const last = fits.reduce((a, b) => (at(b) > at(a) ? b : a))
  const average = at(last) / largest
  const [, larger] = hinged(rows, beliefs, largest / 2, launches).fits
  const upper = rows.filter(({ features }) => features[TOKENS]! > largest / 2)
  // Over half of the largest batch its slope is off by twice what its time is off by. Eight decodes in the time of one say little.
  const errorUs = 2 * average * standardError(upper, larger!, launches)
  const heard = 1 / (1 + (errorUs / beliefs[TOKENS]!.spread) ** 2)
  const seenUs = heard * (larger![TOKENS]! + errorUs) + (1 - heard) * mostUsPerToken
  const usPerToken = Math.min(Math.max(mostUsPerToken, seenUs), average, averageFarBeyond(rows, largest))
  if (usPerToken <= last[TOKENS]!) return []
  const piece = [...last]
  piece[TOKENS] = usPerToken
  piece[STEP] = at(last) - usPerToken * largest
  return [pieceOf(piece)]
}

/** What a token took on average in the one or two batches that were far larger than `largest`, the less of both: a token of larger
 * ones takes no more, and a stall would only raise it. Infinity where there was none. */
function averageFarBeyond(rows: readonly Row[], largest: number): number {
  const far = rows.filter(({ features }) => features[TOKENS]! > FAR_LARGER * largest)
  return HEADROOM * Math.min(...far.map(({ features, us }) => us / features[TOKENS]!))
}

/** How far off a fit of these rows may be, a share of their time. */
function standardError(rows: readonly Row[], fit: readonly number[], launches: Launches): number {
  const deviations = rows.map((row) => 1 - (pieceUs([fit], row) + launchUs(row, launches)) / row.us)
  return scatterOf(rows.length, sigmaOf(deviations)) / Math.sqrt(Math.max(1, rows.length))
}

/** Scatter of so many steps, of which `seen` was seen: as at first while they are few. */
function scatterOf(steps: number, seen: number): number {
  const weight = FIRST_SCATTER_STEPS / (FIRST_SCATTER_STEPS + steps)
  return weight * FIRST_SCATTER + (1 - weight) * seen
}
