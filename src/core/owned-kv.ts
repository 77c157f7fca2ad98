/** An engine that owns its KV says what it did: the core believes it. It may have run other items than planned, found less or
 * more of a prefix cached, taken KV from requests by itself, or run batches of its own. The account of KV follows as far as it
 * has room: where the engine has more in place than is accounted for, the core believes less until the engine says so again.
 * Where it has less room than is accounted for (a prefix that requests computed on their own is there more than once), it counts
 * for the core, too. */
import { assert } from "./assert.ts"
import { shapeOf } from "./cost.ts"
import type { Airborne, Flight } from "./flight.ts"
import type { KvAccount } from "./kv/account.ts"
import { stepKind } from "./learn/calibration.ts"
import type { Line } from "./line.ts"
import type { PlanningContext } from "./planner/context.ts"
import type { BatchItem, Event, Ran, RanItem, RequestId, StepResult } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

/** The items of a batch as they come together. */
interface Boarding {
  items: BatchItem[]
  requests: (LiveRequest | undefined)[]
  preemptions: number[]
}

export class OwnedKv {
  readonly #kv: KvAccount
  readonly #flight: Flight
  readonly #line: Line
  readonly #context: PlanningContext

  constructor(flight: Flight, line: Line, context: PlanningContext) {
    this.#kv = context.kv
    this.#flight = flight
    this.#line = line
    this.#context = context
  }

  /** Tokens that a step yielded. */
  tokens({ output, spec }: LiveRequest, result: StepResult | undefined): number {
    return Math.min(result?.tokens ?? 0, spec.maxOutputTokens - output)
  }

  /** It holds until the engine says that it has gone on. */
  hasFree({ tokens, batch = Infinity }: Extract<Event, { type: "kvFree" }>): void {
    let free = tokens
    for (const { number, tookTokens } of this.#flight.batches) if (number > batch) free -= tookTokens
    this.#kv.bound(Math.max(0, free))
  }

  /** A step with `tokens` new tokens of a request has landed, of which `said` tokens are now in place by the engine's count. */
  computed(request: LiveRequest, tokens: number, said = request.computed): void {
    this.#kv.bound(null)
    const most = request.known + tokens - 1
    this.#place(request, Math.min(said, most), request.inAir === 0)
  }

  ran({ batch: number, items, preempted = [], evicted = false }: Ran, nowUs: number): void {
    const flight = this.#flight
    this.#kv.bound(null)
    for (const id of preempted) {
      const request = this.#line.get(id)
      if (request !== undefined) this.#line.loseKv(request, true)
    }
    if (items.length === 0) this.#neverRan(flight.batch(number), evicted)
    else this.#replace(number < 1 ? flight.joins(number, nowUs) : flight.batch(number), items, nowUs)
  }

  lost({ ids, cached = false }: Extract<Event, { type: "kvLost" }>): void {
    this.#kv.bound(null)
    for (const id of ids) {
      const request = this.#line.get(id)
      if (request !== undefined) this.#line.loseKv(request, true)
    }
    if (cached) this.#kv.dropCache()
  }

  /** What it was to evict is still to go, if that is not so already. */
  #neverRan(batch: Airborne, evicted: boolean): void {
    const reach = this.#flight.reachWithout(batch)
    for (let at = 0; at < batch.items.length; at++) this.#leave(batch, at, reach)
    this.#flight.cancel(batch)
    for (const [id, blocks] of batch.dropped)
      if (!evicted && this.#line.get(id) !== undefined && !this.#kv.holds(id))
        this.#kv.orders.drop(id, blocks)
    this.#line.releaseLeft()
  }

  #replace(batch: Airborne, items: readonly RanItem[], nowUs: number): void {
    const plan = new Map(batch.items.map(({ id }, at) => [id, at]))
    const ids = new Set(items.map(({ id }) => id))
    const reach = this.#flight.reachWithout(batch, new Map(items.map((item) => [item.id, endOf(item)])))
    for (const item of items) {
      const at = plan.get(item.id)
      if (at !== undefined) this.#tookLess(batch, at, endOf(item))
    }
    for (const [id, at] of plan) {
      if (ids.has(id)) continue
      const request = batch.requests[at]
      if (request !== undefined) request.inAir--
      this.#leave(batch, at, reach)
    }
    const coming = this.#comingBefore(batch)
    const boarding: Boarding = { items: [], requests: [], preemptions: [] }
    for (const item of items) {
      const at = plan.get(item.id)
      const request = this.#board(boarding, batch, at, item, coming, nowUs)
      if (request !== null) this.#settle(batch, request, reach, endOf(item))
    }
    Object.assign(batch, boarding)
    this.#time(batch)
  }

