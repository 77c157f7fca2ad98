/** Reads a body's bytes as they come and refuses what is larger than the table of limits allows, before anything is
 * made of it. It looks at JSON's marks only: whether the rest is JSON is found when the body is parsed. What it lets
 * through is parsed in some 50 ms at most, whatever its shape. */
import type { UserError } from "../errors.ts"
import {
  type Limit,
  type LimitNode,
  limitsFor,
  MOST_DEPTH,
  MOST_FIELDS,
  MOST_NAME_BYTES,
  MOST_NUMBER_CHARACTERS,
  type PromptSizes,
  promptTooLong,
  tooLarge,
  UNLISTED,
  wrong,
} from "./limits.ts"

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const BACKSLASH = 0x5c
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const SPACE = 0x20
const U = 0x75

/** An array or object that is open. */
interface Frame {
  node: LimitNode
  isObject: boolean
  /** Commas so far. */
  index: number
  /** Name of the field that is being read. */
  name: string
  /** Next comes a field's name. */
  named: boolean
}

/** What is counted for a part of the body that has a limit of its own. */
interface Tally {
  limit: Limit
  path: string
  depth: number
  values: number
  textBytes: number
}

export class BodyScanner {
  readonly #sizes: PromptSizes | null
  readonly #frames: Frame[] = []
  readonly #tallies: Tally[] = []
  /** Of the value that comes next. */
  #next: LimitNode
  #fields = 0
  #scalar = 0
  /** Inside a string: a name, a value, or none. */
  #string: "name" | "value" | null = null
  #escaped = false
  #name: Uint8Array = NO_BYTES
  #nameBytes = 0

  constructor(sizes: PromptSizes | null) {
    this.#sizes = sizes
    this.#next = limitsFor(sizes)
  }

