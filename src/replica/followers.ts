/** Requests that wait for another's first token: they arrive at the core when its prompt is in place, or never will be. */
import type { RequestId } from "../core/protocol.ts"

export class Followers {
  readonly #of = new Map<RequestId, RequestId[]>()

  /** All that wait. */
  get count(): number {
    let count = 0
    for (const { length } of this.#of.values()) count += length
    return count
  }

  add(leader: RequestId, id: RequestId): void {
    this.#of.set(leader, [...(this.#of.get(leader) ?? []), id])
  }

  has(leader: RequestId | undefined, id: RequestId): boolean {
    return leader !== undefined && this.#of.get(leader)?.includes(id) === true
  }

  /** It waits no more; false when it did not. */
  remove(leader: RequestId | undefined, id: RequestId): boolean {
    if (leader === undefined || !this.has(leader, id)) return false
    this.#of.set(
      leader,
      this.#of.get(leader)!.filter((other) => other !== id),
    )
    return true
  }

  /** Those of `leader`: they wait no more. */
  take(leader: RequestId): readonly RequestId[] {
    const followers = this.#of.get(leader) ?? []
    this.#of.delete(leader)
    return followers
  }
}
