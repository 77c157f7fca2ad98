/** Requests of others at an engine, as its /metrics tell of them: how many, and about how long their contexts are. */
import type { Prompt, Stream } from "./engine-run.ts"
import { USUAL_TOKENS, unseenPrompt } from "./sent.ts"
import type { EngineLoad } from "./twin-words.ts"

/** Of all that the engine has, what the twin knows by itself. */
export interface Known {
  inFlight: number
  /** In batches. */
  started: number
  heldTokens: number
}

export class Others {
  running = 0
  waiting = 0
  /** Of all that the engine has; null: it does not say. */
  kvUsedTokens: number | null = null
  #contextTokens = USUAL_TOKENS
  #seenUs = 0

  /** More than is known is others'. */
  seen({ running, waiting, kvUsedTokens }: EngineLoad, known: Known, nowUs: number): void {
    const all = Math.max(0, running + waiting - known.inFlight)
    this.running = Math.min(all, Math.max(0, running - known.started))
    this.waiting = all - this.running
    this.kvUsedTokens = kvUsedTokens ?? null
    const theirs = (kvUsedTokens ?? 0) - known.heldTokens
    this.#contextTokens = this.running > 0 && theirs > 0 ? theirs / this.running : USUAL_TOKENS
    this.#seenUs = nowUs
  }

  /** Those that wait, with ids from `firstId` down. */
  prompts(firstId: number): Prompt[] {
    return Array.from({ length: this.waiting }, (_, i) => unseenPrompt(firstId - i, this.#seenUs))
  }

  streams(): Stream[] {
    const stream = {
      contextTokens: this.#contextTokens,
      remaining: Infinity,
      dueUs: Infinity,
      tpotUs: Infinity,
    }
    return Array.from({ length: this.running }, () => ({ ...stream }))
  }
}
