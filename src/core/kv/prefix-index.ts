/** What holds a prefix: from the chain hash of a KV block to all that have it. Blocks of a prompt are held from its
 * beginning on, so that where block n is held all before it are: looked up by bisection. */

/** Most hashes have one holder: a set for each would be the memory of the index. */
type Holders<H> = H | Set<H>

export class PrefixIndex<H> {
  #holders = new Map<number, Holders<H>>()

  /** `holder` has the block with this hash from now on. */
  add(hash: number, holder: H): void {
    const present = this.#holders.get(hash)
    if (present === undefined) this.#holders.set(hash, holder)
    else if (present instanceof Set) present.add(holder)
    else if (present !== holder) this.#holders.set(hash, new Set([present, holder]))
  }

  remove(hash: number, holder: H): void {
    const present = this.#holders.get(hash)
    if (present === holder) this.#holders.delete(hash)
    else if (present instanceof Set) {
      present.delete(holder)
      if (present.size === 0) this.#holders.delete(hash)
    }
  }

  has(hash: number): boolean {
    return this.#holders.has(hash)
  }

  /** All that have the block, the one that came first, first. */
  *of(hash: number): IterableIterator<H> {
    const present = this.#holders.get(hash)
    if (present === undefined) return
    if (present instanceof Set) yield* present
    else yield present
  }

  /** Leading blocks of `prefix`, at most `most`, that something holds. `near`: where the answer was last time. */
  longest(prefix: readonly number[], most: number, near = 0): number {
    let low = 0
    let high = most
    if (near > 0 && near <= most && this.has(prefix[near - 1]!)) low = near
    else if (near > 0 && near <= most) high = near - 1
    // What was found a step ago is still so, as a rule, or one chunk further.
    if (low === near && low < high && !this.has(prefix[low]!)) return low
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.has(prefix[middle - 1]!)) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Every (hash, holder), for checks. */
  *entries(): IterableIterator<[number, H]> {
    for (const hash of this.#holders.keys()) for (const holder of this.of(hash)) yield [hash, holder]
  }
}
