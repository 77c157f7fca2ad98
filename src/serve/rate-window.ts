/** How many in any minute: a sliding window in slots, so that its memory does not grow with its bound. A slot counts until all of
 * it is out of the window, so there is never more in one than the bound. */

const SLOTS = 240

/** Counts what was taken of so much a minute, here or elsewhere. See `RateWindow`. */
export interface RateCounter {
  readonly limit: number
  used(nowMs: number): number
  take(count: number, nowMs: number): number | null | Promise<number | null>
  add(count: number, slot: number): void
  waitMs(count: number, nowMs: number): number
}

/** One of that bound, which goes on to count what the one `before` it did. */
export function renewedWindow(limit: number, before: RateWindow | undefined): RateWindow {
  if (before?.limit === limit) return before
  const window = new RateWindow(limit)
  const nowMs = performance.now()
  const used = before?.used(nowMs) ?? 0
  // Of another bound: all that counts still does, as if it had just come.
  if (used > 0) {
    const slot = window.take(0, nowMs)
    window.add(used, slot!)
  }
  return window
}

export class RateWindow implements RateCounter {
  readonly limit: number
  readonly windowMs: number
  readonly #slotMs: number
  /** Of the slots that any window may touch that ends now: one more than it is long. */
  readonly #counts = new Float64Array(SLOTS + 1)
  /** Number of the newest slot. */
  #newest = Number.NEGATIVE_INFINITY
  #sum = 0

  constructor(limit: number, windowMs = 60_000) {
    this.limit = limit
    this.windowMs = windowMs
    this.#slotMs = windowMs / SLOTS
  }

  /** What counts now. */
  used(nowMs: number): number {
    this.#advance(nowMs)
    return this.#sum
  }

  /** Answers with the slot that counts them, or null: so many more would be too many. */
  take(count: number, nowMs: number): number | null {
    this.#advance(nowMs)
    if (this.#sum + count > this.limit) return null
    this.add(count, this.#newest)
    return this.#newest
  }

  /** So many more (or fewer) were taken in that slot than it counts; one that is out of the window counts no more. */
  add(count: number, slot: number): void {
    if (slot <= this.#newest - this.#counts.length) return
    this.#counts[this.#at(slot)]! += count
    this.#sum += count
  }

  /** How many slots before the newest one it is. */
  slotsSince(slot: number, nowMs: number): number {
    this.#advance(nowMs)
    return this.#newest - slot
  }

  /** So many were taken elsewhere, so many slots ago. */
  addSince(count: number, slots: number, nowMs: number): void {
    this.#advance(nowMs)
    this.add(count, this.#newest - slots)
  }

  /** What counts now, and how many slots ago it was taken: the newest first. */
  taken(nowMs: number): [slots: number, count: number][] {
    this.#advance(nowMs)
    const all = Array.from(this.#counts, (_, slots): [number, number] => [
      slots,
      this.#counts[this.#at(this.#newest - slots)]!,
    ])
    return all.filter(([, count]) => count > 0)
  }

  /** Elsewhere so much is known to be taken: what is more than counts here does from now on. */
  atLeast(taken: readonly (readonly [slots: number, count: number])[], nowMs: number): void {
    let missing = taken.reduce((sum, [, count]) => sum + count, 0) - this.used(nowMs)
    for (const [slots, count] of taken) {
      if (missing <= 0) return
      this.add(Math.min(count, missing), this.#newest - slots)
      missing -= count
    }
  }

  /** Until so many more are not too many, if no others come; Infinity: never. */
  waitMs(count: number, nowMs: number): number {
    this.#advance(nowMs)
    if (count > this.limit) return Number.POSITIVE_INFINITY
    let left = this.#sum
    let slot = this.#newest - this.#counts.length + 1
    for (; left + count > this.limit && slot <= this.#newest; slot++) left -= this.#counts[this.#at(slot)]!
    const freeMs = (slot + this.#counts.length - 1) * this.#slotMs
    return left === this.#sum ? 0 : Math.max(0, freeMs - nowMs)
  }

  #advance(nowMs: number): void {
    const slot = Math.floor(nowMs / this.#slotMs)
    if (slot <= this.#newest) return
    const passed = Math.min(this.#counts.length, slot - this.#newest)
    for (let i = 0; i < passed; i++) {
      const at = this.#at(slot - i)
      this.#sum -= this.#counts[at]!
      this.#counts[at] = 0
    }
    this.#newest = slot
  }

  #at(slot: number): number {
    return ((slot % this.#counts.length) + this.#counts.length) % this.#counts.length
  }
}
