/** The batch under construction. Adding a request takes its KV at once (evicting the cache, then those that the
 * policy gives up), and keeps the batch's predicted time at hand. */
import { assert } from "../assert.ts"
import { type CostModel, type StepShape, stepUs } from "../cost.ts"
import { type StepKind, stepKind } from "../learn/calibration.ts"
import type { BatchItem } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { AdapterPlaces } from "./adapters.ts"
import type { PlanningContext } from "./context.ts"
import { RunningShape } from "./shape.ts"

export class BatchBuilder {
  readonly context: PlanningContext
  /** Of adapters, which the batch may compute only so many of. */
  readonly adapters: AdapterPlaces

  items: BatchItem[] = []
  /** Whose they are, in the same order. */
  requests: LiveRequest[] = []
  #shape: RunningShape
  /** Requests in the batch are marked with its number. */
  #number = 1
  /** Those whose KV it took. */
  #victims: LiveRequest[] = []
  /** A list of requests none of which has KV to give up for this batch. */
  #exhausted: readonly LiveRequest[] | null = null
  /** See `#leastMoreUs`; -1: to be computed. */
  #leastMore = -1
  /** The time of the batch as it stands, margin included, µs; -1: to be computed. */
  #asItIs = -1
  /** Items of one token, and of more. */
  #singles = 0
  #chunks = 0

  constructor(context: PlanningContext) {
    this.context = context
    this.adapters = new AdapterPlaces(context.limits.maxAdapters)
    this.#shape = new RunningShape(context.cost)
  }

  /** Start the next batch, which would begin at `nowUs`, with the same scratch memory. */
  reset(nowUs = 0): void {
    this.context.begin(nowUs)
    this.#exhausted = null
    this.#victims = []
    // The last batch's items belong to whatever runs it.
    this.items = []
    this.requests = []
    this.#number++
    this.#shape.reset()
    this.adapters.clear()
    this.#singles = this.#chunks = 0
    this.#leastMore = this.#asItIs = -1
  }

  has(request: LiveRequest): boolean {
    return request.batch === this.#number
  }
  /** It holds KV, or did until this batch took it. */
  held(request: LiveRequest): boolean {
    return this.context.kv.holds(request.id) || this.#victims.includes(request)
  }
  /** Tokens in the batch, drafted ones included. */
  get tokens(): number {
    return this.#shape.tokens
  }
  get tokensLeft(): number {
    return this.context.limits.maxBatchTokens - this.#shape.tokens
  }

  /** Pieces of prompts in the batch. */
  get chunks(): number {
    return this.#chunks
  }

