/** A cost model learnt from outside: how long stretches of an engine's work took, and what was computed in them. Until
 * enough was seen the model is a slow guess. */
import { quantile } from "simple-statistics"
import type { CostModel } from "../core/cost.ts"
import {
  type Belief,
  leastSquares,
  predictedUs,
  type Row,
  sigmaOf,
  withinSpread,
} from "../fit/least-squares.ts"

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
/** How far off that may be: as much as it is, and what is believed to cost nothing by so much. A prompt of a few tokens has few
 * pairs: without a bound they would take all that equal stretches took, and a long prompt hours. */
const LEAST_SPREADS: Readonly<Coefficients> = { entries: 1, steps: 1, tokens: 1, sequences: 50, pairs: 0.1 }
/** Stretches kept of each sort. Many decodes must not push out what is known of prompts. */
const KEPT = 128
/** A stretch with a smaller share of prompt tokens says little of them. */
const PROMPT_SHARE = 0.05
/** Seen so many of each sort, the model is believed. */
const ENOUGH = 4
/** … or so many in all, where its kin are known. */
const ENOUGH_AMONG_KIN = 2
/** New stretches after which the fit is made anew, once there are many. */
const EVERY = 16
/** Of a stretch: what models are off at best. */
const ALIKE = 0.02

export class CostFit {
  #prior: Coefficients
  #kin: CostFit | null
  #withPrompts = new Ring<Stretch>(KEPT)
  #decodes = new Ring<Stretch>(KEPT)
  #fitted: Coefficients
  #model: CostModel
  #seen = 0
  #fitAt = 1
  #sigma = 0.3

  /** `prior`: what is believed at first, where more is known of the engine. `kin`: what was seen of all engines like it, which
   * is told what is seen of this one: what its own stretches do not tell apart is as with these. */
  constructor(prior: Partial<Coefficients> = {}, kin: CostFit | null = null) {
    this.#prior = { ...PRIOR, ...prior }
    this.#kin = kin
    this.#fitted = this.#prior
    this.#model = this.#modelOf()
  }

  /** Both prompts and decodes were seen often enough. */
  get confident(): boolean {
    const seen = this.#withPrompts.size + this.#decodes.size
    if (this.#kin?.confident && seen >= ENOUGH_AMONG_KIN) return true
    return this.#withPrompts.size >= ENOUGH && seen >= 2 * ENOUGH
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
    this.#kin?.observe(stretch, promptTokens)
    const ring = promptTokens > PROMPT_SHARE * stretch.tokens ? this.#withPrompts : this.#decodes
    ring.add(stretch)
    if (++this.#seen < this.#fitAt) return
    this.#fitAt = this.#seen + Math.min(EVERY, this.#seen)
    this.#fit()
  }

  #fit(): void {
    const rows = [...this.#withPrompts.items, ...this.#decodes.items].map(rowOf)
    const beliefs = FEATURES.map((feature) => this.#beliefOf(feature))
    const first = leastSquares(rows, beliefs)
    const offsets = rows.map(({ features, us }) => Math.log(us / Math.max(1, predictedUs(first, features))))
    const center = quantile(offsets, 0.5)
    const deviations = offsets.map((offset) => offset - center)
    const near = withinSpread(deviations, ALIKE)
    const usual = rows.filter((_, i) => near[i])
    const fitted = usual.length === rows.length ? first : leastSquares(usual, beliefs)
    this.#fitted = Object.fromEntries(FEATURES.map((feature, i) => [feature, fitted[i]!])) as Coefficients
    this.#sigma = Math.min(0.3, Math.max(0.02, sigmaOf(deviations)))
    this.#model = this.#modelOf()
  }

  #beliefOf(feature: (typeof FEATURES)[number]): Belief {
    const mean = this.#kin?.confident ? this.#kin.#fitted[feature] : this.#prior[feature]
    return { mean, spread: Math.max(mean, LEAST_SPREADS[feature]) }
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

function rowOf(stretch: Stretch): Row {
  return { features: FEATURES.map((feature) => stretch[feature]), us: stretch.us }
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
