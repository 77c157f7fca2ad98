/** One simulated GPU: a replica of the production core, and an engine whose steps take modelled time. */
import { type CostModel, ranShape, shapeOf, stepUs } from "../core/cost.ts"
import type {
  Batch,
  BatchItem,
  EngineLimits,
  Event,
  RanItem,
  RequestSpec,
  Snapshot,
  StepFailure,
  StepResult,
} from "../core/protocol.ts"
import { Replica, type ReplicaConfig } from "../core/replica.ts"
import { LAYOUT } from "../fit/guess.ts"
import { StepFit, type StepFitOptions } from "../fit/step-fit.ts"
import type { Target } from "../router/target.ts"
import { normalChance } from "./chance.ts"
import type { Faults } from "./faults.ts"
import { type EngineWays, OwnWays } from "./own-ways.ts"
import { PooledWays } from "./pooled-ways.ts"
import type { Play, World } from "./world.ts"

/** How real step times differ from what the planner believes. */
export interface Reality {
  truth?: CostModel
  /** Of a lognormal factor on each step's time. */
  noiseSigma: number
  bias: number
  seed: number
  /** The planner is not told what steps take: it begins with a guess and learns. */
  learnCost?: StepFitOptions
  /** Instead of seeded noise: a factor for each step begun, in order. */
  noise?: () => number
  /** Engines that own their KV renew plans: others are made in the place of those that do not know of what has arrived since. */
  renewal?: Renewal
  /** Further failures: why this batch of this replica fails, or null. */
  fails?: (batch: number, replica: number) => StepFailure | null
}

/** When an engine has another plan made in place of one that is there, as vLLM's plug-in does (docs/vllm.md, Arrivals): while asking
 * takes no more than a share of the time (SHARE_ASKED). */
export interface Renewal {
  /** Of plans of steps that should last so long, µs. */
  fromUs: number
  /** What asking costs, µs: nothing is computed meanwhile, unless a step is. */
  answerUs: number
}

/** As the plug-in's (patience.py): of the time that steps take, and so much saved up, µs. */
const SHARE_ASKED = 0.01
const MOST_SAVED_US = 50_000

/** Keeps noise apart from other luck of the same seed. */
const NOISE_STREAM = 0x6e6f6973

export class Machine implements Target {
  readonly index: number
  readonly replica: Replica
  #reality: Reality
  #truth: CostModel
  #fit: StepFit | null
  #faults: Faults
  #world: World
  /** Those that wait for the step that runs now. */
  #waiting: Batch[] = []
  #step: Step | null = null
  /** Where the engine owns its KV. */
  #ways: EngineWays | null
  /** The last batch that it has scheduled. */
  #scheduled = 0
  /** Requests that the last plan could know of. */
  #known = 0
  /** The engine asks for a plan and does nothing else until it is there. */
  #asks = false
  /** What the router knows, when snapshots are stale: the one it sees, and the next. */
  #seen: Seen
  #next: Seen
  /** The present as it was last asked for, and at which revision of the replica. */
  #present: Snapshot
  #revision = 0
  lost = false
  /** Most batches in flight. */
  readonly depth: number
  /** Of a prefill replica under offers: asks the decode side for a promise. */
  decodes: ((request: RequestSpec, nowUs: number) => boolean) | null = null
  /** Something happened since it last decided. */
  touched = false
  /** When it asked to be woken; Infinity if it did not. */
  wakeAtUs = Infinity
  busyUs = 0
  steps = 0
  /** What asking may take yet, µs. */
  #savedUs = MOST_SAVED_US
  /** Plans that others took the place of. */
  renewed = 0
  batchTokens = 0
  /** Requests that it was given. */
  routed = 0
  /** Set by the fleet: the present. */
  nowUs = 0

