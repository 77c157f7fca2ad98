/** The real engine: llama.cpp, commanded token by token (DESIGN §9). One `execute` is one `llama_decode` of
 * exactly the batch, on another thread; then every row is sampled. */
import { setImmediate } from "node:timers/promises"
import type { Batch, BatchItem, EngineLimits, RequestId } from "../core/types.ts"
import type { Engine, ModelInfo, Sampling, StepOutput, StepRow, Tokenizer } from "./engine.ts"
import type { LibraryChoice } from "./llama-files.ts"
import { GrammarSampling, parseGrammar } from "./llama-grammar.ts"
import { type Loaded, openModel } from "./llama-model.ts"
import type { Pointer } from "./llama-native.ts"
import { allocate, type BatchStruct, floatsAt } from "./llama-native.ts"
import { samplerChain } from "./llama-sampler.ts"
import { Slots } from "./llama-slots.ts"
import { argmax, biasLogits, logprobsOf } from "./logits.ts"
import { type OpenRequest, RequestTable } from "./request-table.ts"

export interface LlamaOptions {
  modelPath: string
  /** Shown by /v1/models. Default: the file's name. */
  name?: string
  threads: number
  /** Most requests with KV in place, ≤ 256. */
  maxSequences: number
  /** Most tokens of one request. */
  contextTokens: number
  maxBatchTokens: number
  /** One pool, one pass per step; else a stream per sequence. Default: true on a GPU (DESIGN §9). */
  kvUnified?: boolean
  /** Size of a unified pool. Default: maxSequences × contextTokens. */
  kvTokens?: number
  /** Default: on a GPU where it can, and where the KV type needs it; plain attention on a CPU. */
  flashAttention?: boolean
  kvType?: "f16" | "f32" | "q8_0"
  /** Layers on the GPU; default all where there is one. */
  gpuLayers?: number
  library?: LibraryChoice
  onLog?: (line: string) => void
}

/** Where the time of the last step went, µs. */
export interface StepTiming {
  decodeUs: number
  sampleUs: number
  totalUs: number
}

/** Stands for a token that is drawn under a grammar, after the others. */
const NOT_YET = -1
/** rc of llama_decode: no room in the KV. */
const NO_SLOT = 1

export async function openLlama(options: LlamaOptions): Promise<LlamaEngine> {
  return new LlamaEngine(await openModel(options))
}

export class LlamaEngine implements Engine {
  readonly model: ModelInfo
  readonly limits: EngineLimits
  readonly tokenizer: Tokenizer
  readonly timing: StepTiming = { decodeUs: 0, sampleUs: 0, totalUs: 0 }
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #slots: Slots
  readonly #chains = new Map<RequestId, Pointer>()
  readonly #grammars = new Map<RequestId, Pointer>()
  #grammarSampling: GrammarSampling | null = null
  readonly #batch: BatchBuffers
  #logits: { pointer: Pointer; floats: Float32Array } | null = null
  #running: Promise<StepOutput> | null = null
  #closed = false

  constructor(loaded: Loaded) {
    this.#loaded = loaded
    this.model = loaded.info
    this.limits = loaded.limits
    this.tokenizer = loaded.tokenizer
    this.#table = new RequestTable(loaded.limits)
    this.#slots = new Slots(loaded.native, loaded.native.memory(loaded.context), this.#table)
    this.#batch = new BatchBuffers(loaded.limits.maxBatchTokens)
  }

  open(id: RequestId, prompt: Int32Array, sampling: Sampling): void {
    const { native, vocab, info } = this.#loaded
    for (const token of prompt) {
      if (!(token >= 0 && token < info.vocabSize))
        throw new RangeError(`the vocabulary has no token ${token}`)
    }
    this.#table.open(id, prompt, sampling)
    try {
      if (sampling.grammar !== null) this.#grammars.set(id, parseGrammar(native, vocab, sampling.grammar))
      const chain = samplerChain(native, info.vocabSize, sampling, prompt)
      if (chain) this.#chains.set(id, chain)
    } catch (error) {
      this.#table.delete(id)
      throw error
    }
  }