  /** A planned item did not run. */
  #leave(batch: Airborne, at: number, reach: ReadonlyMap<RequestId, number>): void {
    const { items, requests, preemptions } = batch
    const request = requests[at]
    const { position, copy } = items[at]!
    this.#tookLess(batch, at, copy === undefined ? position : 0)
    if (request === undefined || request.gone || request.preemptions !== preemptions[at]) return
    if (position === 0 || copy !== undefined) {
      this.#didNotStart(request)
      return
    }
    this.#settle(batch, request, reach)
  }

  /** A planned item of a request that has lost its KV since ends after `reach` tokens: what it was to take beyond does not become free. */
  #tookLess({ items, requests, preemptions }: Airborne, at: number, reach: number): void {
    const item = items[at]!
    if (requests[at]?.preemptions === preemptions[at]) return
    const { blockTokens } = this.#kv.limits
    const blocks = Math.ceil(endOf(item) / blockTokens) - Math.ceil(reach / blockTokens)
    if (blocks <= 0) return
    this.#kv.orders.freesLess(item.id, blocks)
    this.#flight.freesLess(item.id, blocks, blockTokens)
  }

  /** It has what is in place, what other batches in flight take (`reach`), and so many tokens in this one: what it was given beyond
   * would be counted as taken, and the engine says that it is free. */
  #settle(batch: Airborne, request: LiveRequest, reach: ReadonlyMap<RequestId, number>, here = 0): void {
    const { id, computed } = request
    this.#flight.takesFrom(batch, request, here, this.#kv.limits.blockTokens)
    // Where a step began further back than planned others may think that they share more.
    this.#kv.uncomputed(id, computed)
    this.#kv.shrink(id, Math.max(computed, here, reach.get(id) ?? 0))
  }

  #didNotStart(request: LiveRequest): void {
    this.#kv.lose(request.id)
    this.#flight.writeOff(request.id)
    request.computed = 0
    if (request.output > 0 || request.preemptions > 0) return
    request.startedUs = -1
    request.cachedTokens = 0
  }

  /** Tokens that each request is to yield in the batches before this one. */
  #comingBefore(batch: Airborne): Map<RequestId, number> {
    const coming = new Map<RequestId, number>()
    for (const earlier of this.#flight.batches) {
      if (earlier === batch) return coming
      for (const { id, sample, draft } of earlier.items)
        coming.set(id, (coming.get(id) ?? 0) + (sample ? 1 + draft : 0))
    }
    assert(false, "a batch that is not in flight")
  }

  /** An item ran: as planned at `at`, if it was planned at all, or otherwise. Answers with the request that goes on otherwise. */
  #board(
    { items, requests, preemptions }: Boarding,
    batch: Airborne,
    at: number | undefined,
    ran: RanItem,
    coming: ReadonlyMap<RequestId, number>,
    nowUs: number,
  ): LiveRequest | null {
    const { id, position, tokens, draft } = ran
    const request = at === undefined ? this.#line.get(id) : batch.requests[at]
    const planned = at === undefined ? undefined : batch.items[at]!
    const known = request === undefined ? Infinity : request.known + (coming.get(id) ?? 0)
    const sample = position + tokens >= known
    const rows = request?.spec.allRows ? { rows: request.rowsOf(tokens, sample) } : {}
    items.push(planned && isSame(planned, ran) ? planned : { id, position, tokens, sample, draft, ...rows })
    requests.push(request)
    if (request !== undefined && at === undefined) request.inAir++
    const asPlanned = items[items.length - 1] === planned && request?.preemptions === batch.preemptions[at!]
    const stays = request !== undefined && !this.#evictedAfter(batch, id)
    const isOther = stays && !request.gone && !asPlanned
    if (isOther) this.#adopt(request, ran, coming.has(id), nowUs)
    // What could not be accounted for is lost to the core when it lands.
    preemptions.push(stays && this.#kv.holds(id) ? request.preemptions : -1)
    return isOther ? request : null
  }

  /** A later batch in flight drops its KV. */
  #evictedAfter(batch: Airborne, id: RequestId): boolean {
    const { batches } = this.#flight
    for (let at = batches.length - 1; batches[at] !== batch; at--)
      if (batches[at]!.dropped.has(id)) return true
    return false
  }

  /** It runs from where the engine says; `inAir`: after items of it in flight, whose landing will tell. */
  #adopt(request: LiveRequest, { position, tokens, draft }: RanItem, inAir: boolean, nowUs: number): void {
    this.#line.ready(request.id)
    const { id } = request
    this.#attach(request)
    if (!inAir) this.#place(request, Math.min(position, request.known - 1), request.inAir === 1)
    if (this.#kv.holds(id)) this.#grow(id, position + tokens + draft)
    if (request.startedUs >= 0) return
    request.startedUs = nowUs
    request.cachedTokens = position
  }

  /** The engine has KV of it, and is to keep it. */
  #attach({ id, prefix, spec }: LiveRequest): void {
    if (this.#kv.holds(id) || !this.#kv.canAttach()) return
    this.#kv.attach(id, prefix, spec.session, null)
    this.#kv.orders.dontDrop(id)
  }

  /** So many tokens of it are in place. `alone`: no other batch in flight counts on its blocks. */
  #place(request: LiveRequest, tokens: number, alone: boolean): void {
    const { id, computed } = request
    const kv = this.#kv
    if (tokens < computed) kv.uncomputed(id, tokens)
    // What it has beyond is not what others share: it takes blocks of its own for that.
    if (tokens < computed && alone) kv.shrink(id, tokens)
    if (tokens > 0) this.#attach(request)
    if (!kv.holds(id)) this.#flight.writeOff(id)
    request.computed = kv.holds(id) ? tokens : 0
    if (request.computed > 0) this.#grow(id, tokens)
  }

  /** As far as there is room: with nothing counted as its own, what others share with it would be theirs alone, and free without them. */
  #grow(id: RequestId, tokens: number): void {
    this.#kv.grow(id, Math.min(tokens, this.#kv.heldTokens(id) + this.#kv.spareTokens))
  }

  /** It takes as long as what ran. */
  #time(batch: Airborne): void {
    const { cost } = this.#context
    const shape = shapeOf(batch.items, cost)
    const withPrefill = batch.items.some(({ tokens }) => tokens > 1)
    batch.kind = stepKind(withPrefill, shape.specSteps > 0)
    batch.shape = shape
    this.#flight.retime(batch, Math.round(this.#context.stepUs(shape, withPrefill)))
  }
}

/** Tokens that have room after it. */
function endOf({ position, tokens, draft }: RanItem): number {
  return position + tokens + draft
}

function isSame(planned: BatchItem, ran: RanItem): boolean {
  return planned.position === ran.position && planned.tokens === ran.tokens && planned.draft === ran.draft
}
