/** The state machine of one replica (docs/design.md, State machine). `handle(event, now)` changes state only;
 * `poll(now)` returns the effects since the last poll and, when the engine can take one more batch, at most one decision. The
 * very same file runs in production and in simulation; a driver drains its inbox, orders simultaneous events by `eventRank`,
 * polls once. */
import { assert } from "./assert.ts"
import { Bookkeeper } from "./bookkeeper.ts"
import { DEFAULT_MAX_QUEUE, priorOf, type ReplicaConfig, withDefaults } from "./config.ts"
import type { CostModel } from "./cost.ts"
import { Flight } from "./flight.ts"
import { Foresight } from "./foresight.ts"
import { KvAccount } from "./kv/account.ts"
import { Landing } from "./landing.ts"
import { Learnt } from "./learn/learnt.ts"
import { Line } from "./line.ts"
import { type Moved, movedFrom, overBy, startRequest } from "./moved.ts"
import type { PolicyOptions } from "./options.ts"
import { OwnedKv } from "./owned-kv.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import { asEffects, PlanningContext } from "./planner/context.ts"
import { prefillUs } from "./planner/prefill-time.ts"
import { POLICIES } from "./policy/index.ts"
import type { Policy } from "./policy/policy.ts"
import type {
  Batch,
  Effect,
  EngineLimits,
  Event,
  FinishReason,
  Progress,
  RejectReason,
  RequestId,
  RequestSpec,
  Snapshot,
} from "./protocol.ts"
import { Recovery } from "./recovery.ts"
import type { LiveRequest } from "./request.ts"
import { Round } from "./round.ts"
import { type SeenStart, startOf } from "./seen.ts"
import { checkLine, countLine, type LongestBatch, longestBatch } from "./snapshot.ts"

export { DEFAULT_MAX_QUEUE, type ReplicaConfig } from "./config.ts"
export type { Moved } from "./moved.ts"
export { eventRank } from "./round.ts"

export class Replica {
  readonly limits: EngineLimits
  readonly options: PolicyOptions
  readonly policy: Policy
  #config: ReplicaConfig
  /** Most batches in flight. */
  #depth: number

  #line: Line
  #effects: Effect[] = []
  #kv: KvAccount
  #learnt: Learnt
  #batch: BatchBuilder
  #arrivals = 0
  #batches = 0
  #longestBatch: LongestBatch
  /** Changes with all that a snapshot shows besides the time. */
  revision = 0
  #flight = new Flight()
  #foresight: Foresight
  #landing: Landing
  /** Where the engine owns its KV. */
  #owned: OwnedKv | null
  #round = new Round()
  #recovery = new Recovery()
  readonly #books: Bookkeeper
  /** KV taken for requests that are yet to come with it. */
  #reserved = new Set<RequestId>()

