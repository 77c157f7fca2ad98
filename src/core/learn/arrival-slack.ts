/** How long the requests that keep arriving can wait before their prefill must begin: what a batch that is not cut short
 * for an arrival may take from it. The low quantile of their slack, learnt in steps of a share of itself. */

/** One arrival in ten has less. */
const QUANTILE = 0.1
/** A new arrival moves the estimate by at most this share of it. */
const STEP = 0.15
/** Less is no room for anything; more is none that matters. */
const LEAST_US = 1_000
const MOST_US = 60_000_000

export class ArrivalSlack {
  #logUs = Math.log(MOST_US)
  #seen = 0

  /** One in ten of the arrivals of late could wait no longer, µs. */
  get us(): number {
    return Math.exp(this.#logUs)
  }

  /** A request arrived whose first token is due `slackUs` later than it could be out. */
  observe(slackUs: number): void {
    const logUs = Math.log(Math.min(MOST_US, Math.max(LEAST_US, slackUs)))
    // The first ones are all that is known.
    if (this.#seen++ === 0) this.#logUs = logUs
    const step = STEP * Math.max(1, 8 / this.#seen)
    this.#logUs += logUs < this.#logUs ? -step * (1 - QUANTILE) : step * QUANTILE
    this.#logUs = Math.min(Math.log(MOST_US), Math.max(Math.log(LEAST_US), this.#logUs))
  }
}
