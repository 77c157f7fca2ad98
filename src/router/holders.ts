/** What was sent to replicas of one prefix: by replica, and in an order that can be drawn from. */

/** What was sent to a replica at one time, and what its KV was then. */
export interface Sent {
  readonly replica: number
  /** Of the replica then: after a restart it has other KV. */
  readonly life: number
  readonly promptTokens: number
  readonly evictedTokens: number
  /** In its KV before, live or cached: all of that may end sooner, and goes first. */
  readonly usedTokens: number
}

export class Holders {
  #all: Sent[] = []
  #places = new Map<number, number>()

  get size(): number {
    return this.#all.length
  }
  /** In no order that means anything. */
  at(place: number): Sent {
    return this.#all[place]!
  }
  of(replica: number): Sent | undefined {
    const place = this.#places.get(replica)
    return place === undefined ? undefined : this.#all[place]
  }

  set(sent: Sent): void {
    const place = this.#places.get(sent.replica) ?? this.#all.length
    this.#all[place] = sent
    this.#places.set(sent.replica, place)
  }

  delete(replica: number): void {
    const place = this.#places.get(replica)
    if (place === undefined) return
    const last = this.#all.pop()!
    this.#places.delete(replica)
    if (last.replica === replica) return
    this.#all[place] = last
    this.#places.set(last.replica, place)
  }
}
