/** Which sessions come back: after the last round of one, its KV is of no use. Learnt per app and pace, since the round
 * that answers the user often has an SLO of its own. */
import type { RequestSpec } from "../protocol.ts"

/** Rounds of one kind: how many ended, and after how many of them the session came back. */
interface Kind {
  ended: number
  returned: number
}

/** Believed before any was seen: so many rounds, all of them followed. */
const PRIOR_ROUNDS = 4
/** Counts are halved at so many. */
const MEMORY = 200
/** Below this share a session is not waited for. */
const LEAST_SHARE = 0.2
/** Sessions whose return is noticed; the oldest are forgotten. */
const MOST_AWAY = 10_000
/** Clients choose their paces: past so many kinds it starts afresh. */
const MOST_KINDS = 1000

export class Returns {
  #kinds = new Map<string, Kind>()
  /** Latest last. */
  #away = new Map<number, Kind>()

  /** A round ended. Answers whether its session is likely to come back. */
  ended({ app, session, slo }: RequestSpec): boolean {
    if (session < 0) return true
    const name = `${app} ${slo.tpotUs}`
    const kind = this.#kinds.get(name) ?? this.#newKind(name)
    // Of the choices of one round only the first to end counts: the session comes back once.
    const again = this.#away.delete(session)
    if (!again && ++kind.ended > MEMORY) {
      kind.ended /= 2
      kind.returned /= 2
    }
    this.#away.set(session, kind)
    if (this.#away.size > MOST_AWAY) this.#away.delete(this.#away.keys().next().value!)
    return kind.returned >= LEAST_SHARE * kind.ended
  }

  /** A round of `session` arrived. */
  arrived(session: number): void {
    const kind = this.#away.get(session)
    if (kind === undefined) return
    kind.returned++
    this.#away.delete(session)
  }

  #newKind(name: string): Kind {
    if (this.#kinds.size >= MOST_KINDS) this.#kinds.clear()
    const kind = { ended: PRIOR_ROUNDS, returned: PRIOR_ROUNDS }
    this.#kinds.set(name, kind)
    return kind
  }
}