  constructor(index: number, config: ReplicaConfig, reality: Reality, faults: Faults, world: World) {
    this.index = index
    this.depth = config.depth ?? 1
    this.#truth = reality.truth ?? config.cost
    this.#fit = reality.learnCost === undefined ? null : new StepFit(reality.learnCost)
    this.replica = new Replica(this.#fit === null ? config : { ...config, cost: this.#fit.model })
    this.#reality = reality
    this.#faults = faults
    this.#world = world
    this.#ways = config.engineOwnsKv ? waysOf(config.limits, faults, world, index, reality.seed) : null
    const { renewal } = reality
    if (renewal !== undefined) this.replica.handle({ type: "renews", fromUs: renewal.fromUs }, 0)
    this.#present = this.replica.snapshot(0)
    this.#seen = this.#next = { lost: false, snapshot: this.#present }
  }

  /** A batch to be computed, after those that were given before. */
  run(batch: Batch): void {
    this.#waiting.push(batch)
    this.#known = this.routed
  }

  /** The step that begins now, if one does, and what the replica is to be told of it at once. */
  begin(nowUs: number): { step: Step | null; events: readonly Event[] } {
    if (this.#step !== null || this.lost) return { step: null, events: [] }
    if (this.#ways !== null) return this.#renew() ?? this.#beginOwn(this.#ways, nowUs)
    const batch = this.#waiting.shift()
    return { step: batch === undefined ? null : this.#takeOff(batch.number, batch.items, nowUs), events: [] }
  }

  /** It says what it does now before it says what came out of the last step, as vLLM does that schedules ahead. */
  get hasty(): boolean {
    return this.#ways?.hasty ?? false
  }

  /** What it says of its KV after all else that it has to say, if anything. */
  get counted(): Event[] {
    const tokens = this.#ways?.freeTokens ?? null
    return tokens === null ? [] : [{ type: "kvFree", tokens, batch: this.#scheduled }]
  }

  /** A step is over: what the replica is told, in this order. */
  over(step: Step): readonly Event[] {
    this.#step = null
    const { number: batch, durationUs, items, plays: aboard, reason } = step
    if (reason !== null) this.#ways?.failed(items)
    if (reason !== null) return [{ type: "stepFailed", batch, reason }, ...this.#failWaiting(reason)]
    const { results, plays } = this.#world.play(items, aboard)
    this.#world.happened({ results, plays })
    this.#ways?.landed(items, results)
    const cost = this.#learn(step, results)
    return [
      { type: "stepDone", batch, durationUs, results },
      ...(cost === null ? [] : [{ type: "costModel" as const, cost }]),
    ]
  }

  /** What it believes of steps from now on, where one has changed that. */
  #learn({ items, durationUs }: Step, results: readonly StepResult[]): CostModel | null {
    if (this.#fit === null) return null
    const shape = ranShape(LAYOUT, { items }, results) ?? shapeOf(items, LAYOUT)
    return this.#fit.observeShape(shape, durationUs)
  }

  /** What was to follow a failed step counted on it. */
  #failWaiting(reason: StepFailure): Event[] {
    const waiting = this.#waiting.splice(0)
    for (const { evict } of waiting) this.#ways?.evicted(evict)
    return waiting.map(({ number: batch }) => ({ type: "stepFailed", batch, reason }))
  }

  /** The last plan, where that is to be another. Those before it are scheduled already. */
  #renew(): { step: null; events: readonly Event[] } | null {
    const last = this.#waiting.at(-1)
    const { renewal } = this.#reality
    if (renewal === undefined || last === undefined || this.#waiting.length < this.depth - 1) return null
    const { fromUs, answerUs } = renewal
    if (this.#known === this.routed || last.predictedUs < fromUs || this.#savedUs <= 0) return null
    this.#savedUs = Math.max(-MOST_SAVED_US, this.#savedUs - answerUs)
    this.#waiting.pop()
    this.#asks = this.#waiting.length === 0
    this.renewed++
    return { step: null, events: [{ type: "ran", batch: last.number, items: [] }] }
  }

  /** By its own ways: the plan, more or less, or a batch of its own. */
  #beginOwn(ways: EngineWays, nowUs: number): { step: Step | null; events: readonly Event[] } {
    const batch = this.#waiting.shift()
    this.#scheduled = batch?.number ?? this.#scheduled
    const strays = ways.strays(this.#waiting.length)
    const events: Event[] = []
    if (batch !== undefined && !strays) {
      const ran = ways.schedule(batch)
      events.push({ type: "ran", batch: batch.number, ...ran, evicted: true })
      if (ran.items.length > 0)
        return { step: this.#takeOff(batch.number, this.#sampled(ran.items), nowUs), events }
    } else if (batch !== undefined) events.push({ type: "ran", batch: batch.number, items: [] })
    const own = strays ? ways.scheduleOwn() : { items: [], preempted: [] }
    if (own.items.length === 0) return { step: null, events }
    const number = ways.nextNumber()
    events.push({ type: "ran", batch: number, ...own })
    return { step: this.#takeOff(number, this.#sampled(own.items), nowUs), events }
  }

  /** Those that reach the last known token yield one. */
  #sampled(items: readonly RanItem[]): BatchItem[] {
    return items.map((item) => {
      const { request, output } = this.#world.plays.get(item.id)!
      const { promptTokens, allRows } = request.spec
      const sample = item.position + item.tokens === promptTokens + output
      return { ...item, sample, ...(allRows && output === 0 && { rows: item.tokens }) }
    })
  }

  #takeOff(number: number, items: readonly BatchItem[], nowUs: number): Step {
    const { noise, fails } = this.#reality
    const factor = noise === undefined ? this.#noise() : noise()
    const shape = shapeOf(items, this.#truth)
    const us = stepUs(this.#truth, shape) * factor * this.#faults.slowdown(this.index, nowUs)
    const askedUs = this.#asks ? this.#reality.renewal!.answerUs : 0
    this.#asks = false
    const durationUs = Math.max(1, Math.round(us + askedUs))
    this.steps++
    this.busyUs += durationUs
    this.#savedUs = Math.min(MOST_SAVED_US, this.#savedUs + SHARE_ASKED * durationUs)
    this.batchTokens += shape.tokens
    const reason = fails?.(number, this.index) ?? this.#faults.failure(this.index, nowUs)
    const plays = this.#world.aboard(items)
    this.#step = { number, items, plays, durationUs, atUs: nowUs + durationUs, reason }
    return this.#step
  }

  // As the router sees it.

  get alive(): boolean {
    return !(this.#faults.staleUs === 0 ? this.lost : this.#refreshed().lost)
  }
  snapshot(): Snapshot {
    return this.#faults.staleUs === 0 ? this.#now() : this.#refreshed().snapshot
  }
  /** An offer is a question to the replica itself: its answer is never stale, and a lost one does not answer. A prefill
   * replica promises only what a decode replica promises to go on with. */
  offer(request: RequestSpec, nowUs: number): boolean {
    if (this.lost || !this.replica.offer(this.asGiven(request), nowUs)) return false
    return this.decodes === null || this.decodes(request, nowUs)
  }
  /** The request as the replica is to know it: where others decode it, nothing but its next token is to be planned for. One
   * more, or it would end here. */
  asGiven(request: RequestSpec, output = 0): RequestSpec {
    if (this.decodes === null) return request
    return { ...request, maxOutputTokens: Math.min(output + 2, request.maxOutputTokens) }
  }
  /** A request bounced off it: the router knows. */
  foundLost(): void {
    this.#seen = this.#next = { ...this.#next, lost: true }
  }

  /** The picture taken last comes into sight when it is old enough, and a new one is taken. */
  #refreshed(): Seen {
    if (this.nowUs - this.#next.snapshot.nowUs >= this.#faults.staleUs) {
      this.#seen = this.#next
      this.#next = { lost: this.lost, snapshot: this.#now() }
    }
    return this.#seen
  }

  /** Counted anew only where something has changed: a router may look at a thousand replicas for each request. */
  #now(): Snapshot {
    if (this.replica.revision === this.#revision) return this.#present
    this.#revision = this.replica.revision
    this.#present = this.replica.snapshot(this.nowUs)
    return this.#present
  }

  #noise(): number {
    const { noiseSigma, bias, seed } = this.#reality
    if (noiseSigma === 0) return bias
    return bias * Math.exp(noiseSigma * normalChance(seed ^ NOISE_STREAM, this.index, this.steps))
  }
}

/** A step begun: what it computes, when it ends, and why it fails, if it does. */
export interface Step {
  number: number
  items: readonly BatchItem[]
  plays: readonly (Play | undefined)[]
  durationUs: number
  atUs: number
  reason: StepFailure | null
}

interface Seen {
  lost: boolean
  snapshot: Snapshot
}

function waysOf(
  limits: EngineLimits,
  faults: Faults,
  world: World,
  replica: number,
  seed: number,
): EngineWays {
  if (faults.ownBlocks(replica)) return new PooledWays(limits, world, replica, seed)
  return new OwnWays(limits, world, replica, seed, faults.ownWays(replica))
}