  /** The next bytes. Throws a 400 for the first part that is too large. */
  push(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) at = this.#string === null ? this.#mark(bytes, at) : this.#text(bytes, at)
  }

  /** Handles marks up to the begin of a string, or all there are; answers where it stopped. */
  #mark(bytes: Uint8Array, from: number): number {
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at]!
      if (byte === QUOTE) {
        this.#beginString()
        return at + 1
      }
      if (byte === COMMA) this.#comma()
      else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) this.#open(byte === OPEN_OBJECT)
      else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) this.#close()
      else if (byte <= SPACE || byte === COLON) this.#scalar = 0
      else if (++this.#scalar > MOST_NUMBER_CHARACTERS) throw this.#longNumber()
    }
    return bytes.length
  }

  /** Goes on in a string, to its end or that of the bytes; answers where it stopped. */
  #text(bytes: Uint8Array, from: number): number {
    let counted = 0
    let at = from
    let ended = false
    for (; at < bytes.length && !ended; at++) {
      const byte = bytes[at]!
      if (this.#escaped) this.#escaped = false
      else if (byte === BACKSLASH) {
        this.#escaped = true
        counted++
        // The four digits of `\u0041` are none.
        if (bytes[at + 1] === U) counted -= 4
      } else if (byte === QUOTE) {
        ended = true
      } else counted++
    }
    if (this.#string === "name") this.#keepName(bytes, from, ended ? at - 1 : at)
    else this.#addText(counted)
    if (ended) this.#endString()
    return at
  }

  #beginString(): void {
    this.#scalar = 0
    this.#nameBytes = 0
    this.#string = this.#frames.at(-1)?.named ? "name" : "value"
    if (this.#string === "name") return
    // A prompt may be one text, or several.
    const { item, limit } = this.#next
    const own = item.limit?.textBytes === undefined ? limit : item.limit
    if (own?.textBytes !== undefined) this.#beginTally(own)
  }

  #endString(): void {
    if (this.#string === "name") this.#endName()
    else this.#endTally()
    this.#string = null
  }

  #beginTally(limit: Limit): void {
    this.#tallies.push({ limit, path: this.#path(), depth: this.#frames.length, values: 0, textBytes: 0 })
  }

  /** Of the value that ended just now, if it has one. */
  #endTally(): void {
    if (this.#tallies.at(-1)?.depth === this.#frames.length) this.#tallies.pop()
  }

  #keepName(bytes: Uint8Array, from: number, to: number): void {
    const length = to - from
    if (this.#nameBytes + length > MOST_NAME_BYTES)
      throw wrong(this.#path(-1), `a field's name in it is longer than ${MOST_NAME_BYTES} bytes: shorten it`)
    // Nearly always all of it is in these bytes; a name that is not goes on with the next ones.
    if (this.#nameBytes === 0) this.#name = bytes.subarray(from, to)
    else this.#name = Buffer.concat([this.#name, bytes.subarray(from, to)])
    this.#nameBytes += length
  }

  #endName(): void {
    const frame = this.#frames.at(-1)!
    frame.name = nameOf(this.#nameBytes === 0 ? NO_BYTES : this.#name)
    frame.named = false
    this.#next = frame.node.fields.get(frame.name) ?? UNLISTED
    this.#addText(this.#nameBytes, 0)
    if (++this.#fields > MOST_FIELDS)
      throw wrong(
        this.#path(),
        `the body has more than ${MOST_FIELDS} fields: leave out what this server does not read`,
      )
    // As a name it would reach into JavaScript's own objects.
    if (frame.name === "__proto__") throw wrong(this.#path(), "a field must not have this name: rename it")
  }

  #comma(): void {
    this.#scalar = 0
    const frame = this.#frames.at(-1)
    if (frame === undefined) return
    frame.index++
    if (frame.index >= frame.node.entries) throw this.#tooMany(frame)
    this.#countValue()
    frame.named = frame.isObject
    this.#next = frame.isObject ? UNLISTED : frame.node.item
  }

  #open(isObject: boolean): void {
    this.#scalar = 0
    if (this.#frames.length >= MOST_DEPTH)
      throw wrong(this.#path(), `it is nested more than ${MOST_DEPTH} levels deep: make it flatter`)
    const node = this.#next
    const { limit } = node
    if (limit !== null && (limit.values !== undefined || limit.textBytes !== undefined))
      this.#beginTally(limit)
    this.#frames.push({ node, isObject, index: 0, name: "", named: isObject })
    this.#next = isObject ? UNLISTED : node.item
    this.#countValue()
  }

  #close(): void {
    this.#scalar = 0
    this.#frames.pop()
    this.#endTally()
  }

  /** One entry more for the innermost part that counts them. */
  #countValue(): void {
    for (let i = this.#tallies.length - 1; i >= 0; i--) {
      const tally = this.#tallies[i]!
      const { values } = tally.limit
      if (values === undefined) continue
      if (++tally.values > values)
        throw tooLarge(tally.limit, tally.path, `it has more than ${values} entries and fields in all`)
      return
    }
  }

  /** Bytes of text for the innermost part that counts them, or for the one at `index`. */
  #addText(bytes: number, index = this.#tallies.length - 1): void {
    // After the end of the body there is none, and what comes is no JSON.
    for (let i = Math.min(index, this.#tallies.length - 1); i >= 0; i--) {
      const tally = this.#tallies[i]!
      const { textBytes, isPrompt } = tally.limit
      if (textBytes === undefined) continue
      tally.textBytes += bytes
      if (tally.textBytes <= textBytes) return
      if (isPrompt && this.#sizes !== null) throw promptTooLong(this.#sizes.contextTokens, tally.path)
      throw tooLarge(tally.limit, tally.path, `its texts come to more than ${textBytes} bytes`)
    }
  }

  #tooMany({ node, isObject }: Frame): UserError {
    const path = this.#path(-1)
    const { limit, entries } = node
    if (limit?.isPrompt && /^(prompt|input)/.test(limit.at) && this.#sizes !== null)
      return promptTooLong(this.#sizes.contextTokens, path)
    const what = `it has more than ${entries} ${isObject ? "fields" : "entries"}`
    return limit === null ? wrong(path, `${what}: send fewer`) : tooLarge(limit, path, what)
  }

  #longNumber(): UserError {
    return wrong(
      this.#path(),
      `it has more than ${MOST_NUMBER_CHARACTERS} characters without quotation marks: shorten it`,
    )
  }

  /** Path of the value that is being read; `-1`: of what it is in. */
  #path(end: 0 | -1 = 0): string {
    const frames = end === 0 ? this.#frames : this.#frames.slice(0, -1)
    // Deep paths are shown by their begin.
    return frames.slice(0, 12).reduce((path, { isObject, index, name }) => {
      if (!isObject) return `${path}[${index}]`
      return path === "" ? name.slice(0, 40) : `${path}.${name.slice(0, 40)}`
    }, "")
  }
}

const NO_BYTES = new Uint8Array()
const decoder = new TextDecoder()

function nameOf(bytes: Uint8Array): string {
  const raw = decoder.decode(bytes)
  if (!raw.includes("\\")) return raw
  try {
    return String(JSON.parse(`"${raw}"`))
  } catch {
    return raw
  }
}
