/** Reads one JSON value, character by character: where it ends, and whether it is one. What models get wrong in strings and
 * what can be meant in one way only is mended: line breaks and other control characters as they are, and escapes that
 * JSON does not have. */

type Place = "value" | "valueOrEnd" | "key" | "keyOrEnd" | "colon" | "next" | "done" | "bad"

const SPACE = " \t\n\r"
const WORD = /[-+.\w]/
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$/
const WORDS = new Set(["true", "false", "null"])

export class JsonScan {
  /** Objects and arrays that are open. */
  readonly #open: ("{" | "[")[] = []
  #place: Place = "value"
  #inString = false
  /** A backslash was read. */
  #escaped = false
  /** Hexadecimal digits that are still to come. */
  #hex = 0
  /** A number, or a name of a constant, that may go on. */
  #word = ""

  get done(): boolean {
    return this.#place === "done" && !this.#inString && this.#word === ""
  }

  get bad(): boolean {
    return this.#place === "bad"
  }

  /** What a character adds to the value's text. null: it does not belong to it, and the value is done or bad. */
  take(c: string): string | null {
    if (this.#inString) return this.#string(c)
    if (this.#word !== "") {
      if (WORD.test(c)) {
        this.#word += c
        return c
      }
      this.#endWord()
    }
    if (this.#place === "done" || this.#place === "bad") return null
    if (SPACE.includes(c)) return c
    return this.#structure(c)
  }

  /** The text is over: whether that makes the value whole. */
  finish(): boolean {
    if (this.#word !== "") this.#endWord()
    return this.done
  }

  #structure(c: string): string | null {
    const place = this.#place
    const value = place === "value" || place === "valueOrEnd"
    const key = place === "key" || place === "keyOrEnd"
    if (c === '"' && (value || key)) {
      this.#inString = true
      this.#place = key ? "colon" : this.#after()
      return c
    }
    if (c === ":" && place === "colon") return this.#go("value", c)
    if (c === "," && place === "next") return this.#go(this.#open.at(-1) === "{" ? "key" : "value", c)
    if (c === "}" && this.#open.at(-1) === "{" && (place === "next" || place === "keyOrEnd"))
      return this.#close(c)
    if (c === "]" && this.#open.at(-1) === "[" && (place === "next" || place === "valueOrEnd"))
      return this.#close(c)
    if (value && (c === "{" || c === "[")) {
      this.#open.push(c)
      return this.#go(c === "{" ? "keyOrEnd" : "valueOrEnd", c)
    }
    if (value && WORD.test(c)) {
      this.#word = c
      return c
    }
    this.#place = "bad"
    return null
  }

  #string(c: string): string | null {
    if (this.#hex > 0) {
      if (!/[0-9a-fA-F]/.test(c)) {
        this.#place = "bad"
        this.#inString = false
        return null
      }
      this.#hex--
      return c
    }
    if (this.#escaped) {
      this.#escaped = false
      if (c === "u") this.#hex = 4
      if ('"\\/bfnrtu'.includes(c)) return `\\${c}`
      if (c === "'") return c
      // A backslash that is meant, as in a regular expression.
      return `\\\\${c < " " ? JSON.stringify(c).slice(1, -1) : c}`
    }
    if (c === "\\") {
      this.#escaped = true
      return ""
    }
    if (c === '"') this.#inString = false
    return c < " " ? JSON.stringify(c).slice(1, -1) : c
  }

  #endWord(): void {
    const word = this.#word
    this.#word = ""
    this.#place = WORDS.has(word) || NUMBER.test(word) ? this.#after() : "bad"
  }

  #close(c: string): string {
    this.#open.pop()
    return this.#go(this.#after(), c)
  }

  /** Where it is after a value. */
  #after(): Place {
    return this.#open.length === 0 ? "done" : "next"
  }

  #go(place: Place, c: string): string {
    this.#place = place
    return c
  }
}
