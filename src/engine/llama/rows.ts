/** The rows of logits of a context's last decode, without a copy. */
import { floatsAt, type Native, type Pointer } from "./native.ts"

export class LogitRows {
  readonly #native: Native
  readonly #context: Pointer
  readonly #vocabSize: number
  readonly #maxRows: number
  /** The buffer is llama.cpp's own and seldom moves. */
  #seen: { pointer: Pointer; floats: Float32Array } | null = null

  constructor(native: Native, context: Pointer, vocabSize: number, maxRows: number) {
    this.#native = native
    this.#context = context
    this.#vocabSize = vocabSize
    this.#maxRows = maxRows
  }

  /** Row `index` of the last decode, counted in batch order over the tokens that asked for one. */
  row(index: number): Float32Array {
    const pointer = this.#native.logits(this.#context)
    if (this.#seen?.pointer !== pointer)
      this.#seen = { pointer, floats: floatsAt(pointer, this.#maxRows * this.#vocabSize) }
    return this.#seen!.floats.subarray(index * this.#vocabSize, (index + 1) * this.#vocabSize)
  }
}
