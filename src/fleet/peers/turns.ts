/** Work that comes in bursts, done a little at a time, in order: all else of this process has its turn in between. */

/** Of one turn, ms. */
const MOST_MS = 2

export class Turns {
  #waiting: (() => void)[] = []
  #next = 0

  get waiting(): number {
    return this.#waiting.length - this.#next
  }

  push(work: () => void): void {
    if (this.waiting === 0) setImmediate(() => this.#turn())
    this.#waiting.push(work)
  }

  #turn(): void {
    const untilMs = performance.now() + MOST_MS
    do {
      const work = this.#waiting[this.#next]
      if (work === undefined) return
      work()
      this.#next++
    } while (performance.now() < untilMs && this.waiting > 0)
    if (this.waiting > 0) setImmediate(() => this.#turn())
    if (this.waiting === 0 || this.#next > 1024) {
      this.#waiting = this.#waiting.slice(this.#next)
      this.#next = 0
    }
  }
}
