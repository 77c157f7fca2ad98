/** Stop strings in a stream of text pieces: the text before the first one to be complete, whatever the pieces. */
import { heldBack } from "./holdback.ts"

export class StopStrings {
  readonly #stops: readonly string[]
  #held = ""
  /** The stop string that ended the text, or null. */
  matched: string | null = null

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "")
  }

  /** Text that is certain not to belong to a stop string. "" after a match. */
  push(piece: string): string {
    if (this.#stops.length === 0) return piece
    if (this.matched !== null) return ""
    const text = this.#held + piece
    const cut = this.#find(text)
    if (cut >= 0) {
      this.#held = ""
      return text.slice(0, cut)
    }
    const held = heldBack(text, this.#stops)
    this.#held = text.slice(text.length - held)
    return text.slice(0, text.length - held)
  }

  /** What was held back, once it is known that nothing follows. */
  flush(): string {
    const text = this.#held
    this.#held = ""
    return text
  }

  /** Where the match that is complete first begins; of two that end together, the longer. */
  #find(text: string): number {
    let bestEnd = Number.POSITIVE_INFINITY
    let bestStart = -1
    for (const stop of this.#stops) {
      const start = text.indexOf(stop)
      if (start < 0) continue
      const end = start + stop.length
      if (end > bestEnd || (end === bestEnd && start >= bestStart)) continue
      bestEnd = end
      bestStart = start
      this.matched = stop
    }
    return bestStart
  }
}
