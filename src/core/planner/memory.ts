/** Forecast of the KV peak if every request runs to its expected end (DESIGN §4 step 3). Columns are reused. */

export class MemoryForecast {
  #count = 0
  #current = new Float64Array(64)
  #remaining = new Float64Array(64)
  #order = new Uint32Array(64)
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
    const remaining = this.#remaining
    const order = this.#order.subarray(0, this.#count)
    for (let i = 0; i < order.length; i++) order[i] = i
    order.sort((a, b) => remaining[b]! - remaining[a]!)
    let held = 0
    let peak = 0
    for (let i = 0; i < order.length; i++) {
      held += this.#current[order[i]!]!
      peak = Math.max(peak, held + (i + 1) * remaining[order[i]!]!)
    }
    return peak
  }

  #enlarge(): void {
    const grown = new Float64Array(this.#current.length * 2)
    const remaining = new Float64Array(grown.length)
    grown.set(this.#current)
    remaining.set(this.#remaining)
    this.#current = grown
    this.#remaining = remaining
    this.#order = new Uint32Array(grown.length)
  }
}
