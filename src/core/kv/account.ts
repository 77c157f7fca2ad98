/** KV accounting: which requests hold how many blocks, which prefixes can be shared, and which ended requests'
 * KV is kept as a cache until room is needed. Mirrors what the engine holds; the engine refuses a mismatch. */
import { assert } from "../assert.ts"
import type { EngineLimits, RequestId } from "../protocol.ts"

interface Sequence {
  id: RequestId
  /** Blocks held, in order; shared ones are also held by others. */
  blocks: number[]
  /** Tokens that its blocks were taken for. */
  tokens: number
  /** The request's own list: grows as its output fills blocks. */
  prefix: readonly number[]
  /** Leading blocks entered in the prefix index. */
  indexed: number
  session: number
  /** Its session is not likely to come back. */
  spent: boolean
}

export interface PrefixMatch {
  from: RequestId
  tokens: number
}

export class KvAccount {
  readonly limits: EngineLimits
  /** Ended requests, or those that must be forgotten, since the last batch. */
  #released: RequestId[] = []
  /** Live requests that lost their KV since the last batch. */
  #dropped = new Set<RequestId>()
  #live = new Map<RequestId, Sequence>()
  /** Ended requests whose KV is kept, least recently used first (a Map keeps insertion order). */
  #cached = new Map<RequestId, Sequence>()
  #index = new Map<number, Sequence>()
  /** Of the cached ones, those that go first. */
  #spent = new Set<Sequence>()
  /** Holders of each block: live and cached sequences; live ones alone; how many blocks have a live holder. */
  #references: Uint32Array
  #liveReferences: Uint32Array
  #liveBlocks = 0
  #free: number[] = []

  constructor(limits: EngineLimits) {
    this.limits = limits
    const blocks = Math.floor(limits.kvTokens / limits.blockTokens)
    this.#references = new Uint32Array(blocks)
    this.#liveReferences = new Uint32Array(blocks)
    for (let block = blocks - 1; block >= 0; block--) this.#free.push(block)
  }

