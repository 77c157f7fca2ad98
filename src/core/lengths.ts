/** Output lengths are unknown when planning: learn each app's mean (the class mean lost nothing against the
 * oracle in the study, max_tokens lost up to 37%; DESIGN §4). */

/** Requests after which an old observation has lost most of its weight. */
const MEMORY = 200
/** Before any observation an app's outputs are taken to be this share of what they may be. */
const PRIOR_SHARE = 0.5
const PRIOR_MAX_TOKENS = 256
/** A request past its app's mean is expected to go on for this share of the mean. */
const TAIL_SHARE = 0.3

export class OutputLengths {
  #count: Float64Array
  #mean: Float64Array

  constructor(apps: number) {
    this.#count = new Float64Array(apps)
    this.#mean = new Float64Array(apps)
  }

  /** A request of `app` ended by itself after `tokens` output tokens. */
  observe(app: number, tokens: number): void {
    const n = (this.#count[app] = Math.min(MEMORY, this.#count[app]! + 1))
    this.#mean[app] = this.#mean[app]! + (tokens - this.#mean[app]!) / n
  }

  /** Expected tokens still to come after `output` of at most `most`, in [1, most - output] (0 at the end). */
  remaining(app: number, output: number, most: number): number {
    const mean = this.#count[app]! > 0 ? this.#mean[app]! : Math.min(PRIOR_MAX_TOKENS, most) * PRIOR_SHARE
    return Math.min(most - output, Math.max(1, mean - output, Math.ceil(mean * TAIL_SHARE)))
  }
}
