/** Where the latest requests went, here and elsewhere: what is told to those that come later. */
import type { Routed } from "../router/target.ts"

export type Placement = readonly [request: Routed, replica: string]

/** `atUs`: when, on the clock that all have. */
export type PastPlacement = readonly [...Placement, atUs: number]

/** Remembered at most: requests, and keys of their prefixes. */
const [MOST, MOST_KEYS] = [4096, 2 ** 18]

export class LatestPlacements {
  /** Of a session the latest round alone; in the order in which they were heard. */
  readonly #all = new Map<string, PastPlacement>()
  #keys = 0

  /** False where as much is known. */
  add(placed: Placement, atUs: number): boolean {
    const [{ session, prefix }] = placed
    const name = session >= 0 ? `session ${session}` : `prefix ${prefix.at(-1)}`
    const known = this.#all.get(name)
    if (known !== undefined && known[2] >= atUs) return false
    this.#forget(name)
    this.#all.set(name, [...placed, atUs])
    this.#keys += prefix.length
    for (const oldest of this.#all.keys()) {
      if (this.#all.size <= MOST && this.#keys <= MOST_KEYS) break
      this.#forget(oldest)
    }
    return true
  }

  /** The oldest first. */
  all(): PastPlacement[] {
    return [...this.#all.values()].sort(([, , a], [, , b]) => a - b)
  }

  #forget(name: string): void {
    const known = this.#all.get(name)
    if (known === undefined) return
    this.#all.delete(name)
    this.#keys -= known[0].prefix.length
  }
}
