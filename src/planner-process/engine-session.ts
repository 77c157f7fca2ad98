/** One engine rank at work: its core, told of what the engine says, and asked for each next step. No socket in it: what the
 * engine says is given to it, what it answers is returned. */
import type { SloClasses } from "../config/slo-classes.ts"
import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { Effect, Event, RequestId, RequestSpec, Snapshot } from "../core/protocol.ts"
import { Replica, type ReplicaConfig } from "../core/replica.ts"
import { progressOf } from "../core/seen.ts"
import { plainId } from "../explain/journal.ts"
import type { AnswerRecord } from "../explain/record.ts"
import { fromArrival, isObserved, type ObservedEffect, type ObservedStep } from "../replica/observed.ts"
import { MessageError } from "../wire/messages.ts"
import type { Arrived, EngineMessage, PlanMessage, StepMessage } from "../wire/planner/messages.ts"
import { ArrivalReader } from "./arrivals.ts"
import { EngineClock } from "./engine-clock.ts"
import { EngineEvents, type Flown, type Landing, type StepOf } from "./engine-events.ts"
import { planOf } from "./plan-frame.ts"
import type { PlannerTenants } from "./planner-tenants.ts"
import { batchIn, type Core, type Recorder, recorded } from "./recording.ts"
import type { SloMistake } from "./slo-arguments.ts"
import type { StepItems, StepTimes } from "./step-times.ts"

export interface SessionOptions {
  engine: EngineMessage
  classes: SloClasses
  tenants: PlannerTenants
  policy: PolicyName
  /** Only what was set. */
  policyOptions: Partial<PolicyOptions>
  /** What its steps take; learnt from here on. */
  stepTimes: StepTimes
  recorder: Recorder | null
  sink: SessionSink
}

/** What a session tells of its engine, besides its plans. */
export interface SessionSink {
  /** All of one message, once its plan is out. */
  observed(effects: readonly ObservedEffect[], steps: readonly ObservedStep[]): void
  scheduled(of: StepOf): void
  /** A request has ended. */
  answered(record: AnswerRecord): void
  mistaken(mistake: SloMistake): void
  log(message: string, level: "warn" | "error"): void
}

/** A live request. */
interface Live {
  tenant: number
  tenantName: string
  /** What is told of it when it has ended. */
  told: Pick<AnswerRecord, "id" | "className" | "tier" | "slo" | "thinking" | "arrivedMs">
}

/** Of a batch, for metrics when it has landed. */
interface Decided {
  requests: number
  tokens: number
  planUs: number
  predictedUs: number
}

export class EngineSession {
  readonly engine: EngineMessage
  readonly replica: Replica
  readonly #core: Core
  readonly #options: SessionOptions
  readonly #clock = new EngineClock()
  readonly #arrivals: ArrivalReader
  readonly #events: EngineEvents
  readonly #live = new Map<RequestId, Live>()
  readonly #decided = new Map<number, Decided>()
  /** What runs in batches that have not landed. */
  readonly #items = new Map<number, StepItems>()
  /** What steps are believed to take from the next message on, where that has changed. */
  #learnt: CostModel | null = null
  /** Of those that have begun: KV that is in place. */
  #inPlace: { id: RequestId; computed: number }[] = []
  #steps: ObservedStep[] = []
  #nowUs = 0
  /** As it was told last. */
  #renewsFromUs = Infinity
  /** Of the last event. */
  #toldUs = 0
  /** KV that the engine says it has free, and what the core believed then; null: it does not say. */
  kvFree: { told: number; believed: number } | null = null
  /** Of the last message: how long it waited to be read, µs. */
  lagUs = 0

