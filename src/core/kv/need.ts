/** What a request would newly take of the KV pool. One answer for the room of a batch, the memory forecast, the spare KV of
 * requests without a promise and the lifetime of a plan: a prefix that a live request holds is taken already, and counted
 * once however many share it. */
import type { LiveRequest } from "../request.ts"
import type { KvAccount } from "./account.ts"

export class KvNeed {
  readonly #kv: KvAccount
  readonly #blockTokens: number

  constructor(kv: KvAccount) {
    this.#kv = kv
    this.#blockTokens = kv.limits.blockTokens
  }

  /** Where computing it would start: after what it holds, or after what it can share. Prefill work counts from here. */
  startOf(request: LiveRequest): number {
    if (request.computed > 0 || request.prefix.length === 0 || this.#kv.holds(request.id))
      return request.computed
    return this.#matched(request) * this.#blockTokens
  }

  /** Tokens of room, in whole blocks that no live request holds, that it takes to hold its first `tokens` tokens. */
  newTokens(request: LiveRequest, tokens: number): number {
    return Math.max(0, this.#wholeBlocks(tokens) - this.#taken(request))
  }

  /** Tokens of room, in whole blocks, that come free when it ends after `tokens` tokens, everything else staying as it
   * is: what it would newly take, where it holds nothing yet. */
  ownTokens(request: LiveRequest, tokens: number): number {
    const { id } = request
    if (!this.#kv.holds(id)) return this.newTokens(request, tokens)
    return this.#kv.ownTokens(id) + this.newTokens(request, tokens)
  }

  /** Of its prompt, tokens that other live requests hold as well: they are taken once for all. */
  sharedTokens(request: LiveRequest): number {
    const { id } = request
    return this.#kv.holds(id) ? this.#kv.heldTokens(id) - this.#kv.ownTokens(id) : this.#taken(request)
  }

  /** Most tokens that it could hold in all if the cache went and no live request lost anything. */
  roomTokens(request: LiveRequest): number {
    return this.#kv.spareTokens + this.#taken(request)
  }

  /** Tokens, in whole blocks, that need no new room: what it holds, or what live requests hold of its prefix. */
  #taken(request: LiveRequest): number {
    const { id, prefix } = request
    if (this.#kv.holds(id)) return this.#kv.heldTokens(id)
    if (prefix.length === 0) return 0
    const matched = this.#matched(request)
    return this.#kv.liveBlocks(prefix, matched) * this.#blockTokens
  }

  #matched(request: LiveRequest): number {
    const { epoch } = this.#kv
    if (request.matchedAt !== epoch) {
      request.matched = this.#kv.matchedBlocks(request.prefix, request.spec.promptTokens, request.matched)
      request.matchedAt = epoch
    }
    return request.matched
  }

  #wholeBlocks(tokens: number): number {
    return Math.ceil(tokens / this.#blockTokens) * this.#blockTokens
  }
}
