/** What may come where free text is calm (zones.ts): asked once of each grammar and zone, and known from then on. */
import { allows } from "./mask.ts"
import { type Zones, zonesOf } from "./zones.ts"

interface Known {
  zones: Zones
  masks: (Int32Array | undefined)[]
}

export class StillMasks {
  readonly #known = new Map<string, Known>()

  /** Of a grammar; null: all of it is held. */
  zonesOf(grammar: string): Zones | null {
    let known = this.#known.get(grammar)
    if (known === undefined) {
      const zones = zonesOf(grammar)
      if (zones === null) return null
      known = { zones, masks: [] }
      this.#known.set(grammar, known)
    }
    return known.zones
  }

  /** What may come in a zone. `zone`: null where it is not calm. */
  learn(grammar: string, zone: number | null, mask: Int32Array): void {
    const known = this.#known.get(grammar)
    if (known !== undefined && zone !== null) known.masks[zone] ??= mask.slice()
  }

  /** Masks before each of these tokens and after the last, as far as they may come; null: the grammar has to be asked. */
  over(grammar: string, zone: number | null, draft: readonly number[]): Int32Array[] | null {
    const mask = zone === null ? undefined : this.#known.get(grammar)?.masks[zone]
    if (mask === undefined) return null
    const refused = draft.findIndex((token) => !allows(mask, token))
    return Array.from({ length: 1 + (refused < 0 ? draft.length : refused) }, () => mask)
  }

  forget(grammar: string): void {
    this.#known.delete(grammar)
  }
}
