/** Drafts by a smaller model of the same vocabulary, all requests of a step together. It chooses by copies of the
 * requests' samplers: the same randomness makes sampled drafts agree more often than the likeliest token would
 * (generated pair, temperature 1: 0.47 accepted instead of 0.25). Its KV lies in the same
 * sequences as the target's (slots.ts moves both) and may lag behind it, never lead. */
import type { BatchItem, RequestId } from "../../core/protocol.ts"
import { UserError } from "../../errors.ts"
import { wordEnds } from "../bad-words.ts"
import type { Drafter, Drafts } from "../drafter.ts"
import type { OpenRequest, RequestTable } from "../request-table.ts"
import { BatchBuffers, type BatchPart } from "./batch.ts"
import { argmax, banTokens, biasLogits } from "./logits.ts"
import { type Loaded, openModel } from "./model.ts"
import type { Pointer } from "./native.ts"
import type { LlamaOptions } from "./options.ts"
import { LogitRows } from "./rows.ts"
import type { Slots } from "./slots.ts"
import type { Verifier } from "./verify.ts"

/** Vocabularies of one family are padded differently (llama.cpp allows as much). */
const MOST_PADDING = 128
/** A request that does not speculate now is kept up with in pieces of this size. */
const LAG_TOKENS = 16
/** After so many steps without a draft no request is kept up with: where drafts do not pay, the draft model must
 * cost nothing. A request that drafts later is caught up with first. */
const IDLE_STEPS = 64
/** Tokens of catching up that a step may take: a whole prompt at once would make all of the batch late. */
const CATCH_UP_TOKENS = 256

/** One request's drafting in one step. */
interface Draft {
  request: OpenRequest
  slot: number
  /** Tokens [0, end) are known, or will be computed by the target in this step. */
  end: number
  /** Tokens wanted. */
  count: number
  /** More were, but the draft model has not read so far. */
  behind: boolean
  tokens: number[]
  /** A copy of the request's sampler; null: the likeliest token. */
  chain: Pointer | null
  /** Nothing can follow: enough, or an end token. */
  done: boolean
}

interface Part extends BatchPart {
  draft: Draft
}

/** The draft model, in a context shaped as the target's. */
export async function openDraftModel(path: string, options: LlamaOptions, target: Loaded): Promise<Loaded> {
  const { limits } = target
  const draft = await openModel({
    ...options,
    modelPath: path,
    speculate: "off",
    kvUnified: limits.unifiedKv,
    kvTokens: limits.kvTokens,
    maxSequences: limits.maxSequences,
    contextTokens: limits.contextTokens,
  })
  const why = vocabularyMismatch(target, draft)
  if (why === null) return draft
  draft.native.freeContext(draft.context)
  draft.native.freeModel(draft.model)
  throw new UserError(
    `${path} cannot draft for ${options.modelPath}: ${why}; choose a draft model of the same family`,
    { code: "draft_vocabulary" },
  )
}

export class ModelDrafter implements Drafter {
  readonly #draft: Loaded
  readonly #targetVocabSize: number
  readonly #table: RequestTable
  readonly #slots: Slots
  readonly #samplers: Pick<Verifier, "cloneChain">
  readonly #batch: BatchBuffers
  readonly #rows: LogitRows
  /** Steps since a request was to draft. */
  #idleSteps = 0

  constructor(
    draft: Loaded,
    targetVocabSize: number,
    table: RequestTable,
    slots: Slots,
    samplers: Pick<Verifier, "cloneChain">,
  ) {
    this.#samplers = samplers
    this.#draft = draft
    this.#targetVocabSize = targetVocabSize
    this.#table = table
    this.#slots = slots
    this.#batch = new BatchBuffers(draft.limits.maxBatchTokens)
    this.#rows = new LogitRows(draft.native, draft.context, draft.info.vocabSize, draft.maxOutputs)
  }

  async propose(items: readonly BatchItem[]): Promise<Drafts> {
    this.#idleSteps = items.some(({ draft }) => draft > 0) ? 0 : this.#idleSteps + 1
    const drafts = this.#due(items)
    try {
      await this.#draftAll(drafts)
    } finally {
      for (const { chain } of drafts) if (chain) this.#draft.native.freeSampler(chain)
    }
    const found = new Map<RequestId, readonly number[] | null>()
    for (const { request, tokens, behind } of drafts)
      if (behind || tokens.length > 0) found.set(request.id, behind ? null : tokens)
    return found
  }

  close(): void {
    const { native, context, model } = this.#draft
    native.freeContext(context)
    native.freeModel(model)
    this.#batch.free()
  }

