/** The one fitter of cost models: non-negative least squares on relative errors (planners multiply predictions, so a short step
 * matters as much as a long one), held by a belief. What the rows do not tell apart is split as the belief says: by how
 * sure it is of each coefficient, so that the one that mattered most gives way, and none takes all. */
import { fcnnlsVector } from "ml-fcnnls"
import { quantile } from "simple-statistics"

/** What is believed of a coefficient before anything was seen, µs per unit: about `mean`, give or take `spread`. */
export interface Belief {
  mean: number
  spread: number
}

/** What was counted, and how long it took. */
export interface Row {
  features: readonly number[]
  us: number
}

/** How much of a row's time a belief may be off for it to count as much as the row: rows scatter. */
const BELIEF_WEIGHT = 0.3
/** Median absolute deviations (5 are 3.4σ of a normal). */
const OUTLIER_SPREADS = 5

/** A belief that rows contradict by more than twice its spread gives way, so often. */
const CONTRADICTED = 2
const MOST_TRIES = 5

/** Coefficients, in the order of the features, none negative. `fixedUs`: of each row's time, what is accounted for already. */
export function leastSquares(
  rows: readonly Row[],
  beliefs: readonly Belief[],
  fixedUs: (row: number) => number = () => 0,
): number[] {
  let held = beliefs
  for (let tries = 1; ; tries++) {
    const found = solve(rows, held, fixedUs)
    const off = beliefs.map(({ mean }, i) => Math.abs(found[i]! - mean))
    if (tries === MOST_TRIES || off.every((us, i) => us <= CONTRADICTED * held[i]!.spread)) return found
    held = beliefs.map(({ mean, spread }, i) => ({
      mean,
      spread: Math.max(spread, held[i]!.spread, off[i]!),
    }))
  }
}

function solve(rows: readonly Row[], beliefs: readonly Belief[], fixedUs: (row: number) => number): number[] {
  const size = beliefs.length
  // Sums of products instead of all rows: a planner has no time for more between two steps.
  const gram = Array.from({ length: size }, () => new Float64Array(size))
  const goals = new Float64Array(size)
  for (const [at, { features, us }] of rows.entries()) {
    const goal = Math.max(0, 1 - fixedUs(at) / us) / us
    const weight = 1 / (us * us)
    for (let i = 0; i < size; i++) {
      const count = features[i]!
      if (count === 0) continue
      goals[i]! += count * goal
      for (let j = 0; j <= i; j++) gram[i]![j]! += count * features[j]! * weight
    }
  }
  for (const [at, { mean, spread }] of beliefs.entries()) {
    const unit = BELIEF_WEIGHT / spread
    gram[at]![at]! += unit * unit
    goals[at]! += unit * unit * mean
  }
  // Columns of equal length: pairs are counted in millions, steps in ones.
  const scales = gram.map((row, i) => Math.sqrt(row[i]!))
  const lower = choleskyOf(gram.map((row, i) => row.map((value, j) => value / (scales[i]! * scales[j]!))))
  const matrix = lower.map((_, row) => lower.map((column, j) => (j >= row ? column[row]! : 0)))
  const solution = fcnnlsVector(
    matrix,
    forward(
      lower,
      goals.map((goal, i) => goal / scales[i]!),
    ),
  ).K.to1DArray()
  return solution.map((value, column) => value / scales[column]!)
}

/** Less than rounding leaves of a column that others explain wholly. */
const LEAST_PIVOT = 1e-12

/** L with L·Lᵀ = `gram`, of which the lower half is read. */
function choleskyOf(gram: readonly Float64Array[]): Float64Array[] {
  const lower = gram.map((row) => new Float64Array(row.length))
  for (let i = 0; i < gram.length; i++)
    for (let j = 0; j <= i; j++) {
      let sum = gram[i]![j]!
      for (let k = 0; k < j; k++) sum -= lower[i]![k]! * lower[j]![k]!
      lower[i]![j] = i === j ? Math.sqrt(Math.max(LEAST_PIVOT, sum)) : sum / lower[j]![j]!
    }
  return lower
}

/** x with L·x = `goals`. */
function forward(lower: readonly Float64Array[], goals: Float64Array): number[] {
  const solution: number[] = []
  for (const [i, row] of lower.entries()) {
    let sum = goals[i]!
    for (let k = 0; k < i; k++) sum -= row[k]! * solution[k]!
    solution.push(sum / row[i]!)
  }
  return solution
}

export function predictedUs(coefficients: readonly number[], features: readonly number[]): number {
  let sum = 0
  for (let i = 0; i < features.length; i++) sum += coefficients[i]! * features[i]!
  return sum
}

/** Deviations that are no outliers: at most five times as far off as the middle one, and what models are off at best. */
export function withinSpread(deviations: readonly number[], least: number): boolean[] {
  if (deviations.length === 0) return []
  const sizes = deviations.map(Math.abs)
  const most = OUTLIER_SPREADS * quantile(sizes, 0.5) + least
  return sizes.map((size) => size <= most)
}

/** Spread of actual over predicted, a standard deviation of a normal: the middle 68%, so that one stall does not count. */
export function sigmaOf(deviations: readonly number[]): number {
  return deviations.length === 0 ? 0 : quantile(deviations.map(Math.abs), 0.68)
}
