/** How much KV an engine that cannot be made to give any back is to keep free for promises to come. */

/** How long ago they were as many counts, µs; and the share of the KV that is kept free at most. */
const LATELY_US = 300_000_000
const MOST_SHARE = 0.5

export class KvReserve {
  #most = 0
  #atUs = 0

  /** Tokens: what promises held at their most lately, less what they hold now, for they come and go. Nothing where there were
   * none: best effort has all then. */
  tokens(heldByPromises: number, kvTokens: number, nowUs: number): number {
    const faded = this.#most * Math.exp((this.#atUs - nowUs) / LATELY_US)
    this.#most = Math.max(heldByPromises, faded)
    this.#atUs = nowUs
    return Math.min(this.#most - heldByPromises, MOST_SHARE * kvTokens)
  }
}
