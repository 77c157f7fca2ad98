/** What is to be looked at, and when: a binary heap. Nothing is taken out early: what was settled before is found to be so
 * when its time comes. */
export class Timers<T> {
  #times: number[] = []
  #items: T[] = []

  get size(): number {
    return this.#times.length
  }
  /** Infinity when there is none. */
  get nextUs(): number {
    return this.#times[0] ?? Infinity
  }

  add(atUs: number, item: T): void {
    let at = this.#times.length
    this.#times.push(atUs)
    this.#items.push(item)
    for (let up = (at - 1) >> 1; at > 0 && this.#times[up]! > atUs; up = (at - 1) >> 1) {
      this.#swap(at, up)
      at = up
    }
  }

  /** The next one whose time has come. */
  take(nowUs: number): T | undefined {
    if (this.nextUs > nowUs) return undefined
    const item = this.#items[0]!
    this.#swap(0, this.#times.length - 1)
    this.#times.pop()
    this.#items.pop()
    this.#sink()
    return item
  }

  #sink(): void {
    const count = this.#times.length
    for (let at = 0, child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && this.#times[child + 1]! < this.#times[child]!) child++
      if (this.#times[at]! <= this.#times[child]!) return
      this.#swap(at, child)
      at = child
    }
  }

  #swap(a: number, b: number): void {
    const [time, item] = [this.#times[a]!, this.#items[a]!]
    this.#times[a] = this.#times[b]!
    this.#items[a] = this.#items[b]!
    this.#times[b] = time
    this.#items[b] = item
  }
}