  async #draftAll(drafts: readonly Draft[]): Promise<void> {
    let going = (await this.#catchUp(drafts)) ? drafts.filter(({ done }) => !done) : []
    while (going.length > 0) {
      const parts = going.map((draft) => ({
        draft,
        slot: draft.slot,
        position: draft.request.draftHeld,
        tokens: draft.tokens.slice(-1),
        outputs: 1,
      }))
      if (!(await this.#decode(parts))) break
      going = going.filter(({ done }) => !done)
    }
  }

  /** The requests that draft, or are caught up with. */
  #due(items: readonly BatchItem[]): Draft[] {
    // As much as the target computes, or a request that is behind would stay so.
    let room = Math.max(
      CATCH_UP_TOKENS,
      items.reduce((sum, { tokens }) => sum + tokens, 0),
    )
    // Those nearly there go first: one that is far behind would keep all others from drafting.
    const lag = ({ id, position, tokens }: BatchItem) => position + tokens - this.#table.get(id).draftHeld
    return [...items]
      .sort((a, b) => lag(a) - lag(b))
      .flatMap((item) => {
        const draft = this.#begin(item, room)
        if (draft === null) return []
        room -= draft.end - draft.request.draftHeld
        return [draft]
      })
  }

  #begin({ id, position, tokens, draft: asked }: BatchItem, room: number): Draft | null {
    const request = this.#table.get(id)
    const last = position + tokens
    const lag = last - request.draftHeld
    if (asked === 0 && (lag < LAG_TOKENS || this.#idleSteps >= IDLE_STEPS)) return null
    const end = request.draftHeld + Math.min(lag, room)
    if (!this.#knows(request, end)) return null
    const count = end === last ? asked : 0
    const chain = count > 0 ? this.#samplers.cloneChain(id) : null
    const behind = count < asked
    return { request, slot: this.#slots.slot(id), end, count, behind, chain, tokens: [], done: count === 0 }
  }

  /** Computes what the target knows or is about to; the last token of a request that wants drafts gives
   * the first of them. */
  async #catchUp(drafts: readonly Draft[]): Promise<boolean> {
    const behind = drafts.filter(({ end, request }) => end > request.draftHeld)
    const left = new Map(behind.map((draft) => [draft, draft.request.draftHeld]))
    while (left.size > 0) {
      let room = this.#draft.limits.maxBatchTokens
      const parts: Part[] = []
      for (const [draft, position] of left) {
        const to = Math.min(draft.end, position + room)
        if (to === position) break
        const outputs = draft.count > 0 && to === draft.end ? 1 : 0
        const tokens = draft.request.tokens.subarray(position, to)
        parts.push({ draft, slot: draft.slot, position, tokens, outputs })
        room -= to - position
        if (to === draft.end) left.delete(draft)
        else left.set(draft, to)
      }
      if (!(await this.#decode(parts))) return false
    }
    return true
  }

  /** One pass of the draft model. False where it has no room: then no request drafts further in this step. */
  async #decode(parts: readonly Part[]): Promise<boolean> {
    const { native, context, gpu } = this.#draft
    const code = await native.decode(context, this.#batch.fill(parts))
    if (gpu && code === 0) await native.synchronize(context)
    if (code !== 0)
      for (const { slot, position } of parts) native.removeKv(native.memory(context), slot, position, -1)
    else await Promise.all(this.#chosen(parts))
    return code === 0
  }

  /** Takes every wanted row's token; samplers run beside each other. */
  *#chosen(parts: readonly Part[]): Iterable<Promise<void>> {
    let [row, at] = [0, -1]
    for (const { draft, position, tokens, outputs } of parts) {
      at += tokens.length
      draft.request.draftHeld = position + tokens.length
      if (outputs > 0) yield this.#push(draft, this.#rows.row(row++), at)
    }
  }

  /** `at`: the index in the batch of the token behind which the row stands. */
  async #push(draft: Draft, row: Float32Array, at: number): Promise<void> {
    const { request, tokens, chain } = draft
    const { native, context, tokenizer } = this.#draft
    biasLogits(row, request.sampling, tokenizer.ends, request.known + tokens.length - request.promptTokens)
    banTokens(row, wordEnds(request, tokens))
    const token = chain ? await native.sample(chain, context, at) : argmax(row)
    // Padding of the draft's vocabulary is no token of the target's.
    if (token < this.#targetVocabSize) tokens.push(token)
    draft.done = token >= this.#targetVocabSize || tokens.length === draft.count || tokenizer.isEnd(token)
  }

  /** Padding tokens of the target are none of the draft's. */
  #knows(request: OpenRequest, end: number): boolean {
    for (let i = request.draftHeld; i < end; i++)
      if (request.tokens[i]! >= this.#draft.info.vocabSize) return false
    return true
  }
}

/** Why the draft's tokens are not the target's, or null. */
function vocabularyMismatch(target: Loaded, draft: Loaded): string | null {
  const [most, least] = [target.info.vocabSize, draft.info.vocabSize].sort((a, b) => b - a) as [
    number,
    number,
  ]
  if (most - least > MOST_PADDING)
    return `its vocabulary has ${draft.info.vocabSize} tokens, not ${target.info.vocabSize}`
  for (let token = 0; token < least; token++) {
    const [ours, theirs] = [target, draft].map(({ native, vocab }) => native.tokenText(vocab, token))
    if (ours !== theirs)
      return `token ${token} is ${JSON.stringify(theirs)} there and ${JSON.stringify(ours)} here`
  }
  return null
}
