/** llama.cpp's tokenizer. Short texts are encoded at once, long ones on another thread, one after the other. */
import type { Tokenizer } from "../port.ts"
import type { Native, Pointer } from "./native.ts"

/** About a millisecond of work. */
const SHORT_CHARACTERS = 4_000

export class LlamaTokenizer implements Tokenizer {
  readonly #native: Native
  readonly #vocab: Pointer
  readonly #bytes: Uint8Array[] = []
  readonly #isEnd: Uint8Array
  /** One long text at a time: the threads that run the model's steps are few. */
  #queue: Promise<unknown> = Promise.resolve()
  /** End-of-generation tokens. */
  readonly ends: readonly number[]
  /** As the vocabulary writes them, which takes as many bytes as the text they stand for, or more. */
  readonly longestTokenBytes: number

  constructor(native: Native, vocab: Pointer) {
    this.#native = native
    this.#vocab = vocab
    const size = native.vocabSize(vocab)
    this.#isEnd = Uint8Array.from({ length: size }, (_, token) => (native.isEnd(vocab, token) ? 1 : 0))
    this.ends = [...this.#isEnd.keys()].filter((token) => this.#isEnd[token] === 1)
    let longest = 1
    for (let token = 0; token < size; token++)
      longest = Math.max(longest, Buffer.byteLength(native.tokenText(vocab, token)))
    this.longestTokenBytes = longest
    for (const mark of ["<think>", "</think>"]) this.#showMark(mark)
  }

  async encode(text: string, options: { special: boolean; addBos: boolean }): Promise<Int32Array> {
    const bytes = new TextEncoder().encode(text)
    const room = new Int32Array(bytes.length + 8)
    const args = [
      this.#vocab,
      bytes,
      bytes.length,
      room,
      room.length,
      options.addBos,
      options.special,
    ] as const
    let count: number
    if (text.length <= SHORT_CHARACTERS) count = this.#native.tokenize(...args)
    else {
      const turn = this.#queue.then(() => this.#native.tokenizeThreaded(...args))
      this.#queue = turn.catch(() => {})
      count = await turn
    }
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

  /** Some models call the marks of thinking control tokens; the code that splits the text must see them. */
  #showMark(mark: string): void {
    const bytes = new TextEncoder().encode(mark)
    const room = new Int32Array(bytes.length + 8)
    const count = this.#native.tokenize(this.#vocab, bytes, bytes.length, room, room.length, false, true)
    if (count === 1) this.#bytes[room[0]!] = bytes
  }
}
