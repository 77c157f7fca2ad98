/** Grammars on hold, by tenant: of those in use, and of those that wait to be compiled, each keeps its share. Tenants' are
 * compiled in turns. */
import type { GrammarHolds, Sampling } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"
import { isCalling } from "../text/constraint/grammar.ts"
import { Lane } from "./lane.ts"
import type { TenantShares } from "./prompt-reader.ts"
import { SharedBound } from "./shared-bound.ts"

/** Different grammars at one time, for the first to come and for those below their share: in use, and not yet compiled.
 * The engine's own bounds (CONSTRAINT_LIMITS) are their sums. */
export const MOST_SCHEMAS = { held: [128, 32], waiting: [32, 8] } as const

/** What waits for its turn has a bound already, and is a schema and not one request's. */
const NO_BOUND = new SharedBound(Number.POSITIVE_INFINITY)
const NEVER = new AbortController().signal

export interface GrammarAnswer {
  sampling: Sampling
  strict: boolean
}

export class SchemaShares {
  readonly #holds: GrammarHolds
  readonly #held: SharedBound
  /** By tenant and grammar: requests that hold it. */
  readonly #holders = new Map<string, number>()
  readonly #waiting: SharedBound
  /** By tenant and grammar: ends when it is compiled, or is known not to be. */
  readonly #compiling = new Map<string, Promise<unknown>>()
  readonly #lane: Lane

  constructor(holds: GrammarHolds, { shareOf = () => 0, weightOf = () => 1 }: TenantShares = {}) {
    this.#holds = holds
    // Shares of one at least.
    const bound = ([free, kept]: readonly [number, number]) =>
      new SharedBound(free, kept, (tenant) => Math.ceil(kept * shareOf(tenant)) / kept)
    this.#held = bound(MOST_SCHEMAS.held)
    this.#waiting = bound(MOST_SCHEMAS.waiting)
    this.#lane = new Lane({ waiting: NO_BOUND, weightOf })
  }

  /** Of all answers of an exchange; the answer lets them go. Calls that may come need not be held, where they are not strict:
   * if they cannot be, they are read as the model writes them. */
  async holdAll(answers: readonly GrammarAnswer[], tenant: number): Promise<() => void> {
    const releases = new Map<string, () => void>()
    const release = () => {
      for (const one of releases.values()) one()
    }
    try {
      for (const answer of answers) {
        const { grammar } = answer.sampling
        if (grammar === null || releases.has(grammar)) continue
        const held = await this.hold(grammar, tenant).catch((error: unknown) => {
          if (answer.strict || !isCalling(grammar) || !(error instanceof UserError)) throw error
          return null
        })
        if (held !== null) releases.set(grammar, held)
        else answer.sampling = { ...answer.sampling, grammar: null }
      }
    } catch (error) {
      release()
      throw error
    }
    return release
  }

  /** As GrammarHolds.hold, for a tenant. Throws UserError where it has too many. */
  async hold(grammar: string, tenant: number): Promise<() => void> {
    const own = `${tenant} ${grammar}`
    const holders = this.#holders.get(own) ?? 0
    if (holders === 0 && !this.#held.take(1, tenant)) throw busy("too many different schemas are in use")
    this.#holders.set(own, holders + 1)
    try {
      const release = await this.#compiled(grammar, tenant, own)
      return () => {
        release()
        this.#left(own, tenant)
      }
    } catch (error) {
      this.#left(own, tenant)
      throw error
    }
  }

  #left(own: string, tenant: number): void {
    const holders = this.#holders.get(own)! - 1
    if (holders > 0) {
      this.#holders.set(own, holders)
      return
    }
    this.#holders.delete(own)
    this.#held.give(1, tenant)
  }

  async #compiled(grammar: string, tenant: number, own: string): Promise<() => void> {
    if (this.#holds.answersAtOnce(grammar)) return this.#holds.hold(grammar)
    const compiling = this.#compiling.get(own)
    if (compiling !== undefined) {
      await compiling.catch(() => {})
      return this.#holds.hold(grammar)
    }
    if (!this.#waiting.take(1, tenant)) throw busy("too many schemas wait to be compiled")
    try {
      const turn = this.#inTurn(grammar, tenant)
      this.#compiling.set(own, turn)
      return await turn
    } finally {
      this.#compiling.delete(own)
      this.#waiting.give(1, tenant)
    }
  }

  /** What a schema costs to compile does not show before: each is one piece of work. */
  #inTurn(grammar: string, tenant: number): Promise<() => void> {
    const work = () => this.#holds.hold(grammar)
    return this.#lane.run({ size: 1, tenant, signal: NEVER, work }) as Promise<() => void>
  }
}

function busy(why: string): Error {
  return userError("too_many_schemas", { why })
}
