/** Sessions with a round that missed: as a whole they cannot attain any more. Bounded, since nothing says when a
 * session is over. */

import type { FinishReason, Outcome, RequestSpec } from "../protocol.ts"

const MOST = 10_000

export class MissedSessions {
  /** Latest last. */
  #sessions = new Set<number>()

  has(session: number): boolean {
    return this.#sessions.has(session)
  }

  /** A round ended. What the client gave up, or asked no objective for, says nothing of the rounds that follow. */
  ended({ session, tier }: RequestSpec, reason: FinishReason, { attained }: Outcome): void {
    if (session >= 0 && tier === "slo" && reason !== "cancelled" && !attained) this.note(session)
  }

  note(session: number): void {
    this.#sessions.delete(session)
    this.#sessions.add(session)
    if (this.#sessions.size <= MOST) return
    for (const oldest of this.#sessions) return void this.#sessions.delete(oldest)
  }
}
