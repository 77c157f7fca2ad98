/** The event queue of a simulation: a binary heap by time, then rank, then order of entry, over typed arrays. */

/** Ranks lie below this; entries up to 2^42 keep their order. */
const RANK_UNIT = 2 ** 42

export class EventHeap<T> {
  #size = 0
  #entered = 0
  #times = new Float64Array(64)
  /** rank · 2^42 + order of entry: one number to compare. */
  #orders = new Float64Array(64)
  #items: T[] = []

  get size(): number {
    return this.#size
  }
  /** Time of the next event; Infinity when there is none. */
  get nextUs(): number {
    return this.#size === 0 ? Infinity : this.#times[0]!
  }

  /** `rank` is a small integer ≥ 0; among equal times and ranks, first in is first out. */
  push(atUs: number, rank: number, item: T): void {
    if (this.#size === this.#times.length) this.#enlarge()
    const order = rank * RANK_UNIT + this.#entered++
    let hole = this.#size++
    while (hole > 0) {
      const parent = (hole - 1) >> 1
      if (!this.#before(atUs, order, parent)) break
      this.#move(parent, hole)
      hole = parent
    }
    this.#put(hole, atUs, order, item)
  }

  /** Take the next event; undefined when there is none. */
  pop(): T | undefined {
    if (this.#size === 0) return undefined
    const top = this.#items[0]!
    const last = --this.#size
    const [atUs, order, item] = [this.#times[last]!, this.#orders[last]!, this.#items[last]!]
    this.#items.length = last
    if (last === 0) return top
    let hole = 0
    for (let child = 1; child < last; child = 2 * hole + 1) {
      if (child + 1 < last && this.#before(this.#times[child + 1]!, this.#orders[child + 1]!, child)) child++
      if (this.#before(atUs, order, child)) break
      this.#move(child, hole)
      hole = child
    }
    this.#put(hole, atUs, order, item)
    return top
  }

  #before(atUs: number, order: number, place: number): boolean {
    const other = this.#times[place]!
    return atUs < other || (atUs === other && order < this.#orders[place]!)
  }
  #move(from: number, to: number): void {
    this.#put(to, this.#times[from]!, this.#orders[from]!, this.#items[from]!)
  }
  #put(place: number, atUs: number, order: number, item: T): void {
    this.#times[place] = atUs
    this.#orders[place] = order
    this.#items[place] = item
  }
  #enlarge(): void {
    const twice = (old: Float64Array<ArrayBuffer>) => {
      const next = new Float64Array(old.length * 2)
      next.set(old)
      return next
    }
    this.#times = twice(this.#times)
    this.#orders = twice(this.#orders)
  }
}
