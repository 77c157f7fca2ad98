/** What each tenant was served, since the start. Tenants that only a header names have figures of their own while they are
 * few: metrics with ever new names would grow for ever where they are stored. */
import type { Outcome } from "../core/protocol.ts"

export class TenantFigures {
  /** Prompt tokens that were computed for it, of requests that had a first token. */
  promptTokens = 0
  outputTokens = 0
  /** Ended requests of the SLO tier. */
  kept = 0
  missed = 0
  /** Ended requests that asked for best effort. */
  bestEffort = 0
  /** Answers that were refused for a full queue. */
  refused = 0
  /** Requests that were refused for the limits of their keys. */
  limited = 0

  /** A request ended; `reason` as in the core's effect `finished`. */
  ended(reason: string, outcome: Outcome): void {
    if (outcome.firstTokenUs >= 0) this.promptTokens += outcome.promptTokens - outcome.cachedTokens
    if (reason !== "stop" && reason !== "length") return
    if (outcome.tier === "bestEffort") this.bestEffort++
    else if (outcome.attained) this.kept++
    else this.missed++
  }
}

export interface FiguresOptions {
  /** Names that always have figures of their own. */
  names: readonly string[]
  /** Most others that have. */
  mostOthers: number
  /** The name of the rest. */
  rest: string
}

export class FiguresByTenant {
  readonly #byName = new Map<string, TenantFigures>()
  readonly #most: number
  readonly #rest: string

  constructor({ names, mostOthers, rest }: FiguresOptions) {
    for (const name of names) this.#byName.set(name, new TenantFigures())
    this.#most = this.#byName.size + mostOthers
    this.#rest = rest
  }

  of(name: string): TenantFigures {
    return this.#byName.get(name) ?? this.#new(this.shownAs(name))
  }

  /** The name that its figures are shown by. */
  shownAs(name: string): string {
    const own = this.#byName.has(name) || (name !== this.#rest && this.#byName.size < this.#most)
    return own ? name : this.#rest
  }

  get all(): ReadonlyMap<string, TenantFigures> {
    return this.#byName
  }

  #new(name: string): TenantFigures {
    const figures = this.#byName.get(name) ?? new TenantFigures()
    this.#byName.set(name, figures)
    return figures
  }
}
