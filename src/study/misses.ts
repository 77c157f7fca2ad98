/** Notices that a request has missed as soon as that is certain, not when it ends: a run in overload has long been
 * decided when its last best-effort request ends. */
import type { Effect, RequestId } from "../core/protocol.ts"

export interface Awaited {
  id: RequestId
  /** When its first token is due. */
  deadlineUs: number
}

export class Misses {
  #awaited: Awaited[]
  #next = 0
  #begun = new Set<RequestId>()
  #missed = new Set<RequestId>()
  #watched: ReadonlySet<RequestId>

  /** Only these requests (first rounds) are watched. */
  constructor(awaited: readonly Awaited[]) {
    this.#awaited = [...awaited].sort((a, b) => a.deadlineUs - b.deadlineUs)
    this.#watched = new Set(awaited.map(({ id }) => id))
  }

  /** Requests that have certainly missed. */
  get count(): number {
    return this.#missed.size
  }

  effect(effect: Effect, nowUs: number): void {
    if (effect.type === "token" && this.#watched.has(effect.id)) {
      this.#begun.add(effect.id)
      if (effect.lateUs > 0) this.#missed.add(effect.id)
    } else if (effect.type === "rejected" && this.#watched.has(effect.id)) this.#missed.add(effect.id)
    for (; this.#next < this.#awaited.length; this.#next++) {
      const { id, deadlineUs } = this.#awaited[this.#next]!
      if (deadlineUs >= nowUs) return
      if (!this.#begun.has(id)) this.#missed.add(id)
    }
  }
}
