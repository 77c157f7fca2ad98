/** Embeddings of prompts (Sampling.embedding): passes of their own before the step's, of which hidden states are read instead of
 * logits. By pooling: of the last token, or the mean over all, of length one. */
import type { BatchItem, RequestId } from "../../core/protocol.ts"
import type { StepRow } from "../port.ts"
import type { OpenRequest, RequestTable } from "../request-table.ts"
import type { BatchBuffers, BatchPart } from "./batch.ts"
import { type Loaded, SCORED_ROWS } from "./model.ts"
import { floatsAt } from "./native.ts"
import type { Slots } from "./slots.ts"

export class Embedder {
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #slots: Slots
  readonly #batch: BatchBuffers
  readonly #width: number
  /** Of each open request: the sum of hidden states, and how many of its first tokens are in it. */
  readonly #sums = new Map<RequestId, { sum: Float64Array; tokens: number }>()

  constructor(loaded: Loaded, table: RequestTable, slots: Slots, batch: BatchBuffers) {
    this.#loaded = loaded
    this.#table = table
    this.#slots = slots
    this.#batch = batch
    this.#width = loaded.native.width(loaded.model)
  }

  open({ id, sampling }: OpenRequest): void {
    if (sampling.embedding) this.#sums.set(id, { sum: new Float64Array(this.#width), tokens: 0 })
  }

  forget(id: RequestId): void {
    this.#sums.delete(id)
  }

  /** What the step's own pass computes of the items. */
  rest(items: readonly BatchItem[]): readonly BatchItem[] {
    return this.#sums.size === 0 ? items : items.filter(({ id }) => !this.#sums.has(id))
  }

  /** Computes the others. Answers with the first code of llama_decode that is not 0, else 0. */
  async compute(items: readonly BatchItem[]): Promise<number> {
    const own = this.#sums.size === 0 ? [] : items.filter(({ id }) => this.#sums.has(id))
    if (own.length === 0) return 0
    if (this.#loaded.info.pooling === "mean") return this.#computeAll(own)
    // Of all tokens but the last nothing is read.
    const before = own.map((item) => (item.sample ? { ...item, tokens: item.tokens - 1 } : item))
    const code = await this.#decode(before.filter(({ tokens }) => tokens > 0).map((item) => this.#part(item)))
    if (code !== 0) return code
    const last = own.filter(({ sample }) => sample)
    return this.#read(last.map((item) => ({ ...item, position: item.position + item.tokens - 1, tokens: 1 })))
  }

  /** Of those whose last token is computed. */
  rows(items: readonly BatchItem[]): StepRow[] {
    if (this.#sums.size === 0) return []
    return items.flatMap(({ id, sample }) => {
      const sums = this.#sums.get(id)
      if (sums === undefined || !sample) return []
      const request = this.#table.get(id)
      // No token was chosen: any stands for it, and nothing follows.
      const token = request.tokens[request.known - 1]!
      this.#table.append(request, token, false)
      return { id, tokens: [token], drafted: 0, end: false, embedding: ofLengthOne(sums.sum) }
    })
  }

  async #computeAll(items: readonly BatchItem[]): Promise<number> {
    for (const item of items) {
      const end = item.position + item.tokens
      for (let position = item.position; position < end; position += SCORED_ROWS) {
        const tokens = Math.min(SCORED_ROWS, end - position)
        const code = await this.#read([{ ...item, position, tokens }])
        if (code !== 0) return code
      }
    }
    return 0
  }

  /** Computes tokens of several requests, and adds their hidden states. */
  async #read(items: readonly BatchItem[]): Promise<number> {
    if (items.length === 0) return 0
    const { native, context } = this.#loaded
    native.setEmbeddings(context, true)
    try {
      const code = await this.#decode(items.map((item) => this.#part(item, item.tokens)))
      if (code !== 0) return code
      const rows = items.reduce((sum, { tokens }) => sum + tokens, 0)
      const states = floatsAt(native.embeddings(context), rows * this.#width)
      let row = 0
      for (const item of items) {
        for (let i = 0; i < item.tokens; i++, row++)
          this.#add(item.id, item.position + i, states.subarray(row * this.#width, (row + 1) * this.#width))
      }
      return 0
    } finally {
      native.setEmbeddings(context, false)
    }
  }

  /** A token that is computed again, because its KV was lost, counts once. */
  #add(id: RequestId, position: number, state: Float32Array): void {
    const sums = this.#sums.get(id)!
    if (position < sums.tokens) return
    sums.tokens = position + 1
    for (let i = 0; i < state.length; i++) sums.sum[i]! += state[i]!
  }

  #part({ id, position, tokens }: BatchItem, outputs = 0): BatchPart {
    const known = this.#table.get(id).tokens.subarray(position, position + tokens)
    return { slot: this.#slots.slot(id), position, tokens: known, outputs }
  }

  async #decode(parts: readonly BatchPart[]): Promise<number> {
    if (parts.length === 0) return 0
    const { native, context, gpu } = this.#loaded
    const code = await native.decode(context, this.#batch.fill(parts))
    if (gpu && code === 0) await native.synchronize(context)
    return code
  }
}

function ofLengthOne(sum: Float64Array): Float32Array {
  const length = Math.hypot(...sum)
  return Float32Array.from(sum, (value) => (length > 0 ? value / length : 0))
}
