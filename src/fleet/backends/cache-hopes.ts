/** How much of a prompt an engine is likely to have in its cache: learnt per SLO class, and per session from its last round. */

/** Of a new observation against older ones. */
const WEIGHT = 0.1
const MOST_SESSIONS = 10_000

export class CacheHopes {
  /** Share of a prompt that was cached, by class; and of what a session's last round left. */
  readonly #byApp = new Map<number, number>()
  #ofLastRound = 1
  /** Prompt and answer of the last round, tokens. The oldest are forgotten. */
  readonly #sessions = new Map<string, number>()

  /** Tokens of a prompt that need not be computed, as far as one can hope. */
  tokens(app: number, session: string | null, promptTokens: number): number {
    const last = session === null ? undefined : this.#sessions.get(session)
    const hoped =
      last === undefined
        ? promptTokens * (this.#byApp.get(app) ?? 0)
        : Math.min(promptTokens, last) * this.#ofLastRound
    return Math.min(promptTokens - 1, Math.floor(hoped))
  }

  /** The engine said how much it had; `outputTokens`: of the answer. */
  saw(app: number, session: string | null, seen: { prompt: number; cached: number; output: number }): void {
    const { prompt, cached, output } = seen
    const last = session === null ? undefined : this.#sessions.get(session)
    if (last === undefined) {
      const before = this.#byApp.get(app) ?? 0
      this.#byApp.set(app, before + WEIGHT * (cached / Math.max(1, prompt) - before))
    } else {
      const share = Math.min(1, cached / Math.max(1, Math.min(prompt, last)))
      this.#ofLastRound += WEIGHT * (share - this.#ofLastRound)
    }
    if (session === null) return
    this.#sessions.delete(session)
    this.#sessions.set(session, prompt + output)
    if (this.#sessions.size <= MOST_SESSIONS) return
    for (const oldest of this.#sessions.keys()) {
      this.#sessions.delete(oldest)
      return
    }
  }
}
