/** How many tokens were computed for each round, in all its batches: what was computed again and what was drafted count
 * too. */
import type { Effect, RequestId } from "../core/protocol.ts"

export class ComputedTokens {
  #tokens = new Map<RequestId, number>()

  effect(effect: Effect): void {
    if (effect.type !== "run") return
    for (const { id, tokens, draft } of effect.batch.items)
      this.#tokens.set(id, (this.#tokens.get(id) ?? 0) + tokens + draft)
  }

  /** Of a round that has ended; forgets it. */
  take(id: RequestId): number {
    const tokens = this.#tokens.get(id) ?? 0
    this.#tokens.delete(id)
    return tokens
  }
}
