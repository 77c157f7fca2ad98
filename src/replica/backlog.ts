/** How long the planner will be busy with what it has undertaken, as it sees it: what comes now would wait so long at least. */
import type { Snapshot } from "../core/protocol.ts"

/** A snapshot counts all that is live: in a burst of refusals one serves many. */
const FRESH_MS = 50

export class Backlog {
  readonly #snapshot: () => Pick<Snapshot, "prefillBacklogTokens" | "prefillUsPerToken">
  readonly #nowMs: () => number
  #ms = 0
  #takenMs = Number.NEGATIVE_INFINITY

  constructor(
    snapshot: () => Pick<Snapshot, "prefillBacklogTokens" | "prefillUsPerToken">,
    nowMs = () => performance.now(),
  ) {
    this.#snapshot = snapshot
    this.#nowMs = nowMs
  }

  /** Time that the prompts with SLOs take that are owed, beside what decodes now, ms. */
  get ms(): number {
    const nowMs = this.#nowMs()
    if (nowMs - this.#takenMs < FRESH_MS) return this.#ms
    this.#takenMs = nowMs
    this.#ms = backlogMs(this.#snapshot())
    return this.#ms
  }
}

export function backlogMs({
  prefillBacklogTokens,
  prefillUsPerToken,
}: Pick<Snapshot, "prefillBacklogTokens" | "prefillUsPerToken">): number {
  return (prefillBacklogTokens * prefillUsPerToken) / 1000
}
