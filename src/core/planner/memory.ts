/** Forecast of the KV peak if every request runs to its expected end (DESIGN §4 step 3). Columns are reused. */

/** Ciura's gaps. */
const GAPS = [1750, 701, 301, 132, 57, 23, 10, 4, 1] as const

export class MemoryForecast {
  #count = 0
  #current = new Float64Array(64)
  #remaining = new Float64Array(64)
  /** If nobody ended before everybody has reached its end: never less than the peak. */
  #sum = 0

  clear(): void {
    this.#count = this.#sum = 0
  }

  /** A request that holds `current` tokens and is expected to take `remaining` more. */
  add(current: number, remaining: number): void {
    const at = this.#count++
    if (at === this.#current.length) this.#enlarge()
    this.#current[at] = current
    this.#remaining[at] = remaining
    this.#sum += current + remaining
  }

  exceeds(tokens: number): boolean {
    return this.#sum > tokens && this.peakTokens() > tokens
  }

  /** Highest number of tokens held at once: requests end in order of what remains; when the i-th longest ends,
   * it and all longer ones have grown by its remainder. */
  peakTokens(): number {
    this.#sort()
    let held = 0
    let peak = 0
    for (let i = 0; i < this.#count; i++) {
      held += this.#current[i]!
      peak = Math.max(peak, held + (i + 1) * this.#remaining[i]!)
    }
    return peak
  }

  /** Rows by what remains, most first: a shell sort in place, several times as fast as one with a comparison
   * function. The order of equal ones makes no difference to the peak. */
  #sort(): void {
    const current = this.#current
    const remaining = this.#remaining
    const count = this.#count
    for (const gap of GAPS) {
      for (let i = gap; i < count; i++) {
        const [held, left] = [current[i]!, remaining[i]!]
        let at = i
        for (; at >= gap && remaining[at - gap]! < left; at -= gap) {
          current[at] = current[at - gap]!
          remaining[at] = remaining[at - gap]!
        }
        current[at] = held
        remaining[at] = left
      }
    }
  }

  #enlarge(): void {
    const grown = new Float64Array(this.#current.length * 2)
    const remaining = new Float64Array(grown.length)
    grown.set(this.#current)
    remaining.set(this.#remaining)
    this.#current = grown
    this.#remaining = remaining
  }
}
