/** How fast requests have been leaving a queue, so that one that is refused is told honestly when there will be room. */

const WINDOW_US = 10_000_000
const BUCKET_US = 250_000
/** Sooner is not worth it, later is not known. */
const LEAST_MS = 500
const MOST_MS = 60_000

export class LeaveRate {
  /** Requests that left, by bucket number. */
  readonly #buckets = new Map<number, number>()
  #firstUs = Number.POSITIVE_INFINITY

  left(nowUs: number): void {
    const number = Math.floor(nowUs / BUCKET_US)
    this.#firstUs = Math.min(this.#firstUs, nowUs)
    this.#buckets.set(number, (this.#buckets.get(number) ?? 0) + 1)
    this.#forget(nowUs)
  }

  /** Time until `ahead` requests have left at the rate of the last ten seconds, ms. */
  waitMs(ahead: number, nowUs: number): number {
    this.#forget(nowUs)
    let left = 0
    for (const count of this.#buckets.values()) left += count
    const spanUs = Math.min(WINDOW_US, Math.max(BUCKET_US, nowUs - this.#firstUs))
    if (left === 0) return this.#firstUs === Number.POSITIVE_INFINITY ? LEAST_MS : WINDOW_US / 1000
    const waitMs = (ahead * spanUs) / left / 1000
    return Math.min(MOST_MS, Math.max(LEAST_MS, waitMs))
  }

  #forget(nowUs: number): void {
    const oldest = Math.floor((nowUs - WINDOW_US) / BUCKET_US)
    for (const number of this.#buckets.keys()) {
      if (number > oldest) return
      this.#buckets.delete(number)
    }
  }
}
