/** Places in a replica's queue. Every request has one from before its prompt is read: further choices of a request and
 * what is still being prepared count as well, so that what was accepted never finds the queue full. */

export class Places {
  readonly limit: number
  #taken = 0
  #whenEmpty: (() => void)[] = []

  constructor(limit: number) {
    this.limit = limit
  }

  get taken(): number {
    return this.#taken
  }

  /** So many at once or, answering false, none. */
  take(count: number): boolean {
    if (this.#taken + count > this.limit) return false
    this.#taken += count
    return true
  }

  giveBack(count: number): void {
    this.#taken -= count
    if (this.#taken === 0) for (const resolve of this.#whenEmpty.splice(0)) resolve()
  }

  /** Resolves once none is taken. */
  empty(): Promise<void> {
    return this.#taken === 0 ? Promise.resolve() : new Promise((resolve) => this.#whenEmpty.push(resolve))
  }
}
