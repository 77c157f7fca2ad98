/** One request's place in free text with held parts (zones.ts): as Follower, which follows the part that it is in. */
import { Follower } from "./follower.ts"
import type { FreeText } from "./free-text.ts"
import { allows } from "./mask.ts"
import { type Place, partOf, startOf } from "./zones.ts"

export class CallingFollower {
  readonly #text: FreeText
  #place: Place
  /** Of the held part that it is in; null: it is in free text. */
  #part: Follower | null = null

  constructor(text: FreeText) {
    this.#text = text
    this.#place = startOf(text.zones)
  }

  /** Tokens that may come next, a bit each. Not to be changed. */
  mask(): Promise<Int32Array> {
    return this.#part === null ? this.#text.mask(this.#place) : this.#part.mask()
  }

  /** Goes on by a token; false, and where it was, when it may not come. */
  async take(token: number): Promise<boolean> {
    if (this.#part === null) {
      if (!allows(await this.mask(), token)) return false
      this.#place = this.#text.after(this.#place, token)
      if (this.#place.zone < 0) this.#part = await this.#entered(this.#place)
    } else if (!(await this.#part.take(token))) return false
    const next = this.#part === null ? null : this.#nextAfter(await this.#part.mask())
    if (next !== null) {
      this.#part?.dispose()
      this.#part = null
      this.#place = next
    }
    return true
  }

  /** As Follower.ahead. */
  async ahead(tokens: readonly number[]): Promise<Int32Array[]> {
    return this.#part === null
      ? this.#aheadInText(this.#place, tokens)
      : this.#aheadInPart(this.#part, this.#place, tokens)
  }

  dispose(): void {
    this.#part?.dispose()
  }

  async #aheadInText(from: Place, tokens: readonly number[]): Promise<Int32Array[]> {
    const masks: Int32Array[] = []
    let place = from
    for (const [i, token] of tokens.entries()) {
      const mask = await this.#text.mask(place)
      masks.push(mask)
      if (!allows(mask, token)) return masks
      place = this.#text.after(place, token)
      if (place.zone >= 0) continue
      const part = await this.#entered(place)
      try {
        return [...masks, ...(await this.#aheadInPart(part, place, tokens.slice(i + 1)))]
      } finally {
        part.dispose()
      }
    }
    return [...masks, await this.#text.mask(place)]
  }

  async #aheadInPart(part: Follower, place: Place, tokens: readonly number[]): Promise<Int32Array[]> {
    const masks = await part.ahead(tokens)
    const end = masks.findIndex((mask) => this.#nextAfter(mask, place) !== null)
    if (end < 0) return masks
    const next = this.#nextAfter(masks[end]!, place)!
    return [...masks.slice(0, end), ...(await this.#aheadInText(next, tokens.slice(end)))]
  }

  #entered({ zone, tail }: Place): Promise<Follower> {
    return Follower.start(this.#text.course, { part: partOf(zone), text: tail })
  }

  /** Where the text goes on when a held part is over, as its mask says; null: it is not, or nothing follows it. */
  #nextAfter(mask: Int32Array, { zone }: Place = this.#place): Place | null {
    const to = this.#text.zones.parts[partOf(zone)] ?? null
    const [end] = this.#text.course.vocabulary.ends
    return to !== null && end !== undefined && allows(mask, end) ? { zone: to, tail: "" } : null
  }
}
