/** Whether a replica that is down is back about as soon as its start takes, so that requests may wait for it. Times are ms on
 * the caller's clock. */

/** A start is given so many times as long as the shortest so far: the first may have fetched a model. */
const SLACK = 2
/** And so long at least. */
const LEAST_MS = 2000

export class Comeback {
  #startMs = Infinity
  /** When its start began, or will; null: it is up. */
  #begunMs: number | null

  /** Its first start begins now. */
  constructor(nowMs: number) {
    this.#begunMs = nowMs
  }

  ready(nowMs: number): void {
    if (this.#begunMs !== null) this.#startMs = Math.min(this.#startMs, nowMs - this.#begunMs)
    this.#begunMs = null
  }

  /** It is down, and is started anew at `beginMs`: Infinity for never. */
  down(beginMs: number): void {
    this.#begunMs = beginMs
  }

  /** It is up, or is to be expected within the time that a start is given. */
  isSoon(nowMs: number): boolean {
    if (this.#begunMs === null) return true
    return Math.abs(nowMs - this.#begunMs) <= this.#givenMs
  }

  /** How long until it is up, at the latest; Infinity: it is not to be expected. null: it is up, or how long its start takes is
   * not known yet. */
  withinMs(nowMs: number): number | null {
    if (this.#begunMs === null) return null
    if (this.#startMs === Infinity) return this.#begunMs === Infinity ? Infinity : null
    const leftMs = this.#begunMs + this.#givenMs - nowMs
    return leftMs < 0 ? Infinity : leftMs
  }

  get #givenMs(): number {
    return Math.max(LEAST_MS, SLACK * this.#startMs)
  }
}