  get capacityTokens(): number {
    return this.#references.length * this.limits.blockTokens
  }
  /** Tokens of room in blocks held by live requests or cached ones. */
  get usedTokens(): number {
    return (this.#references.length - this.#free.length) * this.limits.blockTokens
  }
  /** Tokens of room in blocks that no live request holds: given up as soon as room is needed. */
  get cachedTokens(): number {
    return this.usedTokens - this.#liveBlocks * this.limits.blockTokens
  }
  holds(id: RequestId): boolean {
    return this.#live.has(id)
  }

  /** Longest prefix of full blocks that some sequence holds, short of the whole prompt (≥ 1 token is computed
   * to have logits). */
  match(prefix: readonly number[], promptTokens: number): PrefixMatch | null {
    const most = Math.min(prefix.length, Math.floor((promptTokens - 1) / this.limits.blockTokens))
    let found: Sequence | null = null
    let blocks = 0
    for (; blocks < most; blocks++) {
      const holder = this.#index.get(prefix[blocks]!)
      if (holder === undefined) break
      found = holder
    }
    return found && { from: found.id, tokens: blocks * this.limits.blockTokens }
  }

  /** Start a sequence for a live request, sharing `match` if there is one. Returns the tokens that are in place.
   * Only when `canAttach()`. */
  attach(id: RequestId, prefix: readonly number[], session: number, match: PrefixMatch | null): number {
    assert(!this.#live.has(id), `request ${id} already holds KV`)
    assert(this.canAttach(), "no free sequence")
    const sequence: Sequence = { id, blocks: [], tokens: 0, prefix, indexed: 0, session, spent: false }
    const source = match && (this.#live.get(match.from) ?? this.#cached.get(match.from))
    if (match && source && this.limits.unifiedKv) {
      for (let i = 0; i < match.tokens / this.limits.blockTokens; i++)
        this.#share(sequence, source.blocks[i]!)
      sequence.tokens = match.tokens
    }
    this.#makeRoomForSequence(source, session)
    this.#live.set(id, sequence)
    this.#dropped.delete(id)
    // Without a unified pool nothing is shared in place: the prefix is copied into blocks of its own (or the
    // engine hands the old sequence over when it is released in this same batch).
    if (match && source && !this.limits.unifiedKv) this.grow(id, match.tokens)
    return sequence.tokens
  }

  canAttach(): boolean {
    return this.#live.size < this.limits.maxSequences
  }

  /** Make sure that `tokens` tokens of `id` have room, dropping cached sequences as needed; false when live
   * requests hold too much. */
  grow(id: RequestId, tokens: number): boolean {
    const sequence = this.#live.get(id)
    if (sequence === undefined) assert(false, `request ${id} holds no KV`)
    const need = Math.ceil(tokens / this.limits.blockTokens) - sequence.blocks.length
    while (this.#free.length < need) {
      const least = this.#leastUseful()
      if (least === undefined) return false
      this.#uncache(least)
    }
    for (let i = 0; i < need; i++) this.#share(sequence, this.#free.pop()!)
    if (tokens > sequence.tokens) sequence.tokens = tokens
    return true
  }

  /** Most tokens the sequence of `id` (or a new one) could hold in all if every cached sequence went. */
  roomTokens(id: RequestId): number {
    const own = this.#live.get(id)?.blocks.length ?? 0
    return (this.#references.length - this.#liveBlocks + own) * this.limits.blockTokens
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
    while (sequence.blocks.length > keep) {
      const block = sequence.blocks.pop()!
      if (--this.#liveReferences[block]! === 0) this.#liveBlocks--
      if (--this.#references[block]! === 0) this.#free.push(block)
    }
    sequence.tokens = Math.min(sequence.tokens, tokens)
  }

  /** A step is done: the first `tokens` tokens of `id` are really in place and their full blocks can be shared. */
  computed(id: RequestId, tokens: number): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    sequence.tokens = tokens
    const full = Math.min(sequence.prefix.length, Math.floor(tokens / this.limits.blockTokens))
    for (; sequence.indexed < full; sequence.indexed++) {
      this.#index.set(sequence.prefix[sequence.indexed]!, sequence)
    }
  }

  /** A live request loses its KV (preemption): nothing of it stays. */
  drop(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence === undefined) return
    this.#leaveLive(sequence)
    this.#forget(sequence)
    this.#dropped.add(id)
  }

  /** A request ended: keep its KV as cache if any of it can be shared, else forget it. */
  end(id: RequestId): void {
    const sequence = this.#live.get(id)
    if (sequence !== undefined) this.#leaveLive(sequence)
    this.#dropped.delete(id)
    if (sequence !== undefined && sequence.indexed > 0) {
      this.#cached.set(id, sequence)
      if (sequence.spent) this.#spent.add(sequence)
      return
    }
    if (sequence !== undefined) this.#forget(sequence)
    this.#released.push(id)
  }

  /** Its session is not likely to come back: once it has ended its KV is the first to go. */
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
    if (old !== undefined) this.#spent.delete(old)
    if (old !== undefined) this.#forget(old)
    const released = this.#released.indexOf(id)
    if (released >= 0) this.#released.splice(released, 1)
    if (old !== undefined || released >= 0) this.#dropped.add(id)
  }

  /** Give up the whole cache: after the engine found less room than accounted for. */
  dropCache(): void {
    for (const sequence of [...this.#cached.values()]) this.#uncache(sequence)
  }

  /** Live ids whose KV the engine must drop with the next batch. */
  takeDropped(): RequestId[] {
    if (this.#dropped.size === 0) return []
    const dropped = [...this.#dropped]
    this.#dropped.clear()
    return dropped
  }

  /** Ids whose KV and tokens the engine must forget with the next batch. */
  takeReleased(): RequestId[] {
    if (this.#released.length === 0) return []
    const released = this.#released
    this.#released = []
    return released
  }

  /** Invariants; throws on the first one broken. */
  check(): void {
    const references = new Uint32Array(this.#references.length)
    const live = new Set([...this.#live.values()].flatMap((sequence) => sequence.blocks))
    assert(
      live.size === this.#liveBlocks,
      `${live.size} blocks have live holders, counted ${this.#liveBlocks}`,
    )
    for (const group of [this.#live, this.#cached]) {
      for (const sequence of group.values()) {
        assert(
          sequence.tokens <= sequence.blocks.length * this.limits.blockTokens,
          `request ${sequence.id} has ${sequence.tokens} tokens in ${sequence.blocks.length} blocks`,
        )
        for (const block of sequence.blocks) references[block]!++
      }
    }
    for (let i = 0; i < references.length; i++) {
      assert(
        references[i] === this.#references[i],
        `block ${i} has ${references[i]} holders, counted ${this.#references[i]}`,
      )
    }
    const held = references.reduce((n, r) => n + (r > 0 ? 1 : 0), 0)
    assert(held + this.#free.length === references.length, "blocks lost")
    assert(
      this.#live.size + this.#cached.size <= this.limits.maxSequences,
      "more sequences than the engine has",
    )
    for (const sequence of this.#spent)
      assert(this.#cached.get(sequence.id) === sequence, "spent KV that is not cached")
    for (const sequence of this.#index.values()) {
      assert(
        this.#live.get(sequence.id) === sequence || this.#cached.get(sequence.id) === sequence,
        "stale prefix index",
      )
    }
  }

  /** A session's next round replaces its last; otherwise the least useful cached sequence goes, the
   * source of the prefix only when it is the last one left. */
  #makeRoomForSequence(source: Sequence | null | undefined, session: number): void {
    const cachedSource = source && this.#cached.has(source.id) ? source : null
    if (cachedSource && session >= 0 && cachedSource.session === session) this.#uncache(cachedSource)
    else if (cachedSource) this.#touch(cachedSource)
    if (this.#live.size + this.#cached.size < this.limits.maxSequences) return
    const least = this.#leastUseful()
    assert(least !== undefined, "no free sequence")
    this.#uncache(least)
  }

  /** Give a block to a live (or about to be live) sequence. */
  #share(sequence: Sequence, block: number): void {
    this.#references[block]!++
    if (this.#liveReferences[block]!++ === 0) this.#liveBlocks++
    sequence.blocks.push(block)
  }
  #leaveLive(sequence: Sequence): void {
    this.#live.delete(sequence.id)
    for (const block of sequence.blocks) if (--this.#liveReferences[block]! === 0) this.#liveBlocks--
  }
  /** Least recently used of those whose session will not come back, else of all. */
  #leastUseful(): Sequence | undefined {
    return this.#spent.values().next().value ?? this.#cached.values().next().value
  }
  #touch(sequence: Sequence): void {
    this.#spent.delete(sequence)
    this.#cached.delete(sequence.id)
    this.#cached.set(sequence.id, sequence)
  }
  #uncache(sequence: Sequence): void {
    this.#spent.delete(sequence)
    this.#cached.delete(sequence.id)
    this.#forget(sequence)
    this.#released.push(sequence.id)
  }
  #forget(sequence: Sequence): void {
    for (const block of sequence.blocks) if (--this.#references[block]! === 0) this.#free.push(block)
    for (let i = 0; i < sequence.indexed; i++) {
      const hash = sequence.prefix[i]!
      if (this.#index.get(hash) === sequence) this.#index.delete(hash)
    }
    sequence.blocks = []
  }
}
