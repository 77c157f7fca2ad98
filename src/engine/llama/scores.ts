/** Prompts each token of which is judged (Sampling.promptLogprobs). Their tokens are computed in passes of their own before the
 * step's, a row of logits for each: a context has room for few rows at a time. */
import { setImmediate } from "node:timers/promises"
import type { BatchItem, RequestId } from "../../core/protocol.ts"
import type { TokenLogprob } from "../port.ts"
import type { OpenRequest, RequestTable } from "../request-table.ts"
import type { BatchBuffers } from "./batch.ts"
import { logprobsOf } from "./logits.ts"
import { type Loaded, SCORED_ROWS } from "./model.ts"
import { LogitRows } from "./rows.ts"
import type { Slots } from "./slots.ts"

export class PromptScores {
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #slots: Slots
  readonly #batch: BatchBuffers
  readonly #rows: LogitRows
  /** Of token i at i - 1. Until they are taken. */
  readonly #scores = new Map<RequestId, TokenLogprob[]>()

  constructor(loaded: Loaded, table: RequestTable, slots: Slots, batch: BatchBuffers) {
    this.#loaded = loaded
    this.#table = table
    this.#slots = slots
    this.#batch = batch
    this.#rows = new LogitRows(loaded.native, loaded.context, loaded.info.vocabSize, SCORED_ROWS)
  }

  /** One that goes on after tokens of its own has told its scores before. */
  open({ id, sampling, known, promptTokens }: OpenRequest): void {
    if (sampling.promptLogprobs && known === promptTokens) this.#scores.set(id, [])
  }

  forget(id: RequestId): void {
    this.#scores.delete(id)
  }

  /** What the step's own pass computes of the items: of these prompts the last token alone, which the answer follows. */
  rest(items: readonly BatchItem[]): readonly BatchItem[] {
    if (this.#scores.size === 0) return items
    return items.flatMap((item) => {
      if (!this.#scores.has(item.id)) return item
      return item.sample ? { ...item, position: item.position + item.tokens - 1, tokens: 1 } : []
    })
  }

  /** Computes the others. Answers with the first code of llama_decode that is not 0, else 0. */
  async compute(items: readonly BatchItem[]): Promise<number> {
    if (this.#scores.size === 0) return 0
    for (const { id, position, tokens, sample } of items) {
      const scores = this.#scores.get(id)
      if (scores === undefined) continue
      const end = position + tokens - (sample ? 1 : 0)
      for (let at = position; at < end; at += SCORED_ROWS) {
        const code = await this.#pass(this.#table.get(id), scores, at, Math.min(end, at + SCORED_ROWS))
        if (code !== 0) return code
      }
    }
    return 0
  }

  /** All of a prompt, once: its last token is computed. Undefined where they were not asked for, or taken before. */
  take(id: RequestId): TokenLogprob[] | undefined {
    const scores = this.#scores.get(id)
    this.#scores.delete(id)
    return scores
  }

  async #pass(request: OpenRequest, scores: TokenLogprob[], from: number, to: number): Promise<number> {
    const { native, context, gpu } = this.#loaded
    const tokens = request.tokens.subarray(from, to)
    const part = { slot: this.#slots.slot(request.id), position: from, tokens, outputs: tokens.length }
    const code = await native.decode(context, this.#batch.fill([part]))
    if (code !== 0) return code
    if (gpu) await native.synchronize(context)
    const { promptLogprobs = 0 } = request.sampling
    for (let i = 0; i < tokens.length; i++) {
      scores[from + i] = logprobsOf(this.#rows.row(i), request.tokens[from + i + 1]!, promptLogprobs)
      // Half a millisecond of arithmetic with a large vocabulary: let the event loop breathe between rows.
      await setImmediate()
    }
    return 0
  }
}
