/** The native arrays behind one llama_batch, allocated once per context. */
import { allocate, type BatchStruct } from "./native.ts"

/** Consecutive tokens of one sequence. */
export interface BatchPart {
  slot: number
  position: number
  tokens: ArrayLike<number>
  /** Rows of logits wanted: of the last so many tokens. */
  outputs: number
}

export class BatchBuffers {
  readonly #blocks: ReturnType<typeof allocate>[] = []
  readonly #struct: Omit<BatchStruct, "n_tokens">
  readonly #tokens: Int32Array
  readonly #positions: Int32Array
  readonly #sequences: Int32Array
  readonly #wanted: Int8Array

  constructor(maxTokens: number) {
    const block = (bytes: number) => {
      const made = allocate(bytes)
      this.#blocks.push(made)
      return made
    }
    const [tokens, positions, sequences, ones] = [0, 1, 2, 3].map(() => block(4 * maxTokens))
    const wanted = block(maxTokens)
    const addresses = block(8 * maxTokens)
    this.#tokens = new Int32Array(tokens!.bytes)
    this.#positions = new Int32Array(positions!.bytes)
    this.#sequences = new Int32Array(sequences!.bytes)
    this.#wanted = new Int8Array(wanted.bytes)
    new Int32Array(ones!.bytes).fill(1)
    const pointers = new BigUint64Array(addresses.bytes)
    for (let i = 0; i < maxTokens; i++) pointers[i] = sequences!.pointer + BigInt(4 * i)
    this.#struct = {
      token: tokens!.pointer,
      embd: null,
      pos: positions!.pointer,
      n_seq_id: ones!.pointer,
      seq_id: addresses.pointer,
      logits: wanted.pointer,
    }
  }

  fill(parts: Iterable<BatchPart>): BatchStruct {
    let n = 0
    for (const { slot, position, tokens, outputs } of parts) {
      const end = n + tokens.length
      this.#tokens.set(tokens, n)
      this.#sequences.fill(slot, n, end)
      this.#wanted.fill(0, n, end - outputs)
      this.#wanted.fill(1, end - outputs, end)
      for (let i = 0; i < tokens.length; i++) this.#positions[n + i] = position + i
      n = end
    }
    return { n_tokens: n, ...this.#struct }
  }

  free(): void {
    for (const block of this.#blocks) block.free()
  }
}
