/** Requests that wait for the same prefix: whichever runs first computes it for all, so that it is counted once, as work
 * and as memory, while any of them is kept. */
import type { LiveRequest } from "../request.ts"

/** What several requests begin with and none of them has. */
export interface PrefixGroup {
  /** Tokens [start, end) are theirs in common. */
  start: number
  end: number
  /** Members that are kept. */
  kept: number
}

/** The first one that was found to miss a block, until a second one misses it, too. */
interface First<M> {
  member: M
  request: LiveRequest
}

export class PrefixGroups<M> {
  #blockTokens: number
  #groups = new Map<number, First<M> | PrefixGroup>()
  #leaders = new Map<PrefixGroup, LiveRequest>()

  constructor(blockTokens: number) {
    this.#blockTokens = blockTokens
  }

  clear(): void {
    this.#groups.clear()
    this.#leaders.clear()
  }

  /** `request` would be computed from token `start`. Its group, if another that was asked for before misses the same
   * block; `founds` is called with that one when the two make a new group. */
  join(
    request: LiveRequest,
    member: M,
    start: number,
    founds: (first: M, group: PrefixGroup) => void,
  ): PrefixGroup | null {
    const block = Math.floor(start / this.#blockTokens)
    const hash = request.prefix[block]
    if (hash === undefined) return null
    const found = this.#groups.get(hash)
    if (found === undefined) {
      this.#groups.set(hash, { member, request })
      return null
    }
    if (!("member" in found)) {
      // Requests that go separate ways before the others do would need a group within the group: they count in full.
      const alike = this.#common(this.#leaders.get(found)!, request, block)
      return alike >= found.end ? found : null
    }
    const end = this.#common(found.request, request, block)
    // A last block that holds the last token is computed by both.
    if (end <= start) return null
    const group = { start, end, kept: 0 }
    this.#groups.set(hash, group)
    this.#leaders.set(group, found.request)
    founds(found.member, group)
    return group
  }

  #common(a: LiveRequest, b: LiveRequest, least: number): number {
    return commonBlocks(a, b, least, this.#blockTokens) * this.#blockTokens
  }
}

/** Leading full blocks that two prompts have in common, their last tokens left out, which are always computed; they have
 * `least` at least. */
export function commonBlocks(a: LiveRequest, b: LiveRequest, least: number, blockTokens: number): number {
  const shorter = Math.min(a.spec.promptTokens, b.spec.promptTokens)
  let low = least
  let high = Math.min(a.prefix.length, b.prefix.length, Math.floor((shorter - 1) / blockTokens))
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (a.prefix[middle - 1] === b.prefix[middle - 1]) low = middle
    else high = middle - 1
  }
  return low
}
