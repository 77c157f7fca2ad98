/** From measured steps to a cost model: non-negative least squares on relative errors, because the planner
 * multiplies predictions and a short step matters as much as a long one. */
import { fcnnlsVector } from "ml-fcnnls"
import { quantile, quantileSorted } from "simple-statistics"
import {
  COST_FEATURES,
  type CostModel,
  type CostPiece,
  pieceUs,
  type StepShape,
  shapeOf,
  stepUs,
} from "../core/cost.ts"
import type { BatchItem } from "../core/protocol.ts"

/** A batch and how long it took. */
export interface Observation {
  items: readonly Pick<BatchItem, "position" | "tokens" | "sample" | "draft">[]
  us: number
}

interface Shaped {
  shape: StepShape
  us: number
}

/** Median absolute deviations (5 are 3.4σ of a normal). */
const OUTLIER_SPREADS = 5
/** Where attention may become fast. Flash attention on a CPU: 64; plain: a handful; a GPU: at once. */
const FAST_PASS_CANDIDATES = [1, 2, 4, 8, 16, 32, 64]

export interface FitQuality {
  /** Share of the variance of step time explained. */
  r2: number
  /** Mean of |predicted / actual − 1|. */
  mape: number
  /** Quantiles of actual / predicted. */
  residuals: { p5: number; p50: number; p95: number; p99: number }
}

/** Fits to `points` (medians of repeats); the spread comes from `all` single steps. */
export function fitModel(
  points: readonly Observation[],
  all: readonly Observation[],
  unifiedKv: boolean,
): CostModel {
  let best: { model: CostModel; error: number } | undefined
  for (const fastPassTokens of FAST_PASS_CANDIDATES) {
    const layout = { fastPassTokens, unifiedKv }
    const model = { ...layout, pieces: [fitRobustly(shapesOf(points, layout))], residualSigma: 0 }
    const error = meanError(model, points)
    if (!best || error < best.error * 0.999) best = { model, error }
  }
  const { model } = best!
  const ratios = ratiosOf(model, all)
  // The middle 68%: one stall of the machine must not widen every margin.
  model.residualSigma = (quantileSorted(ratios, 0.84) - quantileSorted(ratios, 0.16)) / 2
  return model
}

/** Quality of a model on observations. */
export function qualityOf(model: CostModel, observations: readonly Observation[]): FitQuality {
  const mean = observations.reduce((sum, { us }) => sum + us, 0) / observations.length
  let unexplained = 0
  let total = 0
  let relative = 0
  for (const { shape, us } of shapesOf(observations, model)) {
    const predicted = stepUs(model, shape)
    unexplained += (us - predicted) ** 2
    total += (us - mean) ** 2
    relative += Math.abs(predicted / us - 1)
  }
  const ratios = ratiosOf(model, observations)
  const [p5, p50, p95, p99] = [0.05, 0.5, 0.95, 0.99].map((q) => quantileSorted(ratios, q)) as [
    number,
    number,
    number,
    number,
  ]
  return {
    r2: 1 - unexplained / total,
    mape: relative / observations.length,
    residuals: { p5, p50, p95, p99 },
  }
}

/** Two fits: the second without the points that lie far off the first, where something else took the machine. */
function fitRobustly(observations: readonly Shaped[]): CostPiece {
  const first = fitPiece(observations)
  const offsets = observations.map(({ shape, us }) => Math.log(us / Math.max(1, pieceUs(first, shape))))
  const center = quantile(offsets, 0.5)
  const spread = quantile(
    offsets.map((offset) => Math.abs(offset - center)),
    0.5,
  )
  const near = observations.filter(
    (_, i) => Math.abs(offsets[i]! - center) <= OUTLIER_SPREADS * spread + 0.01,
  )
  return fitPiece(near.length >= observations.length / 2 ? near : observations)
}

/** One linear piece. Features that no observation has, or that would help only with a negative sign, are out. */
function fitPiece(observations: readonly Shaped[]): CostPiece {
  const rows = observations.map(({ shape, us }) =>
    COST_FEATURES.map((feature) => (feature === "step" ? 1 : shape[feature]) / us),
  )
  // Columns of equal length: pairs are counted in millions, steps in ones.
  const scales = COST_FEATURES.map((_, column) => Math.hypot(...rows.map((row) => row[column]!)))
  const used = COST_FEATURES.flatMap((_, column) => (scales[column]! > 0 ? [column] : []))
  const matrix = rows.map((row) => used.map((column) => row[column]! / scales[column]!))
  const solution = fcnnlsVector(
    matrix,
    rows.map(() => 1),
  ).K.to1DArray()
  const piece: CostPiece = {}
  for (const [i, column] of used.entries()) {
    const value = solution[i]! / scales[column]!
    if (value > 0) piece[COST_FEATURES[column]!] = value
  }
  return piece
}

function ratiosOf(model: CostModel, observations: readonly Observation[]): number[] {
  return shapesOf(observations, model)
    .map(({ shape, us }) => us / stepUs(model, shape))
    .sort((a, b) => a - b)
}

/** Mean of |ln(predicted / actual)|: a few outliers must not decide. */
function meanError(model: CostModel, observations: readonly Observation[]): number {
  const errors = shapesOf(observations, model).map(({ shape, us }) =>
    Math.abs(Math.log(Math.max(1, stepUs(model, shape)) / us)),
  )
  return errors.reduce((sum, error) => sum + error, 0) / errors.length
}

function shapesOf(
  observations: readonly Observation[],
  layout: Pick<CostModel, "fastPassTokens" | "unifiedKv">,
): Shaped[] {
  return observations.map(({ items, us }) => ({ shape: shapeOf(items, layout), us }))
}