  constructor(config: ReplicaConfig) {
    this.limits = config.limits
    this.#config = config
    this.options = withDefaults(config)
    const make = typeof config.policy === "function" ? config.policy : POLICIES[config.policy]
    this.policy = make(this.options)
    this.#depth = config.depth ?? 1
    assert(Number.isInteger(this.#depth) && this.#depth >= 1, "at least one batch is in flight")
    this.#kv = new KvAccount(config.limits)
    this.#longestBatch = longestBatch(config.cost, config.limits, this.options.maxBatchUs)
    this.#learnt = new Learnt(priorOf(config, this.options))
    const { limits, cost } = config
    const learnt = { ...this.#learnt.forPlanning(), margin: this.options.margin }
    const actions = asEffects(this.#tell)
    const ahead = this.#depth - 1
    const context = new PlanningContext({ limits, cost, kv: this.#kv, ...learnt, actions, ahead })
    this.#batch = new BatchBuilder(context)
    const prefillOnly = config.prefillOnly ?? false
    this.#foresight = new Foresight(this.#kv, prefillOnly, config.tokenLag)
    this.#books = new Bookkeeper(cost)
    const common = { kv: this.#kv, learnt: this.#learnt, flight: this.#flight, tell: this.#tell }
    this.#line = new Line({ ...common, keepsSessions: this.policy.keepsSessions ?? false })
    this.#owned = config.engineOwnsKv ? new OwnedKv(this.#flight, this.#line, context) : null
    this.#landing = new Landing({
      ...common,
      ...{ context, line: this.#line, recovery: this.#recovery, round: this.#round },
      ...{ owned: this.#owned, prefillOnly, books: this.#books },
      promisesAtFirstToken: this.options.admission === "revocable",
    })
  }

  /** What steps are believed to take; event `costModel` changes it. */
  get cost(): CostModel {
    return this.#batch.context.cost
  }

  #tell = (effect: Effect): void => {
    this.#effects.push(effect)
  }

  /** Zero-load prefill time of a prompt, µs: the unit of `ttftSlowdown`. The profile's, within what was seen in service, which
   * is of prompts with one output row. */
  zeroLoadPrefillUs = (promptTokens: number, allRows = false): number => {
    const profileUs = prefillUs(this.cost, 0, promptTokens, this.limits.maxBatchTokens, allRows)
    if (allRows) return profileUs
    return this.#learnt.zeroLoad.bounded(promptTokens, profileUs)
  }

  handle(event: Event, nowUs: number): void {
    this.revision++
    this.#books.clock.nowUs = nowUs
    if (event.type === "arrived") this.#arrive(event.request, nowUs, event.progress)
    else if (event.type === "stepDone") this.#landing.stepDone(event, nowUs)
    else if (event.type === "stepFailed") this.#landing.stepFailed(event, nowUs)
    else if (event.type === "cancelled") this.#cancel(event.id, event.failed ? "failed" : "cancelled", nowUs)
    else if (event.type === "costModel") this.#believe(event.cost)
    else if (event.type === "tenantWeights") this.#learnt.tenants.reweigh(event.weights)
    else if (event.type === "grammarReady") this.#line.ready(event.id)
    else if (event.type === "renews") this.#batch.context.renewsFromUs = event.fromUs
    else if (event.type === "ran") this.#ownersWord.ran(event, nowUs)
    else if (event.type === "kvLost") this.#ownersWord.lost(event)
    else if (event.type === "kvFree") this.#ownersWord.hasFree(event)
  }

  #believe(cost: CostModel): void {
    this.#batch.believe(cost)
    this.#books.believe(cost)
    this.#learnt.believe(cost)
    // Those that follow from the engine's speed do so again.
    Object.assign(this.options, withDefaults({ ...this.#config, cost }))
    this.#longestBatch = longestBatch(cost, this.limits, this.options.maxBatchUs)
    for (const request of this.#line.requests) request.wholeFrom = request.aloneFrom = -1
  }

  get #ownersWord(): OwnedKv {
    assert(this.#owned !== null, "an engine that goes by the plan does nothing by itself")
    return this.#owned
  }

  /** Effects since the last poll, in order; when the engine can take one more batch the last ones are the next decision's. */
  poll(nowUs: number): Effect[] {
    this.#books.clock.nowUs = nowUs
    if (this.#takesOneMore && this.#line.size > 0) {
      const { pausedUntilUs } = this.#recovery
      if (nowUs < pausedUntilUs) this.#effects.push({ type: "wake", atUs: pausedUntilUs })
      else this.#decide(nowUs)
    }
    this.#round.over()
    const effects = this.#effects
    this.#effects = []
    return effects
  }

  /** What has to run alone, after a failure, has no other batch in flight with it. */
  get #takesOneMore(): boolean {
    const most = this.#recovery.oneByOne ? 1 : this.#depth
    return this.#flight.batches.length < most
  }

  /** KV that is free, or only kept as cache, tokens. A snapshot looks at every request for more. */
  get freeKvTokens(): number {
    return this.#kv.spareTokens
  }

  snapshot(nowUs: number): Snapshot {
    const counts = countLine(this.#line.requests, this.#kv, this.#longestBatch)
    return {
      ...counts,
      prefillUsPerToken: counts.prefillUsPerToken * this.#learnt.calibration.ratio("mixed"),
      nowUs,
      batchInFlight: this.#flight.up,
      calibration: this.#learnt.calibration.snapshot(),
      speculation: this.#learnt.speculation.snapshot(),
    }
  }

  /** Invariants of the whole replica; throws on the first one broken. For tests and fuzzing. */
  check(): void {
    this.#kv.check()
    checkLine(this.#line, this.#kv)
    this.#flight.check(this.#line.requests, this.#kv)
  }

  /** Could it keep this request's SLOs from its next batch boundary on, and all that it has promised? True where the policy
   * promises nothing. Changes no state (docs/design.md, Router). `withKv`: all but its last token comes computed. */
  offer(spec: RequestSpec, nowUs: number, progress?: Progress, withKv = false): boolean {
    if (this.#refusal(spec) !== null) return false
    if (this.policy.offer === undefined || spec.tier === "bestEffort") return true
    const { policy } = this
    const boundaryUs = this.#flight.clearUs(nowUs)
    const offered = this.#live(spec, nowUs, progress)
    if (withKv) offered.computed = offered.known - 1
    const ask = (line: readonly LiveRequest[]) =>
      policy.offer!(line, offered, this.#batch.context, boundaryUs)
    // Requests that a batch cannot carry just now keep their promises, too.
    return this.#depth > 1 ? this.#foreseen(nowUs, ask, true) : ask(this.#line.requests)
  }

  /** How a live request began; null before it has. */
  startOf(id: RequestId): SeenStart | null {
    return startOf(this.#line.get(id))
  }

  /** Take KV for the known tokens of a request that comes with its KV (`arrived` with progress follows). False
   * while there is no room, or while a request that is here already waits for some. */
  reserve(id: RequestId, tokens: number): boolean {
    if (this.#line.requests.some((request) => !this.#kv.holds(request.id))) return false
    // One block more where there can be one, or its first decode would need another request's.
    const needed = Math.min(this.#kv.capacityTokens, tokens + this.limits.blockTokens)
    if (this.#kv.spareTokens < needed || !this.#kv.canAttach()) return false
    this.revision++
    this.#kv.attach(id, [], -1, null)
    this.#reserved.add(id)
    return this.#kv.grow(id, tokens)
  }

  /** The KV of a handed-off (or reserved) request is not needed any more. */
  release(id: RequestId): void {
    this.revision++
    this.#reserved.delete(id)
    this.#line.release(id)
  }

  /** Whether `withdraw` would give it up. */
  canWithdraw(id: RequestId): boolean {
    return this.#line.get(id) !== undefined && !this.#flight.carries(id)
  }

  /** Give up a live request so that another replica can have it: without KV, its tokens are computed anew there.
   * Null when it is not here, or in a batch in flight. To cancel it afterwards is the other replica's. */
  withdraw(id: RequestId): Moved | null {
    const request = this.#line.get(id)
    if (request === undefined || this.#flight.carries(id)) return null
    this.revision++
    this.#line.remove(request)
    if (request.startedUs >= 0) this.release(id)
    return movedFrom(request)
  }

  /** The replica is lost: everything live on it, by arrival, to go on elsewhere. It must not be used any more. */
  surrender(): Moved[] {
    return this.#line.requests.map(movedFrom)
  }

  #arrive(spec: RequestSpec, nowUs: number, progress?: Progress): void {
    assert(this.#line.get(spec.id) === undefined, `request ${spec.id} arrived twice`)
    assert(spec.promptTokens >= 1 && spec.maxOutputTokens >= 1, `request ${spec.id} has nothing to compute`)
    const over = overBy(spec, progress)
    const refusal = this.#refusal(spec)
    // What was accepted once is never dropped for a full queue; what is over takes no place.
    if (refusal !== null && over === undefined && (refusal === "promptTooLong" || progress === undefined)) {
      this.#tell({ type: "rejected", id: spec.id, reason: refusal })
      return
    }
    const request = this.#live(spec, nowUs, progress)
    this.#arrivals++
    this.#books.opened(request)
    request.sessionMissed = this.#learnt.sessionMissed(spec)
    if (this.#reserved.delete(spec.id)) {
      request.computed = request.known - 1
      this.#kv.computed(spec.id, request.computed)
    } else if (progress !== undefined) {
      // It may have been here before: nothing of that is left.
      this.#flight.cameBack(spec.id)
      this.#kv.comeBack(spec.id)
    }
    this.#line.enter(request)
    if (spec.alone) this.#recovery.runsFirst(request)
    const ended = over ?? this.#round.endOf(spec.id)
    if (ended !== undefined) this.#line.end(request, ended, over === undefined ? nowUs : request.lastTokenUs)
  }

  #cancel(id: RequestId, reason: FinishReason, nowUs: number): void {
    const handedOff = this.#round.takeBack(id, this.#effects)
    if (handedOff !== undefined) this.#line.enter(handedOff)
    const request = this.#line.get(id)
    if (request !== undefined) this.#line.end(request, reason, nowUs)
    else this.#round.endsOnArrival(id, reason)
  }

  #refusal(spec: RequestSpec): RejectReason | null {
    const { promptTokens, maxOutputTokens } = spec
    // Nothing follows the only token of a request: it takes no room.
    const total = promptTokens + (maxOutputTokens > 1 ? maxOutputTokens : 0)
    if (total > Math.min(this.limits.contextTokens, this.#kv.capacityTokens)) return "promptTooLong"
    const { maxQueue = DEFAULT_MAX_QUEUE } = this.#config
    const hasPlace = this.#learnt.tenants.hasPlace(spec.tenant ?? 0, this.#line.size, maxQueue)
    return hasPlace ? null : "queueFull"
  }

  #live(spec: RequestSpec, nowUs: number, progress?: Progress): LiveRequest {
    return startRequest(spec, nowUs, this.#arrivals, this.zeroLoadPrefillUs, progress)
  }

  #decide(nowUs: number): void {
    this.revision++
    const built = this.#batch
    const atUs = this.#flight.clearUs(nowUs)
    const suspect = this.#recovery.nextSuspect()
    const { spareTokens } = this.#kv
    built.reset(atUs)
    this.#foreseen(nowUs, (line) => {
      if (suspect !== undefined) this.#alone(suspect, built, line)
      else if (line.length > 0) this.policy.decide(line, built, atUs)
    })
    if (built.items.length > 0) this.#run(built, nowUs, spareTokens - this.#kv.spareTokens)
  }

  #alone(suspect: LiveRequest, built: BatchBuilder, line: readonly LiveRequest[]): void {
    if (suspect.decoding) built.decode(suspect, line)
    else built.prefill(suspect, this.limits.maxBatchTokens, line)
  }

  /** `ask` with those that can be planned for, as they will be when what is in flight has landed. */
  #foreseen<T>(nowUs: number, ask: (line: readonly LiveRequest[]) => T, later = false): T {
    const { requests, allMayRun } = this.#line
    if (!this.#flight.up && (allMayRun || later)) return ask(requests)
    try {
      return ask(this.#foresight.begin(this.#flight.batches, requests, nowUs, later))
    } finally {
      this.#foresight.end()
    }
  }

  #run(built: BatchBuilder, nowUs: number, tookTokens: number): void {
    for (const request of built.requests) if (request.startedUs < 0) request.startedUs = nowUs
    const { orders } = this.#kv
    const trim = orders.takeTrimmed()
    const dropped = orders.takeDropped(this.#owned !== null)
    const batch: Batch = {
      number: ++this.#batches,
      items: built.items,
      evict: [...dropped.keys()],
      release: orders.takeReleased(),
      ...(trim.length > 0 && { trim }),
      predictedUs: Math.round(built.timeUs()),
    }
    this.#flight.takeOff(batch, built, nowUs, tookTokens, dropped)
    this.#books.takesOff()
    // The batch after this one may share what it computes.
    if (this.#depth > 1)
      for (const { id, position, tokens } of batch.items) this.#kv.computed(id, position + tokens)
    this.#tell({ type: "run", batch })
  }
}