  async execute(batch: Batch): Promise<StepOutput> {
    if (this.#closed) throw new Error("the engine is closed")
    if (this.#running) throw new Error(`batch ${batch.number} was given while another step runs`)
    this.#table.check(batch)
    this.#running = this.#step(batch)
    try {
      return await this.#running
    } finally {
      this.#running = null
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#running?.catch(() => {})
    const { native, context, model } = this.#loaded
    for (const sampler of [...this.#chains.values(), ...this.#grammars.values()]) native.freeSampler(sampler)
    this.#grammarSampling?.free()
    this.#logits = null
    native.freeContext(context)
    native.freeModel(model)
    this.#batch.free()
  }

  async #step(batch: Batch): Promise<StepOutput> {
    const from = performance.now()
    const elapsedUs = () => Math.round((performance.now() - from) * 1000)
    const refused = this.#slots.prepare(batch)
    if (refused) return { ok: false, reason: "engineError", message: refused, durationUs: elapsedUs() }
    for (const id of batch.release) this.#forgetSamplers(id)
    const items = batch.items.toSorted((a, b) => this.#slots.slot(a.id) - this.#slots.slot(b.id))
    const code = items.length > 0 ? await this.#decode(items) : 0
    if (code !== 0) {
      this.#undo(items)
      const full = code === NO_SLOT
      const message = full ? "no room in the KV pool" : `llama_decode failed with ${code}`
      return { ok: false, reason: full ? "kvFull" : "engineError", message, durationUs: elapsedUs() }
    }
    const decoded = performance.now()
    const rows = await this.#sampleAll(items)
    this.timing.sampleUs = (performance.now() - decoded) * 1000
    this.timing.totalUs = (performance.now() - from) * 1000
    return { ok: true, rows, durationUs: elapsedUs() }
  }

  async #decode(items: readonly BatchItem[]): Promise<number> {
    const { native, context, gpu } = this.#loaded
    const struct = this.#batch.fill(items, this.#table, this.#slots)
    const from = performance.now()
    const code = await native.decode(context, struct)
    if (gpu && code === 0) await native.synchronize(context)
    this.timing.decodeUs = (performance.now() - from) * 1000
    return code
  }

  /** After a failed step no item has advanced: KV that it left half done is removed. */
  #undo(items: readonly BatchItem[]): void {
    for (const { id, position } of items) {
      const request = this.#table.get(id)
      if (position === 0) this.#slots.drop(request)
      else this.#slots.truncate(request, position)
    }
  }

  async #sampleAll(items: readonly BatchItem[]): Promise<StepRow[]> {
    const sampled: { request: OpenRequest; at: number; row: Float32Array }[] = []
    const vocabSize = this.model.vocabSize
    let at = -1
    for (const item of items) {
      const request = this.#table.get(item.id)
      request.held = item.position + item.tokens
      at += item.tokens
      if (!item.sample) continue
      const start = sampled.length * vocabSize
      sampled.push({ request, at, row: this.#allLogits().subarray(start, start + vocabSize) })
    }
    for (const { request, row } of sampled) biasLogits(row, request.sampling, this.#loaded.tokenizer.ends)
    const tokens = await Promise.all(sampled.map(({ request, at, row }) => this.#choose(request, at, row)))
    for (const [i, { request, row }] of sampled.entries()) {
      const grammar = this.#grammars.get(request.id)
      if (!grammar) continue
      this.#grammarSampling ??= new GrammarSampling(this.#loaded.native, vocabSize)
      tokens[i] = await this.#grammarSampling.choose(row, grammar, this.#chains.get(request.id) ?? null)
    }
    const rows: StepRow[] = []
    for (const [i, { request, row }] of sampled.entries()) {
      const token = tokens[i]!
      const end = this.tokenizer.isEnd(token)
      this.#table.append(request, token, end)
      const out: StepRow = { id: request.id, tokens: [token], end }
      if (request.sampling.logprobs > 0) {
        out.logprobs = [logprobsOf(row, token, request.sampling.logprobs)]
        // A millisecond of arithmetic with a large vocabulary: let the event loop breathe between rows.
        await setImmediate()
      }
      rows.push(out)
    }
    return rows
  }

  /** Chains run on koffi's threads, beside each other: each owns its state and only reads the logits. */
  #choose(request: OpenRequest, at: number, row: Float32Array): number | Promise<number> {
    if (this.#grammars.has(request.id)) return NOT_YET
    const chain = this.#chains.get(request.id)
    return chain ? this.#loaded.native.sample(chain, this.#loaded.context, at) : argmax(row)
  }

  /** All rows of the last decode, in batch order. The buffer is llama.cpp's own and seldom moves. */
  #allLogits(): Float32Array {
    const { native, context } = this.#loaded
    const pointer = native.logits(context)
    if (this.#logits?.pointer !== pointer) {
      this.#logits = { pointer, floats: floatsAt(pointer, this.limits.maxSequences * this.model.vocabSize) }
    }
    return this.#logits!.floats
  }

  #forgetSamplers(id: RequestId): void {
    for (const samplers of [this.#chains, this.#grammars]) {
      const sampler = samplers.get(id)
      if (sampler) this.#loaded.native.freeSampler(sampler)
      samplers.delete(id)
    }
  }
}

/** The native arrays behind one llama_batch, allocated once. */
class BatchBuffers {
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

  fill(items: readonly BatchItem[], table: RequestTable, slots: Slots): BatchStruct {
    let n = 0
    for (const { id, position, tokens, sample } of items) {
      const end = n + tokens
      this.#tokens.set(table.get(id).tokens.subarray(position, position + tokens), n)
      this.#sequences.fill(slots.slot(id), n, end)
      this.#wanted.fill(0, n, end)
      for (let i = 0; i < tokens; i++) this.#positions[n + i] = position + i
      if (sample) this.#wanted[end - 1] = 1
      n = end
    }
    return { n_tokens: n, ...this.#struct }
  }

  free(): void {
    for (const block of this.#blocks) block.free()
  }
}
