/** From rows of logits to tokens: each request's own choice, row after row, as long as it is what was drafted.
 *
 * A drafted token is kept exactly when the request's sampler, with the randomness and the state that it would
 * have without speculation, chooses that token. For a draft that does not depend on that randomness (lookup) it is
 * rejection sampling against a draft distribution of one point (Leviathan et al. 2023: kept with probability
 * p(draft), else drawn from p without the draft). Whatever was drafted, answers are those without speculation:
 * they follow the target's distribution, and a seed gives the same answer however far the planner speculates.
 * Samplers and grammars only ever see kept tokens: nothing has to be rolled back. */
import { setImmediate } from "node:timers/promises"
import type { BatchItem, RequestId } from "../../core/protocol.ts"
import type { Drafts } from "../drafter.ts"
import type { Sampling, StepRow } from "../port.ts"
import type { OpenRequest, RequestTable } from "../request-table.ts"
import { GrammarSampling, parseGrammar } from "./grammar.ts"
import { argmax, biasLogits, logprobsOf } from "./logits.ts"
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
}

export class Verifier {
  readonly #loaded: Loaded
  readonly #table: RequestTable
  readonly #rows: LogitRows
  readonly #chains = new Map<RequestId, Pointer>()
  readonly #grammars = new Map<RequestId, Pointer>()
  #grammarSampling: GrammarSampling | null = null

  constructor(loaded: Loaded, table: RequestTable, rows: LogitRows) {
    this.#loaded = loaded
    this.#table = table
    this.#rows = rows
  }

  /** Throws where the request's grammar is none. */
  open(id: RequestId, prompt: Int32Array, sampling: Sampling): void {
    const { native, vocab, info } = this.#loaded
    if (sampling.grammar !== null) this.#grammars.set(id, parseGrammar(native, vocab, sampling.grammar))
    const chain = samplerChain(native, info.vocabSize, sampling, prompt)
    if (chain) this.#chains.set(id, chain)
  }

  /** A copy of the request's sampler, state and randomness included, or null when it is the largest logit. A
   * draft model that chooses by it has the luck that the target will have. Free it. */
  cloneChain(id: RequestId): Pointer | null {
    const chain = this.#chains.get(id)
    return chain ? this.#loaded.native.cloneSampler(chain) : null
  }

  forget(id: RequestId): void {
    for (const samplers of [this.#chains, this.#grammars]) {
      const sampler = samplers.get(id)
      if (sampler) this.#loaded.native.freeSampler(sampler)
      samplers.delete(id)
    }
  }

  /** Rows of the last decode, items in its order; every kept token becomes known. Chains run on koffi's threads,
   * beside each other: each owns its state and only reads its logits. Grammars share memory: one by one. */
  async choose(items: readonly BatchItem[], drafts: Drafts): Promise<StepRow[]> {
    const sampled = this.#sampledOf(items, drafts)
    const free = sampled.filter(({ request }) => !this.#grammars.has(request.id))
    const rows = new Map<RequestId, StepRow>()
    for (const row of await Promise.all(free.map((one) => this.#verify(one)))) rows.set(row.id, row)
    for (const one of sampled)
      if (!rows.has(one.request.id)) rows.set(one.request.id, await this.#verify(one))
    return sampled.map(({ request }) => rows.get(request.id)!)
  }

  close(): void {
    for (const id of [...this.#chains.keys(), ...this.#grammars.keys()]) this.forget(id)
    this.#grammarSampling?.free()
  }

  #sampledOf(items: readonly BatchItem[], drafts: Drafts): Sampled[] {
    const sampled: Sampled[] = []
    let token = 0
    let row = 0
    for (const item of items) {
      const draft = drafts.get(item.id) ?? []
      token += item.tokens
      if (item.sample) {
        const behind = drafts.get(item.id) === null
        sampled.push({ request: this.#table.get(item.id), token: token - 1, row, draft, behind })
        row += 1 + draft.length
      }
      token += draft.length
    }
    return sampled
  }

  async #verify({ request, token: first, row: firstRow, draft, behind }: Sampled): Promise<StepRow> {
    const { sampling } = request
    const out: StepRow = { id: request.id, tokens: [], end: false, drafted: draft.length }
    if (behind) out.behind = true
    for (let i = 0; i <= draft.length; i++) {
      const row = this.#rows.row(firstRow + i)
      biasLogits(row, sampling, this.#loaded.tokenizer.ends, request.known - request.promptTokens)
      const token = await this.#chooseOne(request, first + i, row)
      out.tokens.push(token)
      out.end = this.#loaded.tokenizer.isEnd(token)
      this.#table.append(request, token, out.end)
      if (sampling.logprobs > 0) {
        out.logprobs ??= []
        out.logprobs.push(logprobsOf(row, token, sampling.logprobs))
        // A millisecond of arithmetic with a large vocabulary: let the event loop breathe between rows.
        await setImmediate()
      }
      if (out.end || token !== draft[i]) break
    }
    return out
  }

  #chooseOne(request: OpenRequest, at: number, row: Float32Array): number | Promise<number> {
    const { native, context, info } = this.#loaded
    const chain = this.#chains.get(request.id) ?? null
    const grammar = this.#grammars.get(request.id)
    if (grammar) {
      this.#grammarSampling ??= new GrammarSampling(native, info.vocabSize)
      return this.#grammarSampling.choose(row, grammar, chain)
    }
    return chain ? native.sample(chain, context, at) : argmax(row)
  }
}
