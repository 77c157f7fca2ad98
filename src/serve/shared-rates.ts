/** Rates of API keys that several processes serve together: their parent counts, so that a key has as much of all of them as it would
 * of one. Gateways on several machines tell each other what was taken: what they take in the same few milliseconds may be too much. */
import { z } from "zod"
import type { Hub } from "../siblings/hub.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { CountedKey, CountRates } from "./key-ring.ts"
import { type RateCounter, RateWindow, renewedWindow } from "./rate-window.ts"

interface Taking extends CountedKey {
  count: number
  limit: number
}

interface Adding extends CountedKey {
  count: number
  slot: number
}

/** After it was taken, or not. */
interface Taken {
  slot: number | null
  used: number
  /** Until so much is free, ms, and until all is. */
  waitMs: number
  resetMs: number
}

const [TAKE, ADD, TAKEN, ALL] = ["rates: take", "rates: add", "rates: taken", "rates: all"]

/** At another gateway: so many, so many slots ago. */
const takenElsewhere = z.object({
  ...{ key: z.string().max(1000), what: z.enum(["requests", "tokens"]) },
  ...{ count: z.number(), limit: z.number().positive(), slots: z.number().int().nonnegative() },
})
type TakenElsewhere = z.output<typeof takenElsewhere>

/** All that counts at another gateway, whichever took it: of slots ago, how many. */
const allElsewhere = z.object({
  ...{ key: z.string().max(1000), what: z.enum(["requests", "tokens"]), limit: z.number().positive() },
  taken: z.array(z.tuple([z.number().int().nonnegative(), z.number().positive()])).max(1000),
})
type AllElsewhere = z.output<typeof allElsewhere>

class SharedWindow implements RateCounter {
  readonly limit: number
  readonly #of: CountedKey
  readonly #siblings: Siblings
  #taken: Taken = { slot: null, used: 0, waitMs: 0, resetMs: 0 }

  constructor(siblings: Siblings, of: CountedKey, limit: number) {
    this.#siblings = siblings
    this.#of = of
    this.limit = limit
  }

  async take(count: number): Promise<number | null> {
    const { limit } = this
    this.#taken = await this.#siblings.ask<Taken>(TAKE, { ...this.#of, count, limit } satisfies Taking)
    return this.#taken.slot
  }

  add(count: number, slot: number): void {
    const adding: Adding = { ...this.#of, count, slot }
    // Where the parent does not hear of it, more counts than was used: for a minute.
    this.#siblings.ask(ADD, adding).catch(() => {})
  }

  /** As the last request found it. */
  used(): number {
    return this.#taken.used
  }

  /** Of what was asked for last, or of all. */
  waitMs(count: number): number {
    return count === this.limit ? this.#taken.resetMs : this.#taken.waitMs
  }
}

export function countTogether(siblings: Siblings): CountRates {
  return (of, limit) => new SharedWindow(siblings, of, limit)
}

/** The parent's side. */
export function answerRates(hub: Hub): void {
  const windows = new Map<string, RateWindow>()
  const names = new Map<string, CountedKey>()
  const nameOf = ({ what, key }: CountedKey) => `${what} ${key}`
  const say = ({ key, what }: CountedKey, count: number, { limit }: RateWindow, slots: number) => {
    if (count !== 0) hub.elsewhere?.say(TAKEN, { key, what, count, limit, slots } satisfies TakenElsewhere)
  }
  hub.answers(TAKE, (asked: Taking): Taken => {
    const window = renewedWindow(asked.limit, windows.get(nameOf(asked)))
    windows.set(nameOf(asked), window)
    names.set(nameOf(asked), { key: asked.key, what: asked.what })
    const nowMs = performance.now()
    const slot = window.take(asked.count, nowMs)
    if (slot !== null) say(asked, asked.count, window, 0)
    return {
      ...{ slot, used: window.used(nowMs), waitMs: window.waitMs(asked.count, nowMs) },
      resetMs: window.waitMs(window.limit, nowMs),
    }
  })
  hub.answers(ADD, (asked: Adding) => {
    const window = windows.get(nameOf(asked))
    if (window === undefined) return
    window.add(asked.count, asked.slot)
    say(asked, asked.count, window, window.slotsSince(asked.slot, performance.now()))
  })
  const windowOf = ({ key, what, limit }: CountedKey & { limit: number }) => {
    const name = nameOf({ key, what })
    const window = windows.get(name) ?? new RateWindow(limit)
    windows.set(name, window)
    names.set(name, { key, what })
    return window
  }
  hub.onSaid(TAKEN, (word) => {
    const said = takenElsewhere.parse(word)
    windowOf(said).addSince(said.count, said.slots, performance.now())
  })
  // One that was not here when it was taken would let a key have it again.
  hub.saysFirst(ALL, () => {
    const nowMs = performance.now()
    return [...windows]
      .map(
        ([name, window]): AllElsewhere => ({
          ...names.get(name)!,
          limit: window.limit,
          taken: window.taken(nowMs),
        }),
      )
      .filter(({ taken }) => taken.length > 0)
  })
  hub.onSaid(ALL, (word) => {
    const said = allElsewhere.parse(word)
    windowOf(said).atLeast(said.taken, performance.now())
  })
}
