/** Grammars on hold, by tenant: of those in use, and of those that wait to be compiled, each keeps its share. */
import type { GrammarHolds } from "../engine/port.ts"
import { userError } from "../errors.ts"
import { SharedBound } from "./shared-bound.ts"

/** Different grammars at one time, for the first to come and for those below their share: in use, and not yet compiled.
 * The engine's own bounds (CONSTRAINT_LIMITS) are their sums. */
export const MOST_SCHEMAS = { held: [128, 32], waiting: [32, 8] } as const

/** Counts one key of a tenant once, however often it is taken. */
class SharedKeys {
  readonly #bound: SharedBound
  readonly #takers = new Map<string, number>()

  constructor([free, kept]: readonly [number, number], shareOf: (tenant: number) => number) {
    // One at least.
    this.#bound = new SharedBound(free, kept, (tenant) => Math.ceil(kept * shareOf(tenant)) / kept)
  }

  take(key: string, tenant: number): boolean {
    const own = `${tenant} ${key}`
    const takers = this.#takers.get(own) ?? 0
    if (takers === 0 && !this.#bound.take(1, tenant)) return false
    this.#takers.set(own, takers + 1)
    return true
  }

  give(key: string, tenant: number): void {
    const own = `${tenant} ${key}`
    const left = this.#takers.get(own)! - 1
    if (left > 0) {
      this.#takers.set(own, left)
      return
    }
    this.#takers.delete(own)
    this.#bound.give(1, tenant)
  }
}

export class SchemaShares {
  readonly #holds: GrammarHolds
  readonly #held: SharedKeys
  readonly #waiting: SharedKeys

  constructor(holds: GrammarHolds, shareOf: (tenant: number) => number) {
    this.#holds = holds
    this.#held = new SharedKeys(MOST_SCHEMAS.held, shareOf)
    this.#waiting = new SharedKeys(MOST_SCHEMAS.waiting, shareOf)
  }

  /** As GrammarHolds.hold, for a tenant. Throws UserError where it has too many. */
  async hold(grammar: string, tenant: number): Promise<() => void> {
    if (!this.#held.take(grammar, tenant)) throw busy("too many different schemas are in use")
    try {
      const release = await this.#compiled(grammar, tenant)
      return () => {
        release()
        this.#held.give(grammar, tenant)
      }
    } catch (error) {
      this.#held.give(grammar, tenant)
      throw error
    }
  }

  async #compiled(grammar: string, tenant: number): Promise<() => void> {
    if (!this.#waiting.take(grammar, tenant)) throw busy("too many schemas wait to be compiled")
    try {
      return await this.#holds.hold(grammar)
    } finally {
      this.#waiting.give(grammar, tenant)
    }
  }
}

function busy(why: string): Error {
  return userError("too_many_schemas", { why })
}
