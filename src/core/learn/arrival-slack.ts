/** How long the requests that keep arriving can wait before their prefill must begin: what a batch that is not cut short
 * for an arrival may take from it. The low quantile of their slack, learnt in steps of a share of itself. */
import type { CostModel } from "../cost.ts"

/** One arrival in ten has less. */
const QUANTILE = 0.1
/** A new arrival moves the estimate by at most this share of it. */
const STEP = 0.15
/** Less is no room for anything; more is none that matters. */
const LEAST_US = 1_000
const MOST_US = 60_000_000
/** Arrivals that are told again under another cost model: the estimate has lost most of older ones. */
const KEPT = 64

/** A request as it arrived. */
export interface Arrival {
  /** From its arrival to its deadline, µs. */
  patienceUs: number
  /** Of its prompt, `owed` tokens from `position` on are to be computed. */
  position: number
  owed: number
}

export class ArrivalSlack {
  #logUs = Math.log(MOST_US)
  #seen = 0
  #last: Arrival[] = []
  #cost: CostModel | null = null

  /** One in ten of the arrivals of late could wait no longer, µs. */
  get us(): number {
    return Math.exp(this.#logUs)
  }

  /** Prompts take `aloneUs` by `cost`. What was learnt by another model holds no more: a first guess that is ten times too slow
   * says that no arrival can wait, and with batches as short as that every prompt pays for many steps. */
  believe(cost: CostModel, aloneUs: (arrival: Arrival) => number): void {
    const isNew = this.#cost !== cost
    this.#cost = cost
    if (!isNew || this.#last.length === 0) return
    const logs = this.#last.map((arrival) => logOf(arrival.patienceUs - aloneUs(arrival)))
    this.#logUs = logs.sort((a, b) => a - b)[Math.floor(QUANTILE * logs.length)]!
  }

  /** `arrival` takes `aloneUs`. */
  arrived(arrival: Arrival, aloneUs: number): void {
    this.#last[this.#seen % KEPT] = arrival
    this.observe(arrival.patienceUs - aloneUs)
  }

  /** A request arrived whose first token is due `slackUs` later than it could be out. */
  observe(slackUs: number): void {
    const logUs = logOf(slackUs)
    // The first ones are all that is known.
    if (this.#seen++ === 0) this.#logUs = logUs
    const step = STEP * Math.max(1, 8 / this.#seen)
    this.#logUs += logUs < this.#logUs ? -step * (1 - QUANTILE) : step * QUANTILE
    this.#logUs = Math.min(Math.log(MOST_US), Math.max(Math.log(LEAST_US), this.#logUs))
  }
}

function logOf(slackUs: number): number {
  return Math.log(Math.min(MOST_US, Math.max(LEAST_US, slackUs)))
}
