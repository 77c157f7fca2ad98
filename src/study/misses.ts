/** Notices that a request has missed as soon as that is certain, not when it ends: a run in overload has long been
 * decided when its last best-effort request ends. */
import type { Effect, Outcome, RequestId } from "../core/protocol.ts"

/** Which tokens must be in time: all, or as the paper checks, the first, every tenth and the last. */
export type Check = "everyToken" | "everyTenth"

export const keptBy = (check: Check, outcome: Pick<Outcome, "attained" | "attainedEvery10">): boolean =>
  check === "everyToken" ? outcome.attained : outcome.attainedEvery10

export interface Awaited {
  id: RequestId
  /** When its first token is due. */
  deadlineUs: number
}

export class Misses {
  #awaited: Awaited[]
  #check: Check
  #next = 0
  /** Tokens so far of each request that has begun. */
  #tokens = new Map<RequestId, number>()
  #missed = new Set<RequestId>()
  #watched: ReadonlySet<RequestId>

  /** Only these requests (first rounds) are watched. */
  constructor(awaited: readonly Awaited[], check: Check = "everyToken") {
    this.#awaited = [...awaited].sort((a, b) => a.deadlineUs - b.deadlineUs)
    this.#check = check
    this.#watched = new Set(awaited.map(({ id }) => id))
  }

  /** Requests that have certainly missed. */
  get count(): number {
    return this.#missed.size
  }

  effect(effect: Effect, nowUs: number): void {
    if (effect.type === "token" && this.#watched.has(effect.id)) this.#token(effect)
    else if (effect.type === "rejected" && this.#watched.has(effect.id)) this.#missed.add(effect.id)
    else if (effect.type === "finished" && this.#watched.has(effect.id)) {
      if (!keptBy(this.#check, effect.outcome)) this.#missed.add(effect.id)
    }
    for (; this.#next < this.#awaited.length; this.#next++) {
      const { id, deadlineUs } = this.#awaited[this.#next]!
      if (deadlineUs >= nowUs) return
      if (!this.#tokens.has(id)) this.#missed.add(id)
    }
  }

  #token({ id, count, lateUs }: Extract<Effect, { type: "token" }>): void {
    const before = this.#tokens.get(id) ?? 0
    this.#tokens.set(id, before + count)
    if (lateUs <= 0) return
    // The last of them is late, and those before it were due earlier: so all are.
    const tenth = Math.floor((before + count) / 10) > Math.floor(before / 10)
    if (this.#check === "everyToken" || before === 0 || tenth) this.#missed.add(id)
  }
}
