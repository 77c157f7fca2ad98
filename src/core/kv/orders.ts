/** What the engine is to drop, forget and trim with the next batch. */
import type { KvTrim, RequestId } from "../protocol.ts"

export class KvOrders {
  /** Ended requests, or those that must be forgotten. */
  #released: RequestId[] = []
  /** Ended requests that gave up blocks, and how many tokens each still holds. */
  #trimmed = new Map<RequestId, number>()
  /** Live requests that lost their KV, and how many blocks become free when the engine hears of it. */
  #dropped = new Map<RequestId, number>()
  /** Of those that lost it since the last batch: those that start afresh in the next one. */
  #restarted = new Map<RequestId, number>()

  drop(id: RequestId, blocks = 0): void {
    this.#dropped.set(id, blocks)
  }
  /** Blocks that the engine does not count as free yet: it has not heard of what is to go. */
  get pendingBlocks(): number {
    let blocks = 0
    for (const count of this.#dropped.values()) blocks += count
    for (const count of this.#restarted.values()) blocks += count
    return blocks
  }
  /** It starts afresh. */
  restart(id: RequestId): void {
    const blocks = this.#dropped.get(id)
    if (blocks === undefined) return
    this.#dropped.delete(id)
    this.#restarted.set(id, blocks)
  }
  /** It does not, after all. */
  dontRestart(id: RequestId): void {
    const blocks = this.#restarted.get(id)
    if (blocks === undefined) return
    this.#restarted.delete(id)
    this.#dropped.set(id, blocks)
  }
  /** So many blocks of it are not there to be freed. */
  freesLess(id: RequestId, blocks: number): void {
    for (const orders of [this.#dropped, this.#restarted]) {
      const had = orders.get(id)
      if (had !== undefined) orders.set(id, Math.max(0, had - blocks))
    }
  }
  /** It has nothing that the engine knows of, or keeps what it has. */
  dontDrop(id: RequestId): void {
    this.#dropped.delete(id)
    this.#restarted.delete(id)
  }
  release(id: RequestId): void {
    this.#released.push(id)
  }
  trim(id: RequestId, tokens: number): void {
    this.#trimmed.set(id, tokens)
  }
  dontTrim(id: RequestId): void {
    this.#trimmed.delete(id)
  }
  /** It is live again: answers whether it was to be forgotten. */
  dontRelease(id: RequestId): boolean {
    const at = this.#released.indexOf(id)
    if (at >= 0) this.#released.splice(at, 1)
    return at >= 0
  }

  /** Live ids whose KV the engine must drop with the next batch, and how many blocks become free by that. `all`: also of those that
   * start afresh in it, which an engine that owns its KV cannot tell from those that go on from about there. */
  takeDropped(all = false): Map<RequestId, number> {
    if (this.#dropped.size + this.#restarted.size === 0) return new Map()
    const dropped = new Map([...this.#dropped, ...(all ? this.#restarted : [])])
    this.#dropped.clear()
    this.#restarted.clear()
    return dropped
  }

  /** Ids whose KV and tokens the engine must forget with the next batch. */
  takeReleased(): RequestId[] {
    if (this.#released.length === 0) return []
    const released = this.#released
    this.#released = []
    return released
  }

  /** Ended requests of which the engine must keep only the first tokens from the next batch on. */
  takeTrimmed(): KvTrim[] {
    if (this.#trimmed.size === 0) return []
    const trimmed = Array.from(this.#trimmed, ([id, tokens]) => ({ id, tokens }))
    this.#trimmed.clear()
    return trimmed
  }
}
