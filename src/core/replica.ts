/** The state machine of one replica (docs/design.md, State machine). `handle(event, now)` changes state only;
 * `poll(now)` returns the effects since the last poll and, when the engine is free, at most one decision. The very same
 * file runs in production and in simulation; a driver drains its inbox, orders simultaneous events by `eventRank`,
 * polls once. */
import { assert } from "./assert.ts"
import { DEFAULT_MAX_QUEUE, priorOf, type ReplicaConfig, withDefaults } from "./config.ts"
import { type CostModel, ranShape } from "./cost.ts"
import { Flight } from "./flight.ts"
import { KvAccount } from "./kv/account.ts"
import { Learnt } from "./learn/learnt.ts"
import { type Moved, movedFrom, overBy, startRequest } from "./moved.ts"
import type { PolicyOptions } from "./options.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import { asEffects, PlanningContext } from "./planner/context.ts"
import { prefillUs } from "./planner/prefill-time.ts"
import { POLICIES } from "./policy/index.ts"
import type { Policy } from "./policy/policy.ts"
import type {
  Batch,
  BatchItem,
  Effect,
  EngineLimits,
  Event,
  FinishReason,
  Progress,
  RejectReason,
  RequestId,
  RequestSpec,
  Snapshot,
  StageOutcome,
  StepResult,
} from "./protocol.ts"
import { Recovery } from "./recovery.ts"
import type { LiveRequest } from "./request.ts"
import { Round } from "./round.ts"
import { type SeenStart, startOf } from "./seen.ts"
import { checkLine, countLine, type LongestBatch, longestBatch } from "./snapshot.ts"

export { DEFAULT_MAX_QUEUE, type ReplicaConfig } from "./config.ts"
export type { Moved } from "./moved.ts"
export { eventRank } from "./round.ts"

type StepDone = Extract<Event, { type: "stepDone" }>
type StepFailed = Extract<Event, { type: "stepFailed" }>

/** A request that fails alone in a batch this often has failed itself. */
const MOST_FAILURES = 2

export class Replica {
  readonly limits: EngineLimits
  readonly options: PolicyOptions
  readonly policy: Policy
  #config: ReplicaConfig

  #requests = new Map<RequestId, LiveRequest>()
  /** In order of arrival; what policies see. */
  #line: LiveRequest[] = []
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
  #round = new Round()
  #recovery = new Recovery()
  /** KV taken for requests that are yet to come with it. */
  #reserved = new Set<RequestId>()

