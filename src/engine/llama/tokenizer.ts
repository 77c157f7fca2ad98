/** llama.cpp's tokenizer. Short texts are encoded at once, long ones on another thread. */
import { setImmediate } from "node:timers/promises"
import { type ControlToken, ControlTokens, type Special } from "../control-tokens.ts"
import { SHOWN_MARKS } from "../marks.ts"
import type { Tokenizer } from "../port.ts"
import type { Native, Pointer } from "./native.ts"

/** About a millisecond of work. */
const SHORT_CHARACTERS = 4_000
/** llama.cpp looks for each control token in all that lies between those found before: 40,000 in one text take it
 * nine seconds. With more than these they are found here. */
const FEW_CONTROLS = 256
/** What a call costs, in characters. */
const CALL_CHARACTERS = 20
/** llama.cpp's attributes of a token. */
const UNKNOWN = 1
const CONTROL = 8
const EATS_LEFT = 128
const EATS_RIGHT = 256

export class LlamaTokenizer implements Tokenizer {
  readonly #native: Native
  readonly #vocab: Pointer
  readonly #bytes: Uint8Array[] = []
  readonly #isEnd: Uint8Array
  /** End-of-generation tokens. */
  readonly ends: readonly number[]
  /** As the vocabulary writes them, which takes as many bytes as the text they stand for, or more. */
  readonly longestTokenBytes: number
  readonly controls: ControlTokens

  constructor(native: Native, vocab: Pointer) {
    this.#native = native
    this.#vocab = vocab
    const size = native.vocabSize(vocab)
    this.#isEnd = Uint8Array.from({ length: size }, (_, token) => (native.isEnd(vocab, token) ? 1 : 0))
    this.ends = [...this.#isEnd.keys()].filter((token) => this.#isEnd[token] === 1)
    const controls: ControlToken[] = []
    let longest = 1
    for (let token = 0; token < size; token++) {
      const text = native.tokenText(vocab, token)
      longest = Math.max(longest, Buffer.byteLength(text))
      const attributes = native.tokenAttributes(vocab, token)
      const [eatsLeft, eatsRight] = [(attributes & EATS_LEFT) !== 0, (attributes & EATS_RIGHT) !== 0]
      if (attributes & (CONTROL | UNKNOWN)) controls.push({ token, text, eatsLeft, eatsRight })
    }
    this.controls = new ControlTokens(controls)
    this.longestTokenBytes = longest
    for (const mark of SHOWN_MARKS) this.#showMark(mark)
  }

  async encode(text: string, options: { special: Special; addBos: boolean }): Promise<Int32Array> {
    const { special, addBos } = options
    if (special === false) return this.#encode(text, false, addBos)
    const offsets = special === true ? this.controls.find(text) : special
    if (special === true && offsets.length <= FEW_CONTROLS) return this.#encode(text, true, addBos)
    return this.#encodePieces(this.controls.cut(text, offsets), addBos)
  }

  /** What llama.cpp does with a text, too: it encodes what lies between the control tokens on its own. */
  async #encodePieces(pieces: readonly (string | number)[], addBos: boolean): Promise<Int32Array> {
    const parts: Int32Array[] = addBos ? [await this.#encode("", false, true)] : []
    let atOnce = 0
    for (const piece of pieces) {
      parts.push(typeof piece === "number" ? Int32Array.of(piece) : await this.#encode(piece, false, false))
      atOnce += typeof piece === "number" ? 0 : piece.length + CALL_CHARACTERS
      if (atOnce < SHORT_CHARACTERS) continue
      atOnce = 0
      await setImmediate()
    }
    return joined(parts)
  }

  async #encode(text: string, special: boolean, addBos: boolean): Promise<Int32Array> {
    const bytes = new TextEncoder().encode(text)
    const room = new Int32Array(bytes.length + 8)
    const args = [this.#vocab, bytes, bytes.length, room, room.length, addBos, special] as const
    const short = text.length <= SHORT_CHARACTERS
    const count = short ? this.#native.tokenize(...args) : await this.#native.tokenizeThreaded(...args)
    if (count < 0) throw new Error(`the tokenizer needs room for ${-count} tokens`)
    return room.slice(0, count)
  }

  bytes(token: number): Uint8Array {
    return (this.#bytes[token] ??= this.#piece(token))
  }

  isEnd(token: number): boolean {
    return this.#isEnd[token] === 1
  }

  #piece(token: number): Uint8Array {
    if (!(token >= 0 && token < this.#isEnd.length))
      throw new RangeError(`the vocabulary has no token ${token}`)
    const room = new Uint8Array(64)
    const length = this.#native.piece(this.#vocab, token, room, room.length, 0, false)
    if (length >= 0) return room.slice(0, length)
    const more = new Uint8Array(-length)
    return more.subarray(0, this.#native.piece(this.#vocab, token, more, more.length, 0, false))
  }

  /** Some models call the marks of thoughts and calls control tokens; the code that splits the text must see them, and
   * grammars must let them come. */
  #showMark(mark: string): void {
    const bytes = new TextEncoder().encode(mark)
    const room = new Int32Array(bytes.length + 8)
    const count = this.#native.tokenize(this.#vocab, bytes, bytes.length, room, room.length, false, true)
    if (count === 1 && !this.isEnd(room[0]!)) this.#bytes[room[0]!] = bytes
  }
}

function joined(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
