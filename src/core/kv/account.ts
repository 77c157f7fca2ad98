/** KV accounting: which requests hold how many blocks, which prefixes can be shared, and which blocks of ended requests
 * are kept as a cache until room is needed. Mirrors what the engine holds; the engine refuses a mismatch. */
import { assert } from "../assert.ts"
import type { EngineLimits, RequestId } from "../protocol.ts"
import { Blocks } from "./blocks.ts"
import { doubtfulBlocks, inheritedBlocks } from "./common-blocks.ts"
import { ComputedBlocks } from "./computed-blocks.ts"
import { KvOrders } from "./orders.ts"
import type { PrefixMatch, Sequence } from "./sequence.ts"

/** Sequences that computed the same prefix on their own are looked through for a live one, up to so many. */
const MOST_COPIES_TRIED = 4

export class KvAccount {
  readonly limits: EngineLimits
  /** Since the last batch. */
  readonly orders = new KvOrders()
  #live = new Map<RequestId, Sequence>()
  /** Ended requests whose KV is kept, least recently ended first (a Map keeps insertion order). */
  #cached = new Map<RequestId, Sequence>()
  #computed: ComputedBlocks<Sequence>
  /** Of the cached ones, those that give up blocks first. */
  #spent = new Set<Sequence>()
  #blocks: Blocks
  #nextName = 1
  #evictedBlocks = 0
  /** Blocks that an engine which owns its KV has less than is accounted for; -1: it has not counted since it went on. */
  #missing = -1
  /** The engine that owns it says what is free: what requests leave is so at once. */
  isCounted = false
  /** Changes with what can be shared: an answer found at the same epoch still holds. */
  epoch = 0

  constructor(limits: EngineLimits) {
    this.limits = limits
    const count = Math.floor(limits.kvTokens / limits.blockTokens)
    this.#blocks = new Blocks(count)
    this.#computed = new ComputedBlocks(count)
  }

