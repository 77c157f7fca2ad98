/** Strings of bounded length. A grammar that counts characters has a state for each count, and XGrammar looks at the
 * whole vocabulary for every state: `maxLength: 1000` took it 8 s. So the grammar lets such a string be of any length,
 * and has a mark behind its opening quotation mark that no text can spell. A matcher that may go on with a mark takes
 * it, and from there on counts itself.
 *
 * The first line of a grammar with such strings lists their bounds: `# lengths 2-10 0-50 3-`. */
import { tokenBytes, type Vocabulary, vocabularySize } from "./vocabulary.ts"

export interface Bounds {
  min: number
  max: number
}

/** Different bounds that one grammar may have. */
export const MOST_BOUNDS = 64
/** JSON has no such byte. */
const MARK = 1
const MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
const HEADER = "# lengths"

/** What stands for the n-th bounds of a grammar. */
export function markOf(index: number): string {
  return String.fromCharCode(MARK) + MARKS[index]!
}

/** Held parts that one grammar may have (zones.ts). */
const PARTS = "!#$%&*.:"

/** What begins the n-th held part of a grammar: no text spells it either. */
export function partMark(index: number): string {
  if (index >= PARTS.length) throw new RangeError("a grammar has too many parts")
  return String.fromCharCode(MARK) + PARTS[index]!
}

/** Bytes of all marks, in the order of their tokens after those of a vocabulary. */
export function markBytes(): Uint8Array[] {
  const marks = [...Array.from(MARKS, (_, i) => markOf(i)), ...Array.from(PARTS, (_, i) => partMark(i))]
  return marks.map((mark) => new TextEncoder().encode(mark))
}

export function boundsHeader(bounds: readonly Bounds[]): string {
  if (bounds.length === 0) return ""
  return `${[HEADER, ...bounds.map(({ min, max }) => `${min}-${max === Infinity ? "" : max}`)].join(" ")}\n`
}

export function boundsOf(grammar: string): Bounds[] {
  if (!grammar.startsWith(HEADER)) return []
  const line = grammar.slice(HEADER.length + 1, grammar.indexOf("\n"))
  return line.split(" ").map((entry) => {
    const [min, max] = entry.split("-")
    return { min: Number(min), max: max === "" ? Infinity : Number(max) }
  })
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const SMALL_U = 0x75

/** How far a string has come: characters begun, and where in an escape it is. */
export interface Count extends Bounds {
  characters: number
  /** 0: in none; 1: a backslash was read; 2 to 5: hexadecimal digits that follow, and one. */
  escape: number
  /** The closing quotation mark was read. */
  closed: boolean
}

export function countFrom(bounds: Bounds): Count {
  return { ...bounds, characters: 0, escape: 0, closed: false }
}

/** Reads the bytes of a token into a count, in place; what follows the closing quotation mark is not counted. */
export function read(count: Count, bytes: Uint8Array): void {
  for (const byte of bytes) {
    if (count.closed) return
    if (count.escape === 1) count.escape = byte === SMALL_U ? 5 : 0
    else if (count.escape > 1) count.escape = count.escape === 2 ? 0 : count.escape - 1
    else if (byte === QUOTE) count.closed = true
    else {
      if (byte === BACKSLASH) count.escape = 1
      // The bytes of a character after its first say so.
      if ((byte & 0xc0) !== 0x80) count.characters++
    }
  }
}

function fits({ closed, characters, min, max }: Count): boolean {
  return characters <= max && (!closed || characters >= min)
}

/** What the tokens of a vocabulary add to a string. */
export class TokenLengths {
  readonly #vocabulary: Vocabulary
  /** Most characters of a token. */
  readonly #longest: number
  /** By count: tokens without a quotation mark or a backslash that have at most so many characters. */
  readonly #short: Int32Array[] = []
  /** Tokens with a quotation mark or a backslash. */
  readonly #special: number[] = []
  /** Tokens of the vocabulary that have the byte of marks in them. */
  readonly #false: number[] = []

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary
    const size = vocabularySize(vocabulary)
    const characters = new Uint16Array(size)
    for (let token = 0; token < size; token++) {
      const bytes = tokenBytes(vocabulary, token)
      if (bytes.includes(MARK)) this.#false.push(token)
      if (bytes.includes(QUOTE) || bytes.includes(BACKSLASH)) this.#special.push(token)
      else characters[token] = bytes.reduce((sum, byte) => sum + +((byte & 0xc0) !== 0x80), 0)
    }
    this.#longest = characters.reduce((a, b) => Math.max(a, b), 0)
    const special = new Set(this.#special)
    for (let length = 0; length < this.#longest; length++) {
      const words = new Int32Array(Math.ceil(size / 32))
      for (let token = 0; token < size; token++)
        if (characters[token]! <= length && !special.has(token)) words[token >> 5]! |= 1 << (token & 31)
      this.#short.push(words)
    }
  }

  /** Takes from a mask, in place, the tokens that begin a mark. */
  withoutMarks(mask: Int32Array): void {
    for (const token of this.#false) this.#set(mask, token, false)
  }

  /** Takes from a mask, in place, the tokens that would break the bounds. */
  restrict(mask: Int32Array, count: Count): void {
    const left = count.max - count.characters
    if (count.escape > 0) {
      this.#checkEach(mask, count)
      return
    }
    const roomy = left >= this.#longest
    const allowed = this.#special.filter((token) => mask[token >> 5]! & (1 << (token & 31)))
    // A token with escapes may have more bytes than characters, but never more characters than bytes.
    if (!roomy) {
      const short = this.#short[left]!
      for (let i = 0; i < short.length; i++) mask[i]! &= short[i]!
    }
    for (const token of allowed) this.#set(mask, token, fits(this.#after(count, token)))
  }

  #checkEach(mask: Int32Array, count: Count): void {
    for (let token = 0; token < vocabularySize(this.#vocabulary); token++)
      if (mask[token >> 5]! & (1 << (token & 31))) this.#set(mask, token, fits(this.#after(count, token)))
  }

  #after(count: Count, token: number): Count {
    const after = { ...count }
    read(after, tokenBytes(this.#vocabulary, token))
    return after
  }

  #set(mask: Int32Array, token: number, on: boolean): void {
    const bit = 1 << (token & 31)
    if (on) mask[token >> 5]! |= bit
    else mask[token >> 5]! &= ~bit
  }
}
