/** The real engine: llama.cpp, commanded token by token (docs/design.md, Engine). One `execute` is one
 * `llama_decode` of exactly the batch, on another thread; then every row is sampled. */
import type { Batch, BatchItem, EngineLimits, RequestId } from "../../core/protocol.ts"
import { type Asked, Constraints, type Masks } from "../constraint/constraints.ts"
import { type Drafter, type Drafts, NO_DRAFTS } from "../drafter.ts"
import { LookupDrafter } from "../drafter-lookup.ts"
import type { Engine, ModelInfo, Sampling, StepOutput, StepRow, Tokenizer } from "../port.ts"
import { RequestTable, refuseEnded } from "../request-table.ts"
import { BatchBuffers, type BatchPart } from "./batch.ts"
import { ModelDrafter, openDraftModel } from "./drafter-model.ts"
import { Embedder } from "./embedder.ts"
import { type Loaded, openModel } from "./model.ts"
import type { LlamaOptions } from "./options.ts"
import { LogitRows } from "./rows.ts"
import { PromptScores } from "./scores.ts"
import { Slots } from "./slots.ts"
import { Verifier } from "./verify.ts"

/** Where the time of the last step went, µs. */
export interface StepTiming {
  draftUs: number
  decodeUs: number
  sampleUs: number
  totalUs: number
}

/** rc of llama_decode: no room in the KV. */
const NO_SLOT = 1

export async function openLlama(options: LlamaOptions): Promise<LlamaEngine> {
  const speculate = options.speculate ?? "off"
  const target = await openModel(options)
  if (typeof speculate === "string") return new LlamaEngine(target, speculate)
  try {
    return new LlamaEngine(target, await openDraftModel(speculate.draftModel, options, target))
  } catch (error) {
    target.native.freeContext(target.context)
    target.native.freeModel(target.model)
    throw error
  }
}

export class LlamaEngine implements Engine {
  /** Of its KV, and why it is of that size (empty: it was asked for). */
  readonly kv: { readonly bytes: number; readonly why: string }
  readonly model: ModelInfo
  readonly limits: EngineLimits
  readonly tokenizer: Tokenizer
  readonly constraints: Constraints
  readonly timing: StepTiming = { draftUs: 0, decodeUs: 0, sampleUs: 0, totalUs: 0 }
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #slots: Slots
  readonly #verifier: Verifier
  readonly #drafter: Drafter | null
  readonly #batch: BatchBuffers
  readonly #scores: PromptScores
  readonly #embedder: Embedder
  #running: Promise<StepOutput> | null = null
  #closed = false

