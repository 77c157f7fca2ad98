/** From rows of logits to tokens: each request's own choice, row after row, as long as it is what was drafted.
 *
 * A drafted token is kept exactly when the request's sampler, with the randomness and the state that it would
 * have without speculation, chooses that token. For a draft that does not depend on that randomness (lookup) it is
 * rejection sampling against a draft distribution of one point (Leviathan et al. 2023: kept with probability
 * p(draft), else drawn from p without the draft). Whatever was drafted, answers are those without speculation:
 * they follow the target's distribution, and a seed gives the same answer however far the planner speculates.
 * Samplers only ever see kept tokens: nothing has to be rolled back. Grammars come as masks, a row's each. */
import { setImmediate } from "node:timers/promises"
import type { BatchItem, RequestId } from "../../core/protocol.ts"
import { wordEnds } from "../bad-words.ts"
import type { Masks } from "../constraint/constraints.ts"
import { allowsNothing, allowsOthers, applyMask } from "../constraint/mask.ts"
import type { Drafts } from "../drafter.ts"
import type { StepRow } from "../port.ts"
import type { OpenRequest, RequestTable } from "../request-table.ts"
import { argmax, banTokens, biasLogits, isEndless, logprobsOf } from "./logits.ts"
import type { Loaded } from "./model.ts"
import type { Pointer } from "./native.ts"
import type { LogitRows } from "./rows.ts"
import { samplerChain } from "./sampler.ts"

interface Sampled {
  request: OpenRequest
  /** Index in the batch of the token whose row is the first to choose from, and of that row among rows. */
  token: number
  row: number
  draft: readonly number[]
  behind: boolean
  /** Of the first row and of those after it; null: anything may come. */
  masks: readonly Int32Array[] | null
}

export class Verifier {
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #rows: LogitRows
  readonly #chains = new Map<RequestId, Pointer>()

  constructor(loaded: Loaded, table: RequestTable, rows: LogitRows) {
    this.#loaded = loaded
    this.#table = table
    this.#rows = rows
  }

  open(request: OpenRequest): void {
    const { native, info } = this.#loaded
    const chain = samplerChain(native, info.vocabSize, request)
    if (chain) this.#chains.set(request.id, chain)
  }

  /** A copy of the request's sampler, state and randomness included, or null when it is the largest logit. A
   * draft model that chooses by it has the luck that the target will have. Free it. */
  cloneChain(id: RequestId): Pointer | null {
    const chain = this.#chains.get(id)
    return chain ? this.#loaded.native.cloneSampler(chain) : null
  }

  forget(id: RequestId): void {
    const chain = this.#chains.get(id)
    if (chain) this.#loaded.native.freeSampler(chain)
    this.#chains.delete(id)
  }

  /** Rows of the last decode, items in its order; every kept token becomes known. Chains run on koffi's threads,
   * beside each other: each owns its state and only reads its logits. */
  choose(items: readonly BatchItem[], drafts: Drafts, masks: Masks): Promise<StepRow[]> {
    return Promise.all(this.#sampledOf(items, drafts, masks).map((one) => this.#verify(one)))
  }

  close(): void {
    for (const id of [...this.#chains.keys()]) this.forget(id)
  }

  #sampledOf(items: readonly BatchItem[], drafts: Drafts, masks: Masks): Sampled[] {
    const sampled: Sampled[] = []
    let token = 0
    let row = 0
    for (const item of items) {
      const draft = drafts.get(item.id) ?? []
      token += item.tokens
      if (item.sample) {
        const behind = drafts.get(item.id) === null
        const own = masks.get(item.id) ?? null
        sampled.push({ request: this.#table.get(item.id), token: token - 1, row, draft, behind, masks: own })
        row += 1 + draft.length
      }
      token += draft.length
    }
    return sampled
  }

  async #verify({ request, token: first, row: firstRow, draft, behind, masks }: Sampled): Promise<StepRow> {
    const { sampling } = request
    const out: StepRow = { id: request.id, tokens: [], end: false, drafted: draft.length }
    if (behind) out.behind = true
    for (let i = 0; i <= draft.length; i++) {
      const row = this.#rows.row(firstRow + i)
      biasLogits(row, sampling, this.#loaded.tokenizer.ends, request.known - request.promptTokens)
      // Log-probabilities are the model's own: in a grammar most tokens would have none.
      const banned = wordEnds(request)
      const own = (masks || banned.length > 0) && sampling.logprobs > 0 ? row.slice() : row
      if (masks) this.#hold(row, masks[i]!, isEndless(sampling, request.known - request.promptTokens))
      if (banned.length > 0) banTokens(row, banned)
      const token = await this.#chooseOne(request, first + i, row)
      out.tokens.push(token)
      out.end = this.#loaded.tokenizer.isEnd(token)
      this.#table.append(request, token, out.end)
      if (sampling.logprobs > 0) {
        out.logprobs ??= []
        out.logprobs.push(logprobsOf(own, token, sampling.logprobs))
        // A millisecond of arithmetic with a large vocabulary: let the event loop breathe between rows.
        await setImmediate()
      }
      if (out.end || token !== draft[i]) break
    }
    return out
  }

  /** Where a grammar lets nothing come (no token spells what must), the answer ends; one that must not end yet does not
   * where anything else may come. */
  #hold(row: Float32Array, mask: Int32Array, endless: boolean): void {
    const { ends } = this.#loaded.tokenizer
    applyMask(row, mask)
    if (allowsNothing(mask)) row[ends[0]!] = 0
    else if (endless && allowsOthers(mask, ends)) for (const token of ends) row[token] = -Infinity
  }

  #chooseOne(request: OpenRequest, at: number, row: Float32Array): number | Promise<number> {
    const { native, context } = this.#loaded
    const chain = this.#chains.get(request.id)
    return chain ? native.sample(chain, context, at) : argmax(row)
  }
}