  constructor(config: ReplicaConfig) {
    this.limits = config.limits
    this.#config = config
    this.options = withDefaults(config)
    const make = typeof config.policy === "function" ? config.policy : POLICIES[config.policy]
    this.policy = make(this.options)
    this.#kv = new KvAccount(config.limits)
    this.#longestBatch = longestBatch(config.cost, config.limits, this.options.maxBatchUs)
    this.#learnt = new Learnt(priorOf(config, this.options))
    const { limits, cost } = config
    const learnt = { ...this.#learnt.forPlanning(), margin: this.options.margin }
    const actions = asEffects((effect) => this.#effects.push(effect))
    this.#batch = new BatchBuilder(new PlanningContext({ limits, cost, kv: this.#kv, ...learnt, actions }))
  }

  /** What steps are believed to take; event `costModel` changes it. */
  get cost(): CostModel {
    return this.#batch.context.cost
  }

  /** Zero-load prefill time of a prompt, µs: the unit of `ttftSlowdown`. The profile's, within what was seen in service. */
  zeroLoadPrefillUs = (promptTokens: number): number => {
    const profileUs = prefillUs(this.cost, 0, promptTokens, this.limits.maxBatchTokens)
    return this.#learnt.zeroLoad.bounded(promptTokens, profileUs)
  }

  handle(event: Event, nowUs: number): void {
    this.revision++
    if (event.type === "arrived") this.#arrive(event.request, nowUs, event.progress)
    else if (event.type === "stepDone") this.#stepDone(event, nowUs)
    else if (event.type === "stepFailed") this.#stepFailed(event, nowUs)
    else if (event.type === "cancelled") this.#cancel(event.id, event.failed ? "failed" : "cancelled", nowUs)
    else if (event.type === "costModel") this.#believe(event.cost)
  }

  #believe(cost: CostModel): void {
    this.#batch.believe(cost)
    this.#learnt.believe(cost)
    // Those that follow from the engine's speed do so again.
    Object.assign(this.options, withDefaults({ ...this.#config, cost }))
    this.#longestBatch = longestBatch(cost, this.limits, this.options.maxBatchUs)
    for (const request of this.#line) request.wholeFrom = request.aloneFrom = -1
  }

  /** Effects since the last poll, in order; when the engine is free the last ones are the next decision's. */
  poll(nowUs: number): Effect[] {
    if (!this.#flight.up && this.#line.length > 0) {
      const { pausedUntilUs } = this.#recovery
      if (nowUs < pausedUntilUs) this.#effects.push({ type: "wake", atUs: pausedUntilUs })
      else this.#decide(nowUs)
    }
    this.#round.over()
    const effects = this.#effects
    this.#effects = []
    return effects
  }

  snapshot(nowUs: number): Snapshot {
    const counts = countLine(this.#line, this.#kv, this.#longestBatch)
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
    checkLine(this.#line, this.#requests, this.#kv)
  }

  /** Could it keep this request's SLOs from its next batch boundary on, and all that it has promised? True where the policy
   * promises nothing. Changes no state (docs/design.md, Router). `withKv`: all but its last token comes computed. */
  offer(spec: RequestSpec, nowUs: number, progress?: Progress, withKv = false): boolean {
    if (this.#refusal(spec) !== null) return false
    if (this.policy.offer === undefined || spec.tier === "bestEffort") return true
    const boundaryUs = this.#flight.up ? Math.max(nowUs, this.#flight.endsUs) : nowUs
    const offered = this.#live(spec, nowUs, progress)
    if (withKv) offered.computed = offered.known - 1
    return this.policy.offer(this.#line, offered, this.#batch.context, boundaryUs)
  }

  /** How a live request began; null before it has. */
  startOf(id: RequestId): SeenStart | null {
    return startOf(this.#requests.get(id))
  }

  /** Take KV for the known tokens of a request that comes with its KV (`arrived` with progress follows). False
   * while there is no room, or while a request that is here already waits for some. */
  reserve(id: RequestId, tokens: number): boolean {
    if (this.#line.some((request) => !this.#kv.holds(request.id))) return false
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
    if (this.#flight.up) this.#flight.left(id)
    else this.#kv.end(id)
  }

  /** Whether `withdraw` would give it up. */
  canWithdraw(id: RequestId): boolean {
    return this.#requests.has(id) && !this.#flight.carries(id)
  }

  /** Give up a live request so that another replica can have it: without KV, its tokens are computed anew there.
   * Null when it is not here, or in the running batch. To cancel it afterwards is the other replica's. */
  withdraw(id: RequestId): Moved | null {
    const request = this.#requests.get(id)
    if (request === undefined || this.#flight.carries(id)) return null
    this.revision++
    this.#remove(request)
    if (request.startedUs >= 0) this.release(id)
    return movedFrom(request)
  }

  /** The replica is lost: everything live on it, by arrival, to go on elsewhere. It must not be used any more. */
  surrender(): Moved[] {
    return this.#line.map(movedFrom)
  }

  #arrive(spec: RequestSpec, nowUs: number, progress?: Progress): void {
    assert(!this.#requests.has(spec.id), `request ${spec.id} arrived twice`)
    assert(spec.promptTokens >= 1 && spec.maxOutputTokens >= 1, `request ${spec.id} has nothing to compute`)
    const over = overBy(spec, progress)
    const refusal = this.#refusal(spec)
    // What was accepted once is never dropped for a full queue; what is over takes no place.
    if (refusal !== null && over === undefined && (refusal === "promptTooLong" || progress === undefined)) {
      this.#effects.push({ type: "rejected", id: spec.id, reason: refusal })
      return
    }
    const request = this.#live(spec, nowUs, progress)
    this.#arrivals++
    request.sessionMissed = this.#learnt.sessionMissed(spec)
    if (this.#reserved.delete(spec.id)) {
      request.computed = request.known - 1
      this.#kv.computed(spec.id, request.computed)
    } else if (progress !== undefined) {
      // It may have been here before: nothing of that is left.
      this.#flight.cameBack(spec.id)
      this.#kv.comeBack(spec.id)
    }
    this.#enter(request)
    if (spec.alone) this.#recovery.runsFirst(request)
    const ended = over ?? this.#round.endOf(spec.id)
    if (ended !== undefined) this.#end(request, ended, over === undefined ? nowUs : request.lastTokenUs)
  }

  #enter(request: LiveRequest): void {
    this.#requests.set(request.id, request)
    this.#line.push(request)
    this.#learnt.tenants.arrived(request)
  }

  #cancel(id: RequestId, reason: FinishReason, nowUs: number): void {
    const handedOff = this.#round.takeBack(id, this.#effects)
    if (handedOff !== undefined) this.#enter(handedOff)
    const request = this.#requests.get(id)
    if (request !== undefined) this.#end(request, reason, nowUs)
    else this.#round.endsOnArrival(id, reason)
  }

  #refusal(spec: RequestSpec): RejectReason | null {
    const total = spec.promptTokens + spec.maxOutputTokens
    if (total > Math.min(this.limits.contextTokens, this.#kv.capacityTokens)) return "promptTooLong"
    const { maxQueue = DEFAULT_MAX_QUEUE } = this.#config
    const hasPlace = this.#learnt.tenants.hasPlace(spec.tenant ?? 0, this.#line.length, maxQueue)
    return hasPlace ? null : "queueFull"
  }

  #live(spec: RequestSpec, nowUs: number, progress?: Progress): LiveRequest {
    return startRequest(spec, nowUs, this.#arrivals, this.zeroLoadPrefillUs, progress)
  }

  #stepDone({ batch: number, durationUs, results }: StepDone, nowUs: number): void {
    const flight = this.#flight
    const batch = flight.land(number)
    this.#recovery.stepDone()
    const shape = ranShape(this.cost, batch, results) ?? flight.shape
    const took = { kind: flight.kind, shape, tookUs: durationUs, endedUs: nowUs }
    this.#learnt.stepTook(took, results, this.cost)
    let next = 0
    for (let i = 0; i < batch.items.length; i++) {
      const item = batch.items[i]!
      // Results come in the order of the items, as a rule.
      const inOrder = results[next]?.id === item.id
      const result = inOrder ? results[next++] : results.find(({ id }) => id === item.id)
      const request = flight.requests[i]!
      if (request.gone) continue
      if (request.output === 0) this.#learnt.zeroLoad.computed(request, item, batch, durationUs)
      this.#advance(request, item, result, nowUs)
    }
    this.#releaseLeft()
  }

  /** A live request's item was computed. */
  #advance(request: LiveRequest, item: BatchItem, result: StepResult | undefined, nowUs: number): void {
    const tokens = result?.tokens ?? 0
    if (tokens > 0 !== item.sample)
      assert(false, `request ${item.id} yielded ${item.sample ? "no token" : "a token too early"}`)
    const accepted = Math.max(0, tokens - 1)
    if (accepted > item.draft) assert(false, `request ${item.id} accepted more than was drafted`)
    request.computed = item.position + item.tokens + accepted
    if (result?.prefix !== undefined) request.prefix.push(...result.prefix)
    if (item.draft > 0) this.#kv.shrink(item.id, request.computed)
    // Otherwise its KV is what the batch took, and none of it can be shared.
    if (item.draft > 0 || request.prefix.length > 0) this.#kv.computed(item.id, request.computed)
    request.failures = 0
    this.#learnt.tenants.served(request, item, tokens)
    if (result === undefined || tokens === 0) return
    if (request.output > 0) this.#learnt.speculation.observe(request.spec.app, item.draft, result)
    this.#emit(request, result, nowUs)
    if (this.#config.prefillOnly && !request.gone) this.#handOff(request)
  }

  #emit(request: LiveRequest, result: StepResult, nowUs: number): void {
    const before = request.output
    const lateUs = request.emit(result.tokens, result.answeringFrom, nowUs, this.#stageDone)
    this.#learnt.outputLengths.grew(request.spec.app, before, request.output)
    this.#effects.push({ type: "token", id: request.id, count: result.tokens, lateUs })
    if (before === 0 && request.tier === "slo" && this.options.admission === "revocable") {
      this.#effects.push({ type: "admitted", id: request.id })
    }
    if (result.stopped) this.#end(request, "stop", nowUs)
    else if (request.output >= request.spec.maxOutputTokens) this.#end(request, "length", nowUs)
  }

  #stageDone = (outcome: StageOutcome, id: RequestId): void => {
    this.#effects.push({ type: "stageDone", id, outcome })
  }

  #handOff(request: LiveRequest): void {
    this.#remove(request)
    this.#round.handedOff(request)
    this.#effects.push({ type: "handedOff", id: request.id, progress: request.progress })
  }

  #stepFailed({ batch: number, reason }: StepFailed, nowUs: number): void {
    const { items } = this.#flight.land(number)
    const aboard = this.#flight.requests
    for (let i = 0; i < items.length; i++) {
      const { id, position, copy } = items[i]!
      if (aboard[i]!.gone) continue
      if (position > 0 && copy === undefined) this.#kv.computed(id, position)
      else this.#loseKv(aboard[i]!)
    }
    this.#kv.dropCache()
    this.#releaseLeft()
    const suspects = aboard.filter((request) => !request.gone)
    const alone = suspects.length === 1 ? suspects[0]! : null
    if (alone !== null && ++alone.failures >= MOST_FAILURES) this.#end(alone, "failed", nowUs)
    else if (alone !== null && reason === "kvFull")
      for (const other of this.#line) if (other !== alone) this.#loseKv(other)
    this.#recovery.stepFailed(suspects, reason, nowUs)
  }

  #loseKv(request: LiveRequest): void {
    if (!this.#kv.holds(request.id)) return
    this.#kv.drop(request.id)
    request.computed = 0
    request.preemptions++
    this.#effects.push({ type: "preempted", id: request.id })
  }

  #releaseLeft(): void {
    for (const id of this.#flight.takeLeft()) this.#kv.end(id)
  }

  #end(request: LiveRequest, reason: FinishReason, nowUs: number): void {
    const { id, spec } = request
    this.#remove(request)
    const attainable = reason === "stop" || reason === "length"
    const outcome = request.outcome(nowUs, attainable && spec.tier === "slo")
    const comesBack = this.#learnt.ended(request, reason, outcome)
    if (request.output > 0) this.#effects.push({ type: "stageDone", id, outcome: request.stage })
    this.#effects.push({ type: "finished", id, reason, outcome })
    if (!comesBack && this.policy.keepsSessions) this.#kv.wontReturn(id)
    // The engine may be computing it right now: its KV is free at the next boundary.
    if (request.startedUs >= 0) this.release(id)
  }

  #remove(request: LiveRequest): void {
    request.gone = true
    this.#learnt.tenants.left(request)
    if (request.output > 0) this.#learnt.tenants.ended(request.known + request.output)
    this.#requests.delete(request.id)
    this.#line.splice(this.#line.indexOf(request), 1)
  }

  #decide(nowUs: number): void {
    this.revision++
    const built = this.#batch
    built.reset(nowUs)
    const suspect = this.#recovery.nextSuspect()
    if (suspect === undefined) this.policy.decide(this.#line, built, nowUs)
    else if (suspect.decoding) built.decode(suspect, this.#line)
    else built.prefill(suspect, this.limits.maxBatchTokens, this.#line)
    if (built.items.length > 0) this.#run(built, nowUs)
  }

  #run(built: BatchBuilder, nowUs: number): void {
    for (const request of built.requests) if (request.startedUs < 0) request.startedUs = nowUs
    const trim = this.#kv.takeTrimmed()
    const batch: Batch = {
      number: ++this.#batches,
      items: built.items,
      evict: this.#kv.takeDropped(),
      release: this.#kv.takeReleased(),
      ...(trim.length > 0 && { trim }),
      predictedUs: Math.round(built.timeUs()),
    }
    this.#flight.takeOff(batch, built, nowUs)
    this.#effects.push({ type: "run", batch })
  }
}