  /** `drafts`: nothing, lookup, or a draft model. */
  constructor(loaded: Loaded, drafts: "off" | "lookup" | Loaded) {
    this.#loaded = loaded
    this.model = loaded.info
    this.limits = loaded.limits
    this.kv = { bytes: loaded.kvBytes, why: loaded.chosen }
    this.tokenizer = loaded.tokenizer
    this.constraints = new Constraints(loaded.tokenizer, loaded.info.vocabSize)
    const { native, context, limits } = loaded
    this.#table = new RequestTable(limits, drafts !== "off")
    const contexts = typeof drafts === "string" ? [context] : [context, drafts.context]
    this.#slots = new Slots(native, contexts.map(native.memory), this.#table)
    this.#verifier = new Verifier(
      loaded,
      this.#table,
      new LogitRows(native, context, this.model.vocabSize, loaded.maxOutputs),
    )
    if (drafts === "off") this.#drafter = null
    else if (drafts === "lookup") this.#drafter = new LookupDrafter(this.#table)
    else
      this.#drafter = new ModelDrafter(drafts, this.model.vocabSize, this.#table, this.#slots, this.#verifier)
    this.#batch = new BatchBuffers(loaded.limits.maxBatchTokens)
    this.#scores = new PromptScores(loaded, this.#table, this.#slots, this.#batch)
    this.#embedder = new Embedder(loaded, this.#table, this.#slots, this.#batch)
  }

  open(id: RequestId, prompt: Int32Array, sampling: Sampling, output?: Int32Array): void {
    this.#checkTokens(prompt)
    if (output !== undefined) this.#checkTokens(output)
    refuseEnded(id, output, this.tokenizer)
    const request = this.#table.open(id, prompt, sampling, output)
    try {
      if (sampling.grammar !== null) this.constraints.open(request, sampling.grammar)
      this.#verifier.open(request)
      this.#scores.open(request)
      this.#embedder.open(request)
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
    this.#verifier.close()
    this.constraints.close()
    this.#drafter?.close()
    native.freeContext(context)
    native.freeModel(model)
    this.#batch.free()
  }

  #checkTokens(tokens: Int32Array): void {
    for (const token of tokens) {
      if (!(token >= 0 && token < this.model.vocabSize))
        throw new RangeError(`the vocabulary has no token ${token}`)
    }
  }

  async #step(batch: Batch): Promise<StepOutput> {
    const from = performance.now()
    const elapsedUs = () => Math.round((performance.now() - from) * 1000)
    const refused = this.#slots.prepare(batch)
    for (const id of batch.release) {
      this.#verifier.forget(id)
      this.constraints.forget(id)
      this.#scores.forget(id)
      this.#embedder.forget(id)
    }
    if (refused) return { ok: false, reason: "engineError", message: refused, durationUs: elapsedUs() }
    const items = batch.items.toSorted((a, b) => this.#slots.slot(a.id) - this.#slots.slot(b.id))
    const drafts = await this.#draft(items)
    // Beside the forward pass, on another thread.
    const asking = this.#masks(items, drafts)
    const rest = this.#embedder.rest(this.#scores.rest(items))
    const code =
      (await this.#scores.compute(items)) ||
      (await this.#embedder.compute(items)) ||
      (await this.#decode(rest, drafts))
    const masks = await asking
    if (code !== 0) {
      this.#undo(items)
      const full = code === NO_SLOT
      const message = full ? "no room in the KV pool" : `llama_decode failed with ${code}`
      return { ok: false, reason: full ? "kvFull" : "engineError", message, durationUs: elapsedUs() }
    }
    if (masks instanceof Error) {
      this.#undo(items)
      return { ok: false, reason: "engineError", message: masks.message, durationUs: elapsedUs() }
    }
    const decoded = performance.now()
    const rows = await this.#verifier.choose(rest, drafts, masks)
    rows.push(...this.#embedder.rows(items))
    this.#advance(items, drafts, rows)
    this.timing.sampleUs = (performance.now() - decoded) * 1000
    this.timing.totalUs = (performance.now() - from) * 1000
    return { ok: true, rows, durationUs: elapsedUs() }
  }

  async #decode(items: readonly BatchItem[], drafts: Drafts): Promise<number> {
    if (items.length === 0) return 0
    const { native, context, gpu } = this.#loaded
    const struct = this.#batch.fill(this.#partsOf(items, drafts))
    const from = performance.now()
    const code = await native.decode(context, struct)
    if (gpu && code === 0) await native.synchronize(context)
    this.timing.decodeUs = (performance.now() - from) * 1000
    return code
  }

  *#partsOf(items: readonly BatchItem[], drafts: Drafts): Iterable<BatchPart> {
    for (const { id, position, tokens, sample } of items) {
      const slot = this.#slots.slot(id)
      const end = position + tokens
      yield { slot, position, tokens: this.#table.get(id).tokens.subarray(position, end), outputs: +sample }
      const draft = drafts.get(id)
      if (draft) yield { slot, position: end, tokens: draft, outputs: draft.length }
    }
  }

  /** What is drafted for the items, within the context and the rows that the engine has room for. */
  async #draft(items: readonly BatchItem[]): Promise<Drafts> {
    if (!this.#drafter) return NO_DRAFTS
    const from = performance.now()
    const most = this.#loaded.maxSpeculation - 1
    const room = (item: BatchItem) => this.limits.contextTokens - item.position - item.tokens
    const asked = items.map((item) => ({ ...item, draft: Math.min(item.draft, most, room(item)) }))
    const drafts = await this.#drafter.propose(asked)
    this.timing.draftUs = (performance.now() - from) * 1000
    return drafts
  }

  /** What grammars let come, or why that cannot be said. */
  #masks(items: readonly BatchItem[], drafts: Drafts): Promise<Masks | Error> {
    const asked = items.map(({ id, sample, tokens }): Asked => {
      const request = this.#table.get(id)
      return sample ? { request, draft: drafts.get(id) ?? [] } : { request, draft: null, most: tokens }
    })
    return this.constraints.masks(asked).catch((error: Error) => error)
  }

  /** After a failed step no item has advanced: KV that it left half done is removed. */
  #undo(items: readonly BatchItem[]): void {
    for (const { id, position } of items) {
      const request = this.#table.get(id)
      if (position === 0) this.#slots.drop(request)
      else this.#slots.truncate(request, position)
    }
  }

  /** What was computed is held, but for the KV of drafts that were not chosen. */
  #advance(items: readonly BatchItem[], drafts: Drafts, rows: readonly StepRow[]): void {
    for (const row of rows) {
      const prompt = this.#scores.take(row.id)
      if (prompt !== undefined) row.prompt = prompt
    }
    const kept = new Map(rows.map((row) => [row.id, row.tokens.length - 1]))
    for (const { id, position, tokens } of items) {
      const request = this.#table.get(id)
      const drafted = drafts.get(id)?.length ?? 0
      const accepted = kept.get(id) ?? 0
      request.held = position + tokens + drafted
      if (drafted > accepted) this.#slots.truncate(request, position + tokens + accepted)
    }
  }
}
