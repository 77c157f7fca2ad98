/** Sessions with a round that missed: as a whole they cannot attain any more. Bounded, since nothing says when a
 * session is over. */

const MOST = 10_000

export class MissedSessions {
  /** Latest last. */
  #sessions = new Set<number>()

  has(session: number): boolean {
    return this.#sessions.has(session)
  }

  note(session: number): void {
    this.#sessions.delete(session)
    this.#sessions.add(session)
    if (this.#sessions.size <= MOST) return
    for (const oldest of this.#sessions) return void this.#sessions.delete(oldest)
  }
}
