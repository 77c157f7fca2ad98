/** A cost model learnt from outside: how long stretches of an engine's work took, and what was computed in them. Until
 * enough was seen the model is a slow guess. */
import { fcnnlsVector } from "ml-fcnnls"
import { quantile } from "simple-statistics"
import type { CostModel } from "../core/cost.ts"

/** A stretch of time in which an engine never idled, and what it did in it. */
export interface Stretch {
  /** Requests that entered in it and were waited for: each crosses the network and is parsed once. */
  entries: number
  steps: number
  /** Tokens computed, of prompts and decodes. */
  tokens: number
  /** Summed over its steps: requests that had a part in the step. */
  sequences: number
  /** (token, context token) products. */
  pairs: number
  /** How long it took, µs. */
  us: number
}

const FEATURES = ["entries", "steps", "tokens", "sequences", "pairs"] as const
type Coefficients = Record<(typeof FEATURES)[number], number>

/** Believed before anything was seen, µs: a mid-size model on one GPU, rather slow. */
export const PRIOR: Readonly<Coefficients> = {
  entries: 5000,
  steps: 30_000,
  tokens: 200,
  sequences: 0,
  pairs: 0,
}
/** Stretches kept of each sort. Many decodes must not push out what is known of prompts. */
const KEPT = 128
/** A stretch with a smaller share of prompt tokens says little of them. */
const PROMPT_SHARE = 0.05
/** Seen so many of each sort, the model is believed. */
const ENOUGH = 4
/** Weight of the guess against one stretch. */
const PRIOR_WEIGHT = 0.1
/** New stretches after which the fit is made anew, once there are many. */
const EVERY = 16
/** Median absolute deviations (5 are 3.4σ of a normal). */
const OUTLIER_SPREADS = 5

export class CostFit {
  #prior: Coefficients
  #withPrompts = new Ring<Stretch>(KEPT)
  #decodes = new Ring<Stretch>(KEPT)
  #fitted: Coefficients
  #model: CostModel
  #seen = 0
  #fitAt = 1
  #sigma = 0.3

  /** `prior`: what is believed at first, where more is known of the engine. */
  constructor(prior: Partial<Coefficients> = {}) {
    this.#prior = { ...PRIOR, ...prior }
    this.#fitted = this.#prior
    this.#model = this.#modelOf()
  }

  /** Both prompts and decodes were seen often enough. */
  get confident(): boolean {
    return this.#withPrompts.size >= ENOUGH && this.#withPrompts.size + this.#decodes.size >= 2 * ENOUGH
  }

  /** Step times as fitted. The same object until the next fit. */
  get model(): CostModel {
    return this.#model
  }

  /** What a request costs before its first step and after its last: network, parsing, µs. */
  get entryUs(): number {
    return this.#fitted.entries
  }

  /** `promptTokens`: how many of the stretch's tokens were of prompts. */
  observe(stretch: Stretch, promptTokens: number): void {
    if (!(stretch.us > 0) || !(stretch.steps > 0)) return
    const ring = promptTokens > PROMPT_SHARE * stretch.tokens ? this.#withPrompts : this.#decodes
    ring.add(stretch)
    if (++this.#seen < this.#fitAt) return
    this.#fitAt = this.#seen + Math.min(EVERY, this.#seen)
    this.#fit()
  }

  #fit(): void {
    const stretches = [...this.#withPrompts.items, ...this.#decodes.items]
    const first = this.#solve(stretches)
    const offsets = stretches.map((stretch) =>
      Math.log(stretch.us / Math.max(1, predictedUs(first, stretch))),
    )
    const center = quantile(offsets, 0.5)
    const deviations = offsets.map((offset) => Math.abs(offset - center))
    const most = OUTLIER_SPREADS * quantile(deviations, 0.5) + 0.02
    const near = stretches.filter((_, i) => deviations[i]! <= most)
    this.#fitted = near.length === stretches.length ? first : this.#solve(near)
    this.#sigma = Math.min(0.3, Math.max(0.02, quantile(deviations, 0.68)))
    this.#model = this.#modelOf()
  }

  /** Least squares of relative errors: the planner multiplies predictions. */
  #solve(stretches: readonly Stretch[]): Coefficients {
    const rows = stretches.map((stretch) => FEATURES.map((feature) => stretch[feature] / stretch.us))
    const goals = stretches.map(() => 1)
    for (const feature of FEATURES) {
      const mean = rows.reduce((sum, row) => sum + row[FEATURES.indexOf(feature)]!, 0) / rows.length
      // What the stretches do not tell apart stays near the guess.
      if (this.#prior[feature] === 0) continue
      const unit = PRIOR_WEIGHT * Math.max(mean, 1e-9)
      rows.push(FEATURES.map((other) => (other === feature ? unit : 0)))
      goals.push(unit * this.#prior[feature])
    }
    const scales = FEATURES.map((_, column) => Math.hypot(...rows.map((row) => row[column]!)) || 1)
    const matrix = rows.map((row) => row.map((value, column) => value / scales[column]!))
    const solution = fcnnlsVector(matrix, goals).K.to1DArray()
    return Object.fromEntries(
      FEATURES.map((feature, i) => [feature, solution[i]! / scales[i]!]),
    ) as Coefficients
  }

  #modelOf(): CostModel {
    const { steps, tokens, sequences, pairs } = this.#fitted
    return {
      pieces: [{ step: Math.max(1, steps), tokens, sequences, fastPairs: pairs }],
      residualSigma: this.#sigma,
      fastPassTokens: 1,
      unifiedKv: true,
    }
  }
}

function predictedUs(fitted: Coefficients, stretch: Stretch): number {
  return FEATURES.reduce((sum, feature) => sum + fitted[feature] * stretch[feature], 0)
}

/** The latest items. */
class Ring<T> {
  readonly items: T[] = []
  #most: number
  #next = 0

  constructor(most: number) {
    this.#most = most
  }
  get size(): number {
    return this.items.length
  }
  add(item: T): void {
    this.items[this.#next] = item
    this.#next = (this.#next + 1) % this.#most
  }
}
