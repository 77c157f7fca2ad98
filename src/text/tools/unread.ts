/** A text that is still being written, for readers that are generators: they yield where they need more of it, and go on
 * there when it has come. So however a text is cut into pieces, it is read the same. */
import { heldBack } from "../holdback.ts"

/** A reader, or a part of one, with what it answers. */
export type Reading<T = void> = Generator<undefined, T, undefined>

/** `cut`: the text ended before it was known. */
export type Taken = "yes" | "no" | "cut"

export class Unread {
  #text = ""
  #at = 0
  /** From here on the text is kept, to go back to. */
  #kept: number | null = null
  /** No more comes. */
  ended = false
  /** It was broken off: what may be the beginning of a mark is none of the text. */
  brokenOff = false

  push(piece: string): void {
    const from = this.#kept ?? this.#at
    this.#text = this.#text.slice(from) + piece
    this.#at -= from
    if (this.#kept !== null) this.#kept = 0
  }

  /** The next character, as far as it has come; null: it has not. */
  get here(): string | null {
    return this.#at < this.#text.length ? this.#text[this.#at]! : null
  }

  skip(count = 1): void {
    this.#at += count
  }

  /** Keeps what follows: it may have to be read again. */
  keep(): void {
    this.#kept = this.#at
  }

  /** Back to where it was kept from. */
  back(): void {
    this.#at = this.#kept ?? this.#at
    this.#kept = null
  }

  /** What was taken since. */
  get kept(): string {
    return this.#text.slice(this.#kept ?? this.#at, this.#at)
  }

  forget(): void {
    this.#kept = null
  }

  /** The next character, which is not taken; null at the end of the text. */
  *peek(): Reading<string | null> {
    while (this.here === null) {
      if (this.ended) return null
      yield
    }
    return this.here
  }

  /** Takes a word that comes next; nothing of any other text. What is left of the text when it is cut is taken, too. */
  *takes(word: string): Reading<Taken> {
    for (;;) {
      const rest = this.#text.slice(this.#at, this.#at + word.length)
      if (rest === word) {
        this.skip(word.length)
        return "yes"
      }
      if (!word.startsWith(rest)) return "no"
      if (this.ended) {
        if (rest === "") return "cut"
        this.skip(rest.length)
        return "cut"
      }
      yield
    }
  }

  /** White space as JSON has it. */
  *space(): Reading {
    for (let c = yield* this.peek(); c !== null && " \t\n\r".includes(c); c = yield* this.peek()) this.skip()
  }

  /** Gives out the text before the first of some words and takes that word; null: the text ended without. Of a text that was
   * broken off so many characters of a word's beginning, or more, are not given out. */
  *until(
    words: readonly string[],
    tell: (text: string) => void,
    leastMark = LEAST_MARK,
  ): Reading<string | null> {
    for (;;) {
      const rest = this.#text.slice(this.#at)
      const found = first(rest, words)
      const end = found?.at ?? rest.length - this.#held(rest, words, leastMark)
      if (end > 0) tell(rest.slice(0, end))
      this.skip(end)
      if (found !== null) {
        this.skip(found.word.length)
        return found.word
      }
      if (this.ended) {
        this.skip(rest.length - end)
        return null
      }
      yield
    }
  }

  #held(rest: string, words: readonly string[], leastMark: number): number {
    const held = heldBack(rest, words)
    return !this.ended || (this.brokenOff && held >= leastMark) ? held : 0
  }
}

/** One character alone is hardly a mark that was broken off. */
const LEAST_MARK = 2

/** The word that comes first; of two at one place the longer. */
function first(text: string, words: readonly string[]): { at: number; word: string } | null {
  let best: { at: number; word: string } | null = null
  for (const word of words) {
    const at = text.indexOf(word)
    if (at < 0) continue
    if (best === null || at < best.at || (at === best.at && word.length > best.word.length))
      best = { at, word }
  }
  return best
}