  get capacityTokens(): number {
    return this.#blocks.count * this.limits.blockTokens
  }
  /** Tokens of room in blocks held by live requests or cached ones. */
  get usedTokens(): number {
    return (this.#blocks.count - this.#blocks.free) * this.limits.blockTokens
  }
  /** Tokens of room in blocks that no live request holds: given up as soon as room is needed. */
  get cachedTokens(): number {
    return this.usedTokens - this.#blocks.live * this.limits.blockTokens
  }
  /** Tokens of room that the cache gave up since the start, without what was not likely to be used again. */
  get evictedTokens(): number {
    return this.#evictedBlocks * this.limits.blockTokens
  }
  /** Tokens of room in blocks that no live request holds, cached or free: what live ones may newly take. */
  get spareTokens(): number {
    return this.#spareBlocks * this.limits.blockTokens
  }
  get #spareBlocks(): number {
    return Math.max(0, this.#blocks.count - this.#blocks.live - Math.max(0, this.#missing))
  }

  /** An engine that owns its KV has so much room in blocks that no live request holds: no more can be newly taken, whatever is
   * accounted for. null: it has gone on since. */
  bound(tokens: number | null): void {
    const { count, live } = this.#blocks
    this.#missing = -1
    if (tokens === null) return
    this.isCounted = true
    // What is to be dropped is not free in its eyes before it hears of that: without it no batch that says so might find room.
    const free = Math.floor(tokens / this.limits.blockTokens) + this.orders.pendingBlocks
    this.#missing = Math.max(0, count - live - free)
  }
  /** Tokens of room in blocks that several live requests share. */
  get sharedTokens(): number {
    return this.#blocks.shared * this.limits.blockTokens
  }
  holds(id: RequestId): boolean {
    return this.#live.has(id)
  }
  /** Tokens of room in the blocks of `id`; `ownTokens`: in those that no other live request holds. */
  heldTokens(id: RequestId): number {
    return (this.#live.get(id)?.blocks.length ?? 0) * this.limits.blockTokens
  }
  ownTokens(id: RequestId): number {
    return (this.#live.get(id)?.own ?? 0) * this.limits.blockTokens
  }

  blocksOf(id: RequestId): readonly number[] {
    return this.#live.get(id)?.blocks ?? []
  }
  /** See `inheritedBlocks`; of live requests. */
  inherited(left: readonly number[], heirs: readonly RequestId[]): number[] {
    const sequences = heirs.map((id) => this.#live.get(id)!)
    return inheritedBlocks(left, sequences, (block) => this.#blocks.liveHolders(block))
  }

  /** Leading full blocks of a prompt that some sequence holds, short of the whole prompt (≥ 1 token is computed to have
   * logits). `near`: the answer last time, if there was one. */
  matchedBlocks(prefix: readonly number[], promptTokens: number, near = 0): number {
    const most = Math.min(prefix.length, Math.floor((promptTokens - 1) / this.limits.blockTokens))
    return most === 0 ? 0 : this.#computed.longest(prefix, most, near)
  }

  /** Longest prefix of full blocks that some sequence holds, and which one is to be shared. */
  match(prefix: readonly number[], promptTokens: number): PrefixMatch | null {
    const blocks = this.matchedBlocks(prefix, promptTokens)
    const from = blocks === 0 ? undefined : this.#source(prefix, blocks)
    return from === undefined ? null : { from: from.id, tokens: blocks * this.limits.blockTokens }
  }

  /** Of the leading `blocks` blocks of `prefix`, which some sequence holds: those that sharing takes from no room, since a
   * live request holds them. None in a split pool, where a prefix is copied. */
  liveBlocks(prefix: readonly number[], blocks: number): number {
    if (blocks === 0 || !this.limits.unifiedKv) return 0
    const source = this.#source(prefix, blocks)
    if (source === undefined) return 0
    if (this.#blocks.isLive(source.blocks[blocks - 1]!)) return blocks
    let low = 0
    let high = blocks - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#blocks.isLive(source.blocks[middle - 1]!)) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Start a sequence for a live request, sharing `match` if there is one. Returns the tokens that are in place.
   * Only when `canAttach()`. */
  attach(id: RequestId, prefix: readonly number[], session: number, match: PrefixMatch | null): number {
    assert(!this.#live.has(id), `request ${id} already holds KV`)
    assert(this.canAttach(), "no free sequence")
    const source = match && (this.#live.get(match.from) ?? this.#cached.get(match.from))
    const blocks = match && source ? match.tokens / this.limits.blockTokens : 0
    const sequence: Sequence = {
      ...{ id, name: this.#nextName++, blocks: [], tokens: 0, prefix, indexed: 0, session },
      ...{ spent: false, common: 0, own: 0 },
    }
    if (source && (session < 0 || source.session !== session)) {
      sequence.common = blocks
      source.common = Math.max(source.common, blocks)
    }
    if (source && this.limits.unifiedKv) {
      for (let i = 0; i < blocks; i++) this.#blocks.share(sequence, source.blocks[i]!)
      sequence.tokens = match!.tokens
    }
    this.#makeRoomForSequence(source, session)
    this.#live.set(id, sequence)
    this.orders.restart(id)
    // Without a unified pool nothing is shared in place: the prefix is copied into blocks of its own (or the
    // engine hands the old sequence over when it is released in this same batch).
    if (source && !this.limits.unifiedKv) this.grow(id, match!.tokens)
    return sequence.tokens
  }

  canAttach(): boolean {
    return this.#live.size < this.limits.maxSequences
  }

  /** Make sure that `tokens` tokens of `id` have room, taking cached blocks as needed; false when live requests hold
   * too much. */
  grow(id: RequestId, tokens: number): boolean {
    const sequence = this.#live.get(id)
    if (sequence === undefined) assert(false, `request ${id} holds no KV`)
    const need = Math.ceil(tokens / this.limits.blockTokens) - sequence.blocks.length
    if (need > this.#spareBlocks) return false
    while (this.#blocks.free < need) this.#giveUpBlock()
    for (let i = 0; i < need; i++) this.#blocks.take(sequence)
    if (tokens > sequence.tokens) sequence.tokens = tokens
    return true
  }

  /** Live requests that hold KV. */
  get liveSequences(): number {
    return this.#live.size
  }

  /** Give back the blocks beyond the first `tokens` tokens of `id`: drafted tokens that were not accepted. */
  shrink(id: RequestId, tokens: number): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    const keep = Math.ceil(tokens / this.limits.blockTokens)
    assert(keep >= sequence.indexed, `request ${id} would lose KV that others may share`)
    while (sequence.blocks.length > keep) this.#blocks.pop(sequence)
    sequence.tokens = Math.min(sequence.tokens, tokens)
  }

  /** A step is done: the first `tokens` tokens of `id` are really in place and their full blocks can be shared. */
  computed(id: RequestId, tokens: number): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    const { blocks, prefix } = sequence
    // Where the engine owns its KV it may have more than was accounted for.
    sequence.tokens = Math.min(tokens, blocks.length * this.limits.blockTokens)
    const full = Math.min(prefix.length, Math.floor(sequence.tokens / this.limits.blockTokens))
    if (sequence.indexed < full) this.epoch++
    this.#computed.grow(sequence, full)
  }

  /** Only the first `tokens` tokens of `id` are in place after all: no others share what is beyond. */
  uncomputed(id: RequestId, tokens: number): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    const full = Math.floor(tokens / this.limits.blockTokens)
    if (sequence.indexed > full) this.epoch++
    this.#computed.shrink(sequence, full)
    sequence.tokens = Math.min(sequence.tokens, tokens)
  }

  /** It has lost its KV already: the engine need not be told. */
  lose(id: RequestId): void {
    this.drop(id)
    this.orders.dontDrop(id)
  }

  /** A live request loses its KV (preemption): nothing of it stays. */
  drop(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    const blocks = this.#leave(sequence)
    this.#forget(sequence)
    this.orders.drop(id, blocks)
  }

  /** What it took for the batch being built goes back: the engine has not heard of it, and what it had before is still to go. */
  forgo(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    this.#leaveLive(sequence)
    this.#forget(sequence)
    this.orders.dontRestart(id)
  }

  /** A request ended: keep its KV as cache if any of it can be shared, else forget it. */
  end(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence !== undefined) this.#leave(sequence)
    this.orders.dontDrop(id)
    if (sequence !== undefined && sequence.indexed > 0) {
      this.#cached.set(id, sequence)
      if (sequence.spent) this.#spent.add(sequence)
      return
    }
    if (sequence !== undefined) this.#forget(sequence)
    this.orders.release(id)
  }

  /** Its session is not likely to come back: once it has ended, what it alone has of its KV is the first to go. */
  wontReturn(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence !== undefined) sequence.spent = true
  }

  /** A request that left is live again and starts afresh: what the engine still has of it must go. */
  comeBack(id: RequestId): void {
    const live = this.#live.get(id)
    const old = live ?? this.#cached.get(id)
    if (live !== undefined) this.#leaveLive(live)
    this.#cached.delete(id)
    this.orders.dontTrim(id)
    if (old !== undefined) this.#spent.delete(old)
    if (old !== undefined) this.#forget(old)
    if (this.orders.dontRelease(id) || old !== undefined) this.orders.drop(id)
  }

  /** Give up the whole cache: after the engine found less room than accounted for. */
  dropCache(): void {
    for (const sequence of [...this.#cached.values()]) this.#uncache(sequence)
  }

  /** Invariants; throws on the first one broken. */
  check(): void {
    this.#blocks.check(this.#live.values(), this.#cached.values())
    for (const { id, tokens, blocks } of [...this.#live.values(), ...this.#cached.values()])
      assert(
        tokens <= blocks.length * this.limits.blockTokens,
        `request ${id} has ${tokens} tokens in ${blocks.length} blocks`,
      )
    assert(this.#live.size <= this.limits.maxSequences, "more live sequences than the engine has")
    assert(this.#live.size + this.#cached.size <= this.#mostSequences, "more sequences than the engine has")
    for (const sequence of this.#spent)
      assert(this.#cached.get(sequence.id) === sequence, "spent KV that is not cached")
    this.#computed.check(this.#all())
  }

  get #mostSequences(): number {
    return this.limits.maxSequences + (this.limits.cachedSequences ?? 0)
  }

  /** Which sequence with these leading blocks to share: blocks that are live already take no more room. */
  #source(prefix: readonly number[], blocks: number): Sequence | undefined {
    let first: number | undefined
    let tried = 0
    for (const block of this.#computed.copies(prefix[blocks - 1]!)) {
      const live = this.#blocks.isLive(block)
      if (live || first === undefined) first = block
      // Copies of one prefix are few: the first one is shared by those that come after.
      if (live || ++tried === MOST_COPIES_TRIED) break
    }
    return first === undefined ? undefined : this.#computed.sequenceWith(first, blocks - 1, () => this.#all())
  }

  *#all(): IterableIterator<Sequence> {
    yield* this.#live.values()
    yield* this.#cached.values()
  }

  /** A session's next round replaces its last. Where the engine has no sequence left, the cached one that was used
   * longest ago goes whole, the source of the prefix only when it is the last one left. */
  #makeRoomForSequence(source: Sequence | null | undefined, session: number): void {
    const cachedSource = source && this.#cached.has(source.id) ? source : null
    if (cachedSource && session >= 0 && cachedSource.session === session) this.#uncache(cachedSource)
    else if (cachedSource && !this.limits.unifiedKv) this.#touch(cachedSource)
    if (this.#live.size + this.#cached.size < this.#mostSequences) return
    let least = this.#leastUseful()
    assert(least !== undefined, "no free sequence")
    if (least === cachedSource && this.#cached.size > 1) {
      this.#touch(least)
      least = this.#leastUseful()!
    }
    this.#uncache(least)
  }

  /** A live sequence goes. Answers how many blocks are free then by the engine's count, too. */
  #leave(sequence: Sequence): number {
    const isOwn = (block: number) => this.#blocks.isOwn(block)
    const doubtful = this.isCounted ? doubtfulBlocks(sequence, this.#live.values(), isOwn) : 0
    if (this.#missing >= 0) this.#missing += doubtful
    const freed = sequence.own - doubtful
    this.#leaveLive(sequence)
    return freed
  }

  #leaveLive(sequence: Sequence): void {
    this.#live.delete(sequence.id)
    this.#blocks.retire(sequence)
  }

  /** What ended longest ago, of those whose session will not come back first. */
  #leastUseful(): Sequence | undefined {
    return this.#spent.values().next().value ?? this.#cached.values().next().value
  }

  /** Free one block: the last one of the least useful cached sequence, so that none goes before those that follow it. A
   * split pool's sequences are streams of their own, given up whole. */
  #giveUpBlock(): void {
    for (const sequence of this.#spent) {
      if (sequence.blocks.length > sequence.common && this.#trim(sequence)) return
      // What is left of it serves other sessions, too.
      this.#spent.delete(sequence)
    }
    for (const sequence of this.#cached.values()) if (this.#trim(sequence)) return
    assert(false, "blocks without a live holder are neither free nor cached")
  }

  /** Take the last block of a cached sequence. False when that frees none, because others hold it, too; then the
   * sequence goes as well, if the others can be found in its stead. */
  #trim(sequence: Sequence): boolean {
    const last = sequence.blocks.length - 1
    if (this.#blocks.holders(sequence.blocks[last]!) > 1) {
      if (this.#computed.count(sequence.prefix[last]!) > 1) this.#uncache(sequence)
      return false
    }
    if (last === 0 || !this.limits.unifiedKv) {
      this.#uncache(sequence)
      return true
    }
    this.epoch++
    this.#computed.shrink(sequence, last)
    this.#blocks.popRetired(sequence)
    if (!sequence.spent) this.#evictedBlocks++
    sequence.tokens = Math.min(sequence.tokens, last * this.limits.blockTokens)
    this.orders.trim(sequence.id, sequence.tokens)
    return true
  }

  #touch(sequence: Sequence): void {
    this.#spent.delete(sequence)
    this.#cached.delete(sequence.id)
    this.#cached.set(sequence.id, sequence)
  }
  #uncache(sequence: Sequence): void {
    this.#spent.delete(sequence)
    this.#cached.delete(sequence.id)
    this.orders.dontTrim(sequence.id)
    const { free } = this.#blocks
    this.#forget(sequence)
    if (!sequence.spent) this.#evictedBlocks += this.#blocks.free - free
    this.orders.release(sequence.id)
  }
  #forget(sequence: Sequence): void {
    this.epoch++
    this.#computed.shrink(sequence, 0)
    this.#blocks.forget(sequence)
  }
}