  constructor(options: SessionOptions) {
    const { engine, classes, tenants } = options
    this.engine = engine
    this.#options = options
    const config = configOf(options)
    this.replica = new Replica(config)
    this.#core = recorded(this.replica, options.recorder)
    options.recorder?.began(engine, config)
    this.#arrivals = new ArrivalReader({ engine, classes, tenants })
    this.#events = new EngineEvents({
      post: (event, atUs) => this.#post(event, atUs),
      arrived: (arrived, nowUs) => this.#arrived(arrived, nowUs),
      allArrived: () => this.#putInPlace(),
      scheduled: (of) => options.sink.scheduled(of),
      unused: (batch) => this.#decided.delete(batch),
      landed: (flown, landed) => this.#landed(flown, landed),
    })
  }

  /** All that the engine said. Times are on its clock, `readUs` on ours. Throws MessageError for what cannot be. */
  take(step: StepMessage, readUs: number): void {
    this.#clock.heard(step.nowUs, readUs)
    this.lagUs = this.#clock.lagUs(step.nowUs, readUs)
    this.#nowUs = Math.max(this.#nowUs, step.nowUs)
    // Before what landed since, which may have been a while ago.
    if (this.#learnt !== null) this.#tellCore({ type: "costModel", cost: this.#learnt }, this.#toldUs)
    this.#learnt = null
    if (step.renewsFromUs !== undefined) this.#renews(step.renewsFromUs)
    this.#events.take(step)
    if (step.kvFreeTokens !== undefined) this.#compareKv(step.kvFreeTokens)
  }

  /** The plan of the engine's next step, made with all that was taken; it answers the message `seq`. */
  plan(seq: number): PlanMessage {
    const beganUs = performance.now() * 1000
    const effects = this.#core.poll(Math.max(this.#toldUs, this.#nowUs))
    const plan = planOf(seq, effects)
    // An engine that idles with requests asks again, whatever they wait for.
    if (plan.batch === 0 && this.#live.size > 0) plan.wakeUs ??= this.#nowUs + IDLE_US
    this.#events.planned(plan)
    if (plan.batch !== 0) this.#remember(plan, performance.now() * 1000 - beganUs)
    const batch = batchIn(effects)
    if (batch !== null) this.#items.set(batch.number, batch.items)
    const steps = this.#steps
    this.#steps = []
    if (effects.length > 0 || steps.length > 0) setImmediate(() => this.#afterwards(effects, steps))
    return plan
  }

  /** Could it keep this request's SLOs, and all that it has promised? */
  offer(spec: RequestSpec): boolean {
    return this.replica.offer(spec, this.nowUs)
  }

  snapshot(): Snapshot {
    return this.replica.snapshot(this.nowUs)
  }

  /** Of one request, prompt and output. */
  get mostTokens(): number {
    return this.#arrivals.mostTokens
  }

  /** On the engine's clock. */
  get nowUs(): number {
    return Math.max(this.#nowUs, this.#clock.at(performance.now() * 1000))
  }

  /** The engine is gone: what it had is not live here any more. */
  close(): void {
    this.#options.recorder?.ended()
    this.#options.stepTimes.learn()
    this.#options.stepTimes.keep()
    for (const { tenant } of this.#live.values()) this.#options.tenants.left({ number: tenant })
    this.#live.clear()
  }

  /** What no engine waits for. */
  #afterwards(effects: readonly Effect[], steps: readonly ObservedStep[]): void {
    this.#tell(effects, steps)
    this.#learnt = this.#options.stepTimes.learn() ?? this.#learnt
  }

  #post(event: Event, atUs: number): void {
    if (event.type === "ran") {
      if (event.items.length > 0) this.#items.set(event.batch, event.items)
      else this.#items.delete(event.batch)
    }
    this.#tellCore(event, atUs)
  }

  /** What is told late happened at the latest time so far: time does not run backwards. */
  #tellCore(event: Event, atUs: number): void {
    this.#toldUs = Math.max(this.#toldUs, Math.round(atUs))
    this.#core.handle(event, this.#toldUs)
  }

  #renews(fromUs: number): void {
    if (fromUs === this.#renewsFromUs) return
    this.#renewsFromUs = fromUs
    this.#tellCore({ type: "renews", fromUs }, this.#toldUs)
  }

  #arrived(arrived: Arrived, nowUs: number): void {
    const { sink, tenants } = this.#options
    const { id } = arrived
    if (this.#live.has(id)) throw new MessageError(`arrived: request ${id} is live already`)
    const read = this.#arrivals.read(arrived, nowUs, Date.now())
    if (read === null) {
      sink.log(
        `engine ${this.engine.name}: a prompt of ${arrived.promptTokens} tokens does not fit its KV; it is not planned`,
        "error",
      )
      return
    }
    for (const mistake of read.mistakes) sink.mistaken(mistake)
    const { spec, seen } = read
    const arrivedMs = Date.now() - (nowUs - (spec.arrivalUs ?? nowUs)) / 1000
    const told = { id: nameOf(arrived), className: read.className, ...asked(spec), arrivedMs }
    this.#live.set(id, { tenant: spec.tenant ?? 0, tenantName: read.tenant, told })
    tenants.came({ number: spec.tenant ?? 0 })
    const progress = seen === null ? null : progressOf(spec, seen, this.replica.zeroLoadPrefillUs)
    this.#post({ type: "arrived", request: spec, ...(progress !== null && { progress }) }, nowUs)
    const computed = arrived.begun?.computed ?? 0
    if (computed > 0) this.#inPlace.push({ id, computed })
  }

  /** What the engine had computed before it was connected, as a step of its own that took no time. */
  #putInPlace(): void {
    if (this.#inPlace.length === 0) return
    const batch = this.#events.ownBatch()
    const items = this.#inPlace.map(({ id, computed }) => ({
      ...{ id, position: computed - 1, tokens: 1, draft: 0 },
    }))
    const results = this.#inPlace.map(({ id, computed }) => ({
      ...{ id, tokens: 0, stopped: false, answeringFrom: -1, computed },
    }))
    this.#inPlace = []
    this.#tellCore({ type: "ran", batch, items }, this.#nowUs)
    this.#tellCore({ type: "stepDone", batch, durationUs: 0, results }, this.#nowUs)
  }

  #landed({ batch, of }: Flown, { durationUs, ids, produced, drafted }: Landing): void {
    const items = this.#items.get(batch)
    this.#items.delete(batch)
    const reallyDrafted = drafted && new Map(Array.from(ids, (id, i) => [id, drafted[i]!]))
    if (items !== undefined) this.#options.stepTimes.landed(items, reallyDrafted ?? null, durationUs)
    const decided = this.#decided.get(batch)
    this.#decided.delete(batch)
    if (decided === undefined) return
    const drafts: { drafted: number; accepted: number }[] = []
    for (let i = 0; drafted !== undefined && i < ids.length; i++)
      if (drafted[i]! > 0) drafts.push({ drafted: drafted[i]!, accepted: Math.max(0, produced[i]! - 1) })
    // A step that was not the plan's is no witness for its prediction.
    const predictedUs = of === "plan" ? decided.predictedUs : 0
    this.#steps.push({ ...decided, predictedUs, durationUs, failed: false, drafts })
  }

  #remember({ batch, tokens, drafts, predictedUs }: PlanMessage, planUs: number): void {
    let all = 0
    for (let i = 0; i < tokens.length; i++) all += tokens[i]! + (drafts?.[i] ?? 0)
    this.#decided.set(batch, { requests: tokens.length, tokens: all, planUs, predictedUs })
  }

  #compareKv(told: number): void {
    this.kvFree = { told, believed: this.replica.freeKvTokens }
    this.#post({ type: "kvFree", tokens: told }, this.#nowUs)
  }

  #tell(effects: readonly Effect[], steps: readonly ObservedStep[]): void {
    const observed: ObservedEffect[] = []
    for (const effect of effects) {
      if (!isObserved(effect)) continue
      observed.push(effect.type === "finished" ? { ...effect, outcome: fromArrival(effect.outcome) } : effect)
      if (effect.type === "finished" || effect.type === "rejected") this.#left(effect)
      else if (effect.type === "token") this.#came(effect.id, effect.count)
    }
    this.#options.sink.observed(observed, steps)
  }

  #came(id: RequestId, tokens: number): void {
    const live = this.#live.get(id)
    if (live !== undefined) this.#options.tenants.figures.of(live.tenantName).outputTokens += tokens
  }

  #left(effect: Extract<Effect, { type: "finished" | "rejected" }>): void {
    const live = this.#live.get(effect.id)
    if (live === undefined) return
    this.#live.delete(effect.id)
    const { tenants, sink } = this.#options
    tenants.left({ number: live.tenant })
    if (effect.type === "finished") {
      tenants.figures.of(live.tenantName).ended(effect.reason, effect.outcome)
      sink.answered(recordOf(live, effect))
    } else
      sink.log(
        `engine ${this.engine.name}: the core refuses request ${effect.id} (${effect.reason})`,
        "error",
      )
  }
}

