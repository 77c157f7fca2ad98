/** When the text of an answer could be sent: later than its tokens were there where text is held back, such as the head of
 * a tool call or what may become a stop string. */

export interface Delivered {
  /** After the request's arrival, ms; null: there was no text. */
  firstMs: number | null
  /** Longest time between two pieces of text, ms; null: there was one at most. */
  longestGapMs: number | null
}

export class Delivery implements Delivered {
  readonly #arrivalMs: number
  #lastMs: number | null = null
  firstMs: number | null = null
  longestGapMs: number | null = null

  /** `arrivalMs`: of the request, on performance.now()'s clock. */
  constructor(arrivalMs: number) {
    this.#arrivalMs = arrivalMs
  }

  /** There is more text now. */
  note(): void {
    const nowMs = performance.now()
    if (this.#lastMs === null) this.firstMs = nowMs - this.#arrivalMs
    else this.longestGapMs = Math.max(this.longestGapMs ?? 0, nowMs - this.#lastMs)
    this.#lastMs = nowMs
  }
}