  /** Predicted time of the batch as it stands, with `tokens` more of a request at `position`, `rows` output rows of them, and
   * `draft` drafted ones; calibrated, in µs. */
  timeUs(position = 0, tokens = 0, rows = 0, draft = 0): number {
    const shape = this.#shape.with(position, tokens, rows, draft)
    const kind = stepKind(this.#chunks > 0 || tokens > 1, shape.specSteps > 0)
    return stepUs(this.context.cost, shape) * this.context.nextCalibration(kind)
  }

  /** The same with the margin of such a step: as a rule it takes no longer. */
  safeUs(position = 0, tokens = 0, rows = 0, draft = 0): number {
    const shape = this.#shape.with(position, tokens, rows, draft)
    const kind = stepKind(this.#chunks > 0 || tokens > 1, shape.specSteps > 0)
    const calibration = this.context.nextCalibration(kind)
    return stepUs(this.context.cost, shape) * calibration * (1 + this.context.margin(kind))
  }

  /** Which kind of step it is as it stands. */
  get kind(): StepKind {
    return stepKind(this.#chunks > 0, this.#shape.with(0, 0, 0, 0).specSteps > 0)
  }
  /** What the time of the batch as it stands depends on; a copy. */
  shape(): StepShape {
    return { ...this.#shape.with(0, 0, 0, 0) }
  }

  /** Batches are timed by `cost` from the next one on. */
  believe(cost: CostModel): void {
    this.context.believe(cost)
    this.#shape = new RunningShape(cost)
  }

  /** Add the next decode of `request`, drafting up to `draft` tokens: fewer when it may not produce so many, or
   * when only giving a request up would make room for them. False when there is no room for the decode itself
   * (tokens, KV or a place for its adapter), or when the request has lost its own KV to an earlier one of this batch. */
  decode(request: LiveRequest, spare?: readonly LiveRequest[], draft = 0): boolean {
    if (!request.decoding || !this.adapters.allow(request)) return false
    if (draft > 0) return this.#add(request, 1, spare, this.#draftRoom(request, draft))
    // Most decodes need no KV but what they hold.
    if (!this.#inLastBlock(request.computed, 1)) return this.#add(request, 1, spare)
    if (this.tokensLeft < 1) return false
    this.#put(request, { id: request.id, position: request.computed, tokens: 1, sample: true, draft: 0 })
    return true
  }

  /** Add up to `most` owed tokens of `request` (a chunk of a prompt, or of a recomputation). Returns how many. */
  prefill(request: LiveRequest, most: number, spare?: readonly LiveRequest[]): number {
    return this.#chunk(request, this.context.startOf(request), most, spare)
  }

  /** Add as many owed tokens of `request`, at most `tokens`, as keep the batch within `limitUs`, margin included. */
  prefillWithin(
    request: LiveRequest,
    limitUs: number,
    spare?: readonly LiveRequest[],
    tokens = Infinity,
  ): number {
    if (!this.adapters.allow(request)) return 0
    const room = spare === undefined ? this.context.need.roomTokens(request) : Infinity
    if (room <= request.computed || this.isFull(limitUs)) return 0
    const start = this.context.startOf(request)
    const owed = request.known - start
    const withinUs = this.orAsItIsUs(limitUs)
    const fits = (n: number) => this.safeUs(start, n, request.rowsOf(n, n === owed)) <= withinUs
    const most = Math.min(owed, this.tokensLeft, tokens)
    const least = Math.min(most, owed, this.#leastChunk)
    if (most < least || room < start + least) return 0
    if (fits(most)) return this.#chunk(request, start, most, spare)
    let low = 0
    let high = most
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (fits(middle)) low = middle
      else high = middle
    }
    return this.#chunk(request, start, low, spare)
  }

  /** No chunk of any request fits into `limitUs`, margin included. With a thousand waiting most get nothing: that must
   * be seen at once. */
  isFull(limitUs: number): boolean {
    return this.#leastMoreUs > this.orAsItIsUs(limitUs)
  }

  /** `limitUs`, or what the batch takes as it stands where it outlasts that: what pads it to the size of a CUDA graph is free. */
  orAsItIsUs(limitUs: number): number {
    if (this.context.cost.graphs === undefined || this.items.length === 0) return limitUs
    // With a thousand waiting it is asked for each.
    if (this.#asItIs < 0) this.#asItIs = this.safeUs()
    return Math.max(limitUs, this.#asItIs)
  }

  #chunk(request: LiveRequest, start: number, most: number, spare?: readonly LiveRequest[]): number {
    if (!this.adapters.allow(request)) return 0
    const owed = request.known - start
    const want = this.#wholeChunk(owed, Math.min(most, owed, this.tokensLeft))
    if (want < 1 || !this.#sequenceFor(request, spare)) return 0
    const room = this.#kvRoom(request, start + want, spare) - start
    const tokens = room < want ? this.#wholeChunk(owed, room) : want
    return tokens > 0 && this.#add(request, tokens, spare) ? tokens : 0
  }

  #sequenceFor(request: LiveRequest, spare?: readonly LiveRequest[]): boolean {
    if (this.context.kv.holds(request.id)) return true
    // It has lost its KV while tokens of it are in the air: where to start is known when they have landed.
    if (request.inAir > 0) return false
    while (!this.context.kv.canAttach()) {
      // None of it held KV a moment ago, and what took KV since is in the batch: no use looking again.
      if (spare !== undefined && spare === this.#exhausted) return false
      if (this.#giveUp(request, spare)) continue
      this.#exhausted = spare ?? null
      return false
    }
    return true
  }

  /** Up to `want` tokens that the sequence could hold in all, giving up `spare` requests as needed. */
  #kvRoom(request: LiveRequest, want: number, spare?: readonly LiveRequest[]): number {
    let room = this.context.need.roomTokens(request)
    while (room < want && this.#giveUp(request, spare)) room = this.context.need.roomTokens(request)
    return Math.min(want, room)
  }

  /** No chunk of any request makes the batch shorter than this: margin included, µs. One token is timed as
   * a decode, and so may take longer than two. */
  get #leastMoreUs(): number {
    if (this.#leastMore < 0) this.#leastMore = Math.min(this.safeUs(0, 1), this.safeUs(0, 2))
    return this.#leastMore
  }

  /** Shortest chunk that is not disproportionately slow. */
  get #leastChunk(): number {
    const { minChunkTokens, unifiedKv } = this.context.limits
    // In a split pass the first token goes with the decodes, so one more makes the piece whole.
    return minChunkTokens + (minChunkTokens > 1 && !unifiedKv && this.#singles > 0 ? 1 : 0)
  }

  /** Shorten a chunk so that neither it nor what it leaves is a slow short piece (docs/design.md, Batches); the end of a
   * prompt may be short. */
  #wholeChunk(owed: number, tokens: number): number {
    if (tokens >= owed) return owed
    const least = this.#leastChunk
    if (tokens < Math.min(least, owed)) return 0
    return owed - tokens < least && owed >= 2 * least ? owed - least : tokens
  }

  /** Drafting must not take the room of the decodes that are still to come: a block for every sequence. */
  #draftRoom(request: LiveRequest, draft: number): number {
    const { blockTokens } = this.context.limits
    const others = Math.max(0, this.context.kv.liveSequences - this.items.length - 1)
    const room = this.context.need.roomTokens(request) - others * blockTokens - request.known
    const most = Math.min(draft, request.spec.maxOutputTokens - request.output - 1, this.tokensLeft - 1, room)
    return Math.max(0, most)
  }

  #add(request: LiveRequest, tokens: number, spare?: readonly LiveRequest[], draft = 0): boolean {
    if (this.tokensLeft < tokens + draft || !this.#sequenceFor(request, spare)) return false
    const copy = this.context.kv.holds(request.id) ? null : this.#attach(request)
    const { owed } = request
    if (tokens < 1 || tokens > owed) assert(false, `request ${request.id} does not owe ${tokens} tokens`)
    const needsBlock = !this.#inLastBlock(request.computed, tokens + draft)
    while (needsBlock && !this.context.kv.grow(request.id, request.computed + tokens + draft)) {
      if (this.#giveUp(request, spare)) continue
      if (copy !== null) this.#detach(request)
      else if (request.computed === 0) this.context.kv.drop(request.id)
      return false
    }
    const position = request.computed
    const sample = tokens === owed
    const item: BatchItem = { id: request.id, position, tokens, sample, draft }
    if (request.spec.allRows) item.rows = request.rowsOf(tokens, sample)
    if (copy !== null && copy.tokens > 0) item.copy = copy
    this.#put(request, item)
    return true
  }

  #put(request: LiveRequest, item: BatchItem): void {
    if (this.has(request)) assert(false, `request ${request.id} is already in the batch`)
    this.items.push(item)
    this.requests.push(request)
    this.adapters.take(request)
    this.#leastMore = this.#asItIs = -1
    request.batch = this.#number
    this.#shape.add(item.position, item.tokens, item.rows ?? (item.sample ? 1 : 0), item.draft)
    if (item.tokens === 1) this.#singles++
    else this.#chunks++
  }

  /** The block that a sequence of `computed` tokens has begun takes `tokens` more: most decodes need no other. */
  #inLastBlock(computed: number, tokens: number): boolean {
    const begun = computed % this.context.limits.blockTokens
    return begun > 0 && begun + tokens <= this.context.limits.blockTokens
  }

  /** Take a sequence, sharing the longest prefix that some other request holds. */
  #attach(request: LiveRequest): { from: number; tokens: number } {
    const match = this.context.kv.match(request.prefix, request.spec.promptTokens)
    const tokens = this.context.kv.attach(request.id, request.prefix, request.spec.session, match)
    request.computed = tokens
    if (request.startedUs < 0) request.cachedTokens = tokens
    return { from: match?.from ?? request.id, tokens }
  }

  /** A sequence taken for nothing would hold a slot without use. */
  #detach(request: LiveRequest): void {
    this.context.kv.forgo(request.id)
    request.computed = 0
    if (request.startedUs < 0) request.cachedTokens = 0
  }

  /** Preempt the last of `spare` that holds KV and is not in this batch. */
  #giveUp(request: LiveRequest, spare: readonly LiveRequest[] = []): boolean {
    for (let i = spare.length - 1; i >= 0; i--) {
      const victim = spare[i]!
      if (victim === request || this.has(victim) || !this.context.kv.holds(victim.id)) continue
      this.context.kv.drop(victim.id)
      victim.account?.loses(victim.computed)
      victim.computed = 0
      victim.preemptions++
      this.#victims.push(victim)
      this.context.actions.preempted(victim)
      return true
    }
    return false
  }
}
