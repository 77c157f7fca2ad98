/** JSON as it was written: whole numbers that a float cannot hold stay what they are, and objects remember the order of their
 * names. JavaScript's own parser rounds the first, and puts names that are whole numbers before all others. */

/** Names of an object in the order in which they were written, where that is another than the object's own. */
const ORDER = Symbol("order")

/** As Node has it; not yet in the language's types. */
const json = JSON as typeof JSON & { rawJSON(text: string): object; isRawJSON(value: unknown): boolean }

/** A whole number that a float cannot hold. */
export const isRawNumber = (value: unknown): boolean => json.isRawJSON(value)

/** In a text without either the usual parser says the same. */
const MAY_DIFFER = /\d{16}|"\d+"\s*:/

export function mayDiffer(text: string): boolean {
  return MAY_DIFFER.test(text)
}

/** The same value as JSON.parse has. Of a text that is JSON. */
export function parseExactly(text: string): unknown {
  const parsed: unknown = JSON.parse(text)
  return mayDiffer(text) ? new Parser(text).value() : parsed
}

export function keysOf(object: object): string[] {
  return (object as { [ORDER]?: string[] })[ORDER] ?? Object.keys(object)
}

const STRING = /"(?:[^"\\]|\\.)*"/y
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/y
const SPACE = /\s*/y

class Parser {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  value(): unknown {
    this.#take(SPACE)
    const c = this.#text[this.#at]!
    if (c === "{") return this.#object()
    if (c === "[") return this.#array()
    if (c === '"') return JSON.parse(this.#take(STRING))
    if (c === "t" || c === "f" || c === "n") {
      const word = c === "t" ? "true" : c === "f" ? "false" : "null"
      this.#at += word.length
      return JSON.parse(word)
    }
    return exactNumber(this.#take(NUMBER))
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const [taken] = pattern.exec(this.#text)!
    this.#at += taken.length
    return taken
  }

  /** The next character that is no space. */
  #next(): string {
    this.#take(SPACE)
    return this.#text[this.#at++]!
  }

  #object(): object {
    const fields: Record<string, unknown> = {}
    const order: string[] = []
    this.#at++
    this.#take(SPACE)
    if (this.#text[this.#at] === "}") this.#at++
    else
      do {
        this.#take(SPACE)
        const name = JSON.parse(this.#take(STRING)) as string
        this.#next()
        if (!Object.hasOwn(fields, name)) order.push(name)
        Object.defineProperty(fields, name, {
          value: this.value(),
          enumerable: true,
          writable: true,
          configurable: true,
        })
      } while (this.#next() === ",")
    if (order.some((name) => /^\d+$/.test(name))) Object.defineProperty(fields, ORDER, { value: order })
    return fields
  }

  #array(): unknown[] {
    const items: unknown[] = []
    this.#at++
    this.#take(SPACE)
    if (this.#text[this.#at] === "]") {
      this.#at++
      return items
    }
    do items.push(this.value())
    while (this.#next() === ",")
    return items
  }
}

/** A number, or where a float would round it the text that JSON.stringify writes as it is. */
export function exactNumber(text: string): unknown {
  const number = Number(text)
  if (!/^-?\d+$/.test(text) || Number.isSafeInteger(number)) return number
  return json.rawJSON(text)
}
