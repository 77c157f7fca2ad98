/** The KV of one engine that goes by the plan, counted apart from the core where no prefix is shared: what a batch computes is
 * there until a later batch drops it, or until its request has ended and no batch in flight carries it. */
import { assert } from "../core/assert.ts"
import type { Batch, EngineLimits, RequestId, StepResult } from "../core/protocol.ts"

/** What a request has in place, and the room that was taken for it, in tokens. */
interface Held {
  computed: number
  room: number
}

export class KvAudit {
  readonly #limits: EngineLimits
  readonly #held = new Map<RequestId, Held>()
  readonly #flying: Batch[] = []
  /** Ended while a batch carried them. */
  readonly #leaving = new Set<RequestId>()

  constructor(limits: EngineLimits) {
    this.#limits = limits
  }

  runs(batch: Batch): void {
    for (const id of batch.evict) this.#held.delete(id)
    for (const { id, position, tokens, draft } of batch.items) {
      const before = position === 0 ? undefined : this.#held.get(id)
      this.#held.set(id, { computed: before?.computed ?? position, room: position + tokens + draft })
    }
    this.#flying.push(batch)
    const { kvTokens, blockTokens } = this.#limits
    let blocks = 0
    for (const { room } of this.#held.values()) blocks += Math.ceil(room / blockTokens)
    assert(blocks * blockTokens <= kvTokens, `batch ${batch.number} takes KV that is not free yet`)
  }

  /** `results`: null where the step has failed. */
  lands(number: number, results: readonly StepResult[] | null): void {
    const batch = this.#flying.shift()
    assert(batch?.number === number, `batch ${number} lands out of turn`)
    if (results !== null) this.#compute(batch, results)
    for (const id of this.#leaving) {
      if (this.#carries(id)) continue
      this.#leaving.delete(id)
      this.#held.delete(id)
    }
  }

  ended(id: RequestId): void {
    if (this.#carries(id)) this.#leaving.add(id)
    else this.#held.delete(id)
  }

  #compute({ items }: Batch, results: readonly StepResult[]): void {
    const tokensOf = new Map(results.map(({ id, tokens }) => [id, tokens]))
    for (const { id, position, tokens } of items) {
      const held = this.#held.get(id)
      // It has been dropped since.
      if (held === undefined) continue
      const accepted = Math.max(0, (tokensOf.get(id) ?? 0) - 1)
      held.computed = Math.min(held.computed, position) + tokens + accepted
      if (!this.#carries(id)) held.room = held.computed
    }
  }

  #carries(id: RequestId): boolean {
    return this.#flying.some(({ items }) => items.some((item) => item.id === id))
  }
}
