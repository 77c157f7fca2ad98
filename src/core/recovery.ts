/** After a failed step: the engine gets a moment, and what was aboard runs one by one, to find out whose fault it
 * was. */

import type { StepFailure } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

const BACKOFF_US = 10_000
/** The wait doubles so often at most. */
const MOST_DOUBLINGS = 6

export class Recovery {
  /** Nothing runs before this time, absolute µs. */
  pausedUntilUs = 0
  #suspects: LiveRequest[] = []
  #failuresInRow = 0

  stepDone(): void {
    this.#failuresInRow = 0
  }

  /** A step with `suspects` failed. */
  stepFailed(suspects: LiveRequest[], reason: StepFailure, nowUs: number): void {
    this.#suspects = suspects
    // Full KV heals by running less at once; an engine error may need a moment, ever longer.
    if (reason !== "engineError") return
    this.pausedUntilUs = nowUs + BACKOFF_US * 2 ** Math.min(MOST_DOUBLINGS, this.#failuresInRow++)
  }

  /** A request that has to run before all others. */
  runsFirst(request: LiveRequest): void {
    this.#suspects = [request, ...this.#suspects]
  }

  /** Some requests have to run alone, before all others. */
  get oneByOne(): boolean {
    return this.#suspects.length > 0
  }

  /** The request that has to run alone next, if any. */
  nextSuspect(): LiveRequest | undefined {
    for (;;) {
      const suspect = this.#suspects.shift()
      if (suspect === undefined || !suspect.gone) return suspect
    }
  }
}
