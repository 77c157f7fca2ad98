/** One simulated GPU: a replica of the production core, and an engine whose steps take modelled time. */
import { type CostModel, ranShape, shapeOf, stepUs } from "../core/cost.ts"
import type { Batch, Event, RequestSpec, Snapshot } from "../core/protocol.ts"
import { Replica, type ReplicaConfig } from "../core/replica.ts"
import { LAYOUT } from "../fit/guess.ts"
import { StepFit, type StepFitOptions } from "../fit/step-fit.ts"
import type { Target } from "../router/target.ts"
import { normalChance } from "./chance.ts"
import type { Faults } from "./faults.ts"
import type { World, Yield } from "./world.ts"

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
  /** Further failures: why this batch of this replica fails, or null. */
  fails?: (batch: number, replica: number) => "kvFull" | "engineError" | null
}

/** Keeps noise apart from other luck of the same seed. */
const NOISE_STREAM = 0x6e6f6973

export class Machine implements Target {
  readonly index: number
  readonly replica: Replica
  #reality: Reality
  #truth: CostModel
  #fit: StepFit | null
  #batch: Batch | null = null
  #faults: Faults
  #world: World
  /** What the router knows, when snapshots are stale: the one it sees, and the next. */
  #seen: Seen
  #next: Seen
  /** The present as it was last asked for, and at which revision of the replica. */
  #present: Snapshot
  #revision = 0
  lost = false
  /** Of a prefill replica under offers: asks the decode side for a promise. */
  decodes: ((request: RequestSpec, nowUs: number) => boolean) | null = null
  /** Something happened since it last decided. */
  touched = false
  /** When it asked to be woken; Infinity if it did not. */
  wakeAtUs = Infinity
  busyUs = 0
  steps = 0
  batchTokens = 0
  /** Requests that it was given. */
  routed = 0
  /** Set by the fleet: the present. */
  nowUs = 0

  constructor(index: number, config: ReplicaConfig, reality: Reality, faults: Faults, world: World) {
    this.index = index
    this.#truth = reality.truth ?? config.cost
    this.#fit = reality.learnCost === undefined ? null : new StepFit(reality.learnCost)
    this.replica = new Replica(this.#fit === null ? config : { ...config, cost: this.#fit.model })
    this.#reality = reality
    this.#faults = faults
    this.#world = world
    this.#present = this.replica.snapshot(0)
    this.#seen = this.#next = { lost: false, snapshot: this.#present }
  }

  /** Begin a step: when it ends, and with what event. */
  run(batch: Batch, nowUs: number): Step {
    const { noise, fails } = this.#reality
    const factor = noise === undefined ? this.#noise() : noise()
    const shape = shapeOf(batch.items, this.#truth)
    this.#batch = batch
    const us = stepUs(this.#truth, shape) * factor * this.#faults.slowdown(this.index, nowUs)
    const durationUs = Math.max(1, Math.round(us))
    this.steps++
    this.busyUs += durationUs
    this.batchTokens += shape.tokens
    const atUs = nowUs + durationUs
    const reason = fails?.(batch.number, this.index) ?? this.#faults.failure(this.index, nowUs)
    if (reason !== null) {
      return { atUs, event: { type: "stepFailed", batch: batch.number, reason }, results: [], plays: [] }
    }
    const { results, plays } = this.#world.play(batch.items)
    return { atUs, event: { type: "stepDone", batch: batch.number, durationUs, results }, results, plays }
  }

  /** The step that it began last is over: what it believes of steps from now on, where that has changed. */
  learn({ event }: Step): CostModel | null {
    if (this.#fit === null || event.type !== "stepDone") return null
    const batch = this.#batch!
    const shape = ranShape(LAYOUT, batch, event.results) ?? shapeOf(batch.items, LAYOUT)
    return this.#fit.observeShape(shape, event.durationUs)
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

/** A step begun: when it ends, what the replica is told then, and what it yields. */
export interface Step extends Yield {
  atUs: number
  event: Event
}

interface Seen {
  lost: boolean
  snapshot: Snapshot
}