function asked({ tier, slo, thinking }: RequestSpec): Pick<AnswerRecord, "tier" | "slo" | "thinking"> {
  return { tier, slo, thinking }
}

function recordOf(
  { told, tenantName }: Live,
  { reason, outcome }: Extract<Effect, { type: "finished" }>,
): AnswerRecord {
  const failed = reason === "failed"
  return {
    ...told,
    ...{ choice: 0, choices: 1, tenant: tenantName, endedMs: Date.now(), end: reason, ratePerSec: 0 },
    error: failed ? { code: "engine_failed", message: "its steps failed" } : null,
    outcome: reason === "stop" || reason === "length" ? fromArrival(outcome) : null,
    expectedWaitMs: null,
  }
}

/** As its client knows it: vLLM puts eight digits behind that. */
function nameOf({ name, id }: Arrived): string {
  return name === undefined ? String(id) : plainId(name.replace(/-[0-9a-f]{8}$/, ""))
}

/** An engine that has requests and no plan asks after so long at the latest. */
const IDLE_US = 100_000
/** vLLM shares and keeps KV by itself, in one pool. */
const MOST_CACHED = 1_000_000

function configOf({
  engine,
  classes,
  tenants,
  policy,
  policyOptions,
  stepTimes,
}: SessionOptions): ReplicaConfig {
  const { limits, maxDrafts, depth, tokenLag = 0 } = engine
  const { maxAdapters, ...sizes } = limits
  const adapters = maxAdapters === undefined ? {} : { maxAdapters }
  return {
    limits: { ...sizes, ...adapters, unifiedKv: true, cachedSequences: MOST_CACHED },
    ...{ cost: stepTimes.cost, policy, apps: classes.all.length, tenantWeights: tenants.all.weights },
    options: {
      ...(maxDrafts > 0 && { speculation: "on", maxSpeculation: maxDrafts + 1 }),
      ...policyOptions,
    },
    // What the engine has taken is not to be refused.
    maxQueue: Number.POSITIVE_INFINITY,
    ...{ depth, tokenLag, engineOwnsKv: true },
  }
}
