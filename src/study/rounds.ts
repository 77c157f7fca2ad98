/** What the effects of a run say of each round besides its outcome: the longest pause between two of its tokens, and how
 * many tokens were computed for it. */
import type { Effect, RequestId } from "../core/protocol.ts"

export interface RoundTrace {
  /** µs; -1 where all tokens came at once. */
  longestPauseUs: number
  /** In all batches: what was computed again and what was drafted count too. */
  computedTokens: number
}

export class Rounds {
  #lastTokenUs = new Map<RequestId, number>()
  #traces = new Map<RequestId, RoundTrace>()

  effect(effect: Effect, nowUs: number): void {
    if (effect.type === "token") {
      const before = this.#lastTokenUs.get(effect.id)
      this.#lastTokenUs.set(effect.id, nowUs)
      if (before === undefined) return
      const trace = this.#trace(effect.id)
      trace.longestPauseUs = Math.max(trace.longestPauseUs, nowUs - before)
    } else if (effect.type === "run") {
      for (const { id, tokens, draft } of effect.batch.items) this.#trace(id).computedTokens += tokens + draft
    }
  }

  /** Of a round that has ended; forgets it. */
  take(id: RequestId): RoundTrace {
    const trace = this.#trace(id)
    this.#traces.delete(id)
    this.#lastTokenUs.delete(id)
    return trace
  }

  #trace(id: RequestId): RoundTrace {
    let trace = this.#traces.get(id)
    if (trace === undefined) this.#traces.set(id, (trace = { longestPauseUs: -1, computedTokens: 0 }))
    return trace
  }
}
