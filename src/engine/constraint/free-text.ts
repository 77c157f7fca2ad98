/** What may be said in free text (zones.ts): every token, but for those that run over a mark into what its part does not allow. */
import type { Course } from "./branch.ts"
import { beginsWith } from "./branch.ts"
import { tokenBytes, type Vocabulary, vocabularySize } from "./vocabulary.ts"
import { moved, type Place, partOf, type Zones } from "./zones.ts"

/** Places of which masks are kept: most answers pass through the same few. */
const MOST_PLACES = 256

/** Tokens by the bytes in them, of one vocabulary. */
export class Spellings {
  readonly vocabulary: Vocabulary
  readonly #texts: (string | undefined)[] = []
  readonly #over = new Map<string, readonly number[]>()

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary
  }

  /** A byte a character. */
  of(token: number): string {
    return (this.#texts[token] ??= Buffer.from(tokenBytes(this.vocabulary, token)).toString("latin1"))
  }

  /** Tokens that go on after a byte. */
  over(byte: string): readonly number[] {
    let found = this.#over.get(byte) as number[] | undefined
    if (found === undefined) {
      const { bytes, starts } = this.vocabulary
      const code = byte.charCodeAt(0)
      found = []
      // Of each token the first one counts; one that lies beyond it is looked for once.
      for (let token = 0, at = 0; token < vocabularySize(this.vocabulary) && at >= 0; token++) {
        if (at <= starts[token]!) at = bytes.indexOf(code, starts[token])
        if (at >= 0 && at < starts[token + 1]! - 1) found.push(token)
        if (at >= 0 && at < starts[token + 1]!) at = starts[token + 1]!
      }
      this.#over.set(byte, found)
    }
    return found
  }
}

export class FreeText {
  readonly zones: Zones
  readonly course: Course
  readonly #spellings: Spellings
  readonly #masks = new Map<string, Int32Array>()
  /** Bytes that marks end with. */
  readonly #last: readonly string[]

  constructor(zones: Zones, course: Course, spellings: Spellings) {
    this.zones = zones
    this.course = course
    this.#spellings = spellings
    const marks = zones.zones.flatMap(({ until, lead }) => [
      ...until.map(([mark]) => mark),
      ...(lead === undefined || lead.calls.length === 0 ? [] : ['"']),
    ])
    this.#last = [...new Set(marks.map((mark) => mark.at(-1)!))]
    // Looked for now: a step does not wait for it.
    for (const byte of this.#last) spellings.over(byte)
  }

  after(place: Place, token: number): Place {
    return moved(this.zones, place, this.#spellings.of(token))
  }

  async mask(place: Place): Promise<Int32Array> {
    const key = `${place.zone} ${place.tail}`
    const known = this.#masks.get(key)
    if (known !== undefined) return known
    const size = vocabularySize(this.#spellings.vocabulary)
    const mask = new Int32Array(Math.ceil(size / 32)).fill(-1)
    if (size % 32 !== 0) mask[mask.length - 1] = (1 << (size % 32)) - 1
    for (const byte of this.#last)
      for (const token of this.#spellings.over(byte))
        if (!(await this.#mayCome(place, token))) mask[token >> 5]! &= ~(1 << (token & 31))
    if (this.#masks.size >= MOST_PLACES) this.#masks.clear()
    this.#masks.set(key, mask)
    return mask
  }

  async #mayCome(place: Place, token: number): Promise<boolean> {
    const { zone, tail } = this.after(place, token)
    return zone >= 0 || tail === "" || beginsWith(this.course, partOf(zone), tail)
  }
}
