/** The tokens of an answer that its grammar has to be told: all of them, or where it has zones (zones.ts) those alone after
 * which it may be at another place than before. */
import type { Tokenizer } from "../port.ts"
import type { OpenRequest } from "../request-table.ts"
import { isCalm, moved, type Place, startOf, type Zones } from "./zones.ts"

export class AnswerPath {
  readonly request: OpenRequest
  readonly #zones: Zones | null
  readonly #tokenizer: Pick<Tokenizer, "bytes">
  readonly #told: number[] = []
  /** Tokens that were read for zones. */
  #read: number
  #place: Place

  constructor(request: OpenRequest, zones: Zones | null, tokenizer: Pick<Tokenizer, "bytes">) {
    this.request = request
    this.#zones = zones
    this.#tokenizer = tokenizer
    this.#read = request.promptTokens
    this.#place = zones === null ? { zone: 0, tail: "" } : startOf(zones)
  }

  /** At most so many of them, after the first `seen`. */
  after(seen: number, most: number): number[] {
    const { tokens, promptTokens, known } = this.request
    if (this.#zones === null) {
      const from = promptTokens + seen
      return [...tokens.subarray(from, Math.min(known, from + most))]
    }
    this.#readOn(this.#zones)
    return this.#told.slice(seen, seen + most)
  }

  /** The zone in which the grammar stands still, after these tokens as well and after each of them; null: it has to be asked. */
  calmOver(draft: readonly number[]): number | null {
    if (this.#zones === null) return null
    this.#readOn(this.#zones)
    let place = this.#place
    for (const token of draft) {
      if (!isCalm(this.#zones, place)) return null
      place = moved(this.#zones, place, this.#bytes(token))
    }
    const { zone } = this.#place
    return isCalm(this.#zones, place) && place.zone === zone ? zone : null
  }

  #readOn(zones: Zones): void {
    const { tokens, known } = this.request
    for (; this.#read < known; this.#read++) {
      const token = tokens[this.#read]!
      const bytes = this.#bytes(token)
      const place = moved(zones, this.#place, bytes)
      const still = isCalm(zones, this.#place) && isCalm(zones, place) && place.zone === this.#place.zone
      this.#place = place
      // What is no text stands in no grammar.
      if (!still && bytes !== "") this.#told.push(token)
    }
  }

  #bytes(token: number): string {
    return Buffer.from(this.#tokenizer.bytes(token)).toString("latin1")
  }
}
