/** The fleet simulator: replicas of the production core behind the production router, on virtual time. Whatever
 * happens in one microsecond is told to the replicas in a fixed order; then each of them decides once. */
import { assert } from "../core/assert.ts"
import type { CostModel } from "../core/cost.ts"
import type { Effect, Event, Progress, RequestId, StepFailure } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import type { StepFitOptions } from "../fit/step-fit.ts"
import { Router, type RouterOptions } from "../router/router.ts"
import type { Chances } from "../router/target.ts"
import { chance } from "./chance.ts"
import { type Fault, Faults } from "./faults.ts"
import { EventHeap } from "./heap.ts"
import { Machine, type Renewal, type Step } from "./machine.ts"
import { type Transfer, Transfers } from "./transfers.ts"
import { type Play, type SimRequest, World } from "./world.ts"

export interface Disaggregation {
  /** The first so many replicas prefill, the next so many decode (DistServe). */
  prefill: number
  decode: number
  /** KV transfer: latency plus time per token, µs. */
  transferUsPerToken: number
  transferLatencyUs: number
  /** Offers on both sides: a prefill replica promises only when a decode replica promises the decodes. Default: what has its
   * first token goes where there is room. */
  offers?: boolean
}

export interface FleetOptions {
  /** One per GPU; `cost` is what its planner believes. */
  replicas: readonly ReplicaConfig[]
  /** What steps really take; default: what the planner believes. */
  truth?: CostModel
  /** Planners are not told: they begin with a guess of this kind, and learn. What replicas are said to cost is then the truth. */
  learnCost?: StepFitOptions
  /** Sigma of a lognormal factor on each step's time (median 1). Default 0: the model is exact. */
  noiseSigma?: number
  /** A further factor on every step's time. Default 1. */
  bias?: number
  /** Engines that own their KV have plans renewed. Default: never. */
  renewal?: Renewal
  /** Of noise, accepted drafts and routing. */
  seed: number
  /** In any order. */
  requests: readonly SimRequest[]
  /** What an ended request brings about: the next round of its session, at some later time. */
  follow?: (id: RequestId, nowUs: number) => SimRequest | null
  router?: RouterOptions
  disaggregated?: Disaggregation
  faults?: readonly Fault[]
  onEffect?: (effect: Effect, nowUs: number, replica: number) => void
  onEvent?: (event: Event, nowUs: number, replica: number) => void
  /** Run every replica's invariants after each of its decisions. */
  check?: boolean
  /** Give up (throw) after so many decisions: a policy that runs in circles must not run for ever. */
  maxPolls?: number
  /** Instead of seeded noise and bias: a factor for each step begun, in order. */
  noise?: () => number
  /** Besides `faults`: why this batch of this replica fails. */
  fails?: (batch: number, replica: number) => StepFailure | null
}

export interface FleetResult {
  /** Time of the last event, µs. */
  endUs: number
  /** Over all replicas. */
  steps: number
  /** Plans that others took the place of. */
  renewed: number
  decisions: number
  batchTokens: number
  /** Per replica: time in steps, and requests it was given. */
  busyUs: Float64Array
  routed: Uint32Array
  /** Requests that went on at another replica: after a loss, or because one could keep their SLOs after all. */
  moved: number
  /** Arrivals sent to a replica that was lost already. */
  bounced: number
  /** KV transfers begun, and how long they had waited for room, summed, µs. */
  transfers: number
  transferWaitUs: number
}

/** Run to the end. Deterministic: same options, same effects. */
export function simulateFleet(options: FleetOptions): FleetResult {
  return new Fleet(options).run()
}

type Happening =
  | { type: "step"; machine: Machine; step: Step }
  | { type: "cancel"; id: RequestId }
  | { type: "loss"; machine: Machine }
  | { type: "arrival"; play: Play }
  | { type: "landing"; transfer: Transfer }
  | { type: "wake"; machine: Machine; atUs: number }

/** Order within one microsecond; agrees with the core's `eventRank`. */
const RANK: Record<Happening["type"], number> = {
  step: 0,
  cancel: 1,
  loss: 2,
  arrival: 3,
  landing: 3,
  wake: 4,
}

/** Keeps the router's draws apart from other luck of the same seed. */
const ROUTING_STREAM = 0x726f7574

class Fleet {
  #options: FleetOptions
  #world: World
  #machines: Machine[]
  /** Those that take arrivals: all, or the prefill side. */
  #front: Machine[]
  #router: Router
  #transfers: Transfers | null
  #heap = new EventHeap<Happening>()
  #arrivals: readonly SimRequest[]
  #nextArrival = 0
  #nowUs = 0
  #decisions = 0
  #moved = 0
  #bounced = 0
  /** Turned down at this moment, to be offered elsewhere. */
  #turnedDown: Play[] = []

  constructor(options: FleetOptions) {
    this.#options = options
    const { replicas, disaggregated: split } = options
    assert(replicas.length > 0, "a fleet has at least one replica")
    assert(
      split === undefined || (split.prefill > 0 && split.decode > 0),
      "disaggregation needs both kinds of replicas",
    )
    const faults = new Faults(options.faults ?? [])
    const { truth, learnCost, renewal, noise, fails, seed, noiseSigma = 0, bias = 1 } = options
    const reality = {
      noiseSigma,
      bias,
      seed,
      ...(truth && { truth }),
      ...(learnCost && { learnCost }),
      ...(renewal && { renewal }),
      ...(noise && { noise }),
      ...(fails && { fails }),
    }
    this.#world = new World(seed, replicas[0]!.limits.blockTokens)
    this.#machines = replicas.slice(0, split && split.prefill + split.decode).map((config, i) => {
      const prefillOnly = split !== undefined && i < split.prefill
      return new Machine(i, prefillOnly ? { ...config, prefillOnly } : config, reality, faults, this.#world)
    })
    this.#front = this.#machines.slice(0, split?.prefill)
    const decoders = split === undefined ? [] : this.#machines.slice(split.prefill)
    const transfers = split === undefined ? null : new Transfers(decoders)
    this.#transfers = transfers
    if (transfers !== null && split?.offers === true)
      for (const machine of this.#front)
        machine.decodes = (request, nowUs) => transfers.promise(request, nowUs)
    for (const side of split === undefined ? [this.#front] : [this.#front, decoders])
      faults.requireSurvivor(side.map(({ index }) => index))
    this.#router = new Router(options.router)
    this.#arrivals = [...options.requests].sort((a, b) => a.atUs - b.atUs)
    for (const { replica, atUs } of faults.losses) {
      const machine = this.#machines[replica]
      if (machine !== undefined) this.#push(atUs, { type: "loss", machine })
    }
  }

  run(): FleetResult {
    for (;;) {
      const atUs = Math.min(this.#heap.nextUs, this.#arrivals[this.#nextArrival]?.atUs ?? Infinity)
      if (atUs === Infinity) return this.#result()
      this.#nowUs = atUs
      while (this.#arrivals[this.#nextArrival]?.atUs === atUs)
        this.#schedule(this.#arrivals[this.#nextArrival++]!)
      while (this.#heap.nextUs === atUs) this.#happen(this.#heap.pop()!)
      for (const machine of this.#machines) if (machine.touched) this.#decide(machine)
      this.#reoffer()
      this.#beginTransfers()
    }
  }

  #schedule(request: SimRequest): void {
    const { atUs, cancelAtUs } = request
    this.#push(atUs, { type: "arrival", play: this.#world.enter(request) })
    if (cancelAtUs !== undefined && cancelAtUs >= atUs)
      this.#push(cancelAtUs, { type: "cancel", id: request.spec.id })
  }

  #push(atUs: number, happening: Happening): void {
    this.#heap.push(atUs, RANK[happening.type], happening)
  }

  #happen(happening: Happening): void {
    if (happening.type === "step") this.#stepOver(happening)
    else if (happening.type === "cancel") this.#cancel(happening.id)
    else if (happening.type === "loss") this.#lose(happening.machine)
    else if (happening.type === "arrival") this.#route(happening.play)
    else if (happening.type === "landing") this.#land(happening.transfer)
    else this.#wake(happening)
  }

  #stepOver({ machine, step }: Extract<Happening, { type: "step" }>): void {
    if (machine.lost) return
    this.#begin(machine, machine.over(step))
  }

  /** The engine goes on with what it was given. `landed`: what it has to say of its last step. */
  #begin(machine: Machine, landed: readonly Event[] = []): void {
    const { step, events } = machine.begin(this.#nowUs)
    const told = machine.hasty ? [...events, ...landed] : [...landed, ...events]
    for (const event of told) this.#tell(machine, event)
    if (told.length > 0) for (const event of machine.counted) this.#tell(machine, event)
    if (step !== null) this.#push(step.atUs, { type: "step", machine, step })
  }

  #wake({ machine, atUs }: Extract<Happening, { type: "wake" }>): void {
    if (machine.wakeAtUs !== atUs || machine.lost) return
    machine.wakeAtUs = Infinity
    this.#tell(machine, { type: "woke" })
  }

  #tell(machine: Machine, event: Event): void {
    this.#options.onEvent?.(event, this.#nowUs, machine.index)
    machine.replica.handle(event, this.#nowUs)
    machine.touched = true
  }

  /** Choose a replica for a new request, or for one that has lost its own. */
  #route(play: Play, progress?: Progress): void {
    const { spec } = play.request
    const chances = this.#chances(spec.id, 0)
    for (const machine of this.#front) machine.nowUs = this.#nowUs
    let machine: Machine
    for (;;) {
      const index = this.#router.route(spec, this.#front, this.#nowUs, chances)
      assert(index >= 0, "no replica is left")
      machine = this.#front[index]!
      if (!machine.lost) break
      this.#bounced++
      machine.foundLost()
      this.#router.forget(index)
    }
    this.#give(machine, play, progress)
  }

  #give(machine: Machine, play: Play, progress?: Progress): void {
    play.at = machine.index
    machine.routed++
    const request = machine.asGiven(play.request.spec, progress?.output)
    this.#tell(machine, { type: "arrived", request, ...(progress && { progress }) })
    if (play.cancelled) this.#tell(machine, { type: "cancelled", id: request.id })
  }

  #chances(id: RequestId, place: number): Chances {
    const seed = this.#options.seed ^ ROUTING_STREAM
    return [chance(seed, id, 2 * place), chance(seed, id, 2 * place + 1)]
  }

  #cancel(id: RequestId): void {
    const play = this.#world.plays.get(id)
    if (play === undefined) return
    play.cancelled = true
    const transfer = play.at < 0 ? this.#transfers?.cancel(play) : null
    // It ends where its KV is.
    if (transfer) this.#give(transfer.from, play, transfer.progress)
    // One that is at none yet, of this very moment, ends where it will be.
    else if (play.at >= 0) this.#tell(this.#machines[play.at]!, { type: "cancelled", id })
  }

  #lose(machine: Machine): void {
    if (machine.lost) return
    // What it did until now has happened; what it would do next has not.
    for (const effect of machine.touched ? machine.replica.poll(this.#nowUs) : []) {
      if (effect.type === "run" || effect.type === "wake") continue
      this.#options.onEffect?.(effect, this.#nowUs, machine.index)
      this.#account(effect, machine)
    }
    machine.lost = true
    machine.touched = false
    const bereft = this.#transfers?.lost(machine) ?? []
    const moved = machine.replica.surrender()
    for (const { request, progress } of moved) this.#move(this.#world.plays.get(request.id)!, progress)
    for (const { play, progress } of bereft) {
      const { tier } = play.request.spec
      this.#move(play, { ...progress, tier, admitted: false, preemptions: progress.preemptions + 1 })
    }
  }

  #move(play: Play, progress: Progress): void {
    this.#moved++
    this.#route(play, progress)
  }

  /** As many batches as it may have in flight, one a decision. */
  #decide(machine: Machine): void {
    do {
      machine.touched = false
      if (++this.#decisions > (this.#options.maxPolls ?? Infinity))
        throw new Error(`no end after ${this.#options.maxPolls} decisions`)
      const effects = machine.replica.poll(this.#nowUs)
      for (const effect of effects) {
        this.#options.onEffect?.(effect, this.#nowUs, machine.index)
        this.#carryOut(effect, machine)
      }
      this.#begin(machine)
      if (this.#options.check) machine.replica.check()
      if (machine.depth > 1 && effects.at(-1)?.type === "run") machine.touched = true
    } while (machine.touched)
  }

  #carryOut(effect: Effect, machine: Machine): void {
    if (effect.type === "token") return
    if (effect.type === "run") {
      machine.run(effect.batch)
    } else if (effect.type === "wake") {
      machine.wakeAtUs = effect.atUs
      this.#push(effect.atUs, { type: "wake", machine, atUs: effect.atUs })
    } else this.#account(effect, machine)
  }

  /** What an effect means for the request it is about. */
  #account(effect: Effect, machine: Machine): void {
    if (effect.type === "finished") {
      this.#world.plays.delete(effect.id)
      this.#transfers?.forget(effect.id)
      const follower = this.#options.follow?.(effect.id, this.#nowUs)
      if (follower) this.#schedule({ ...follower, atUs: Math.max(follower.atUs, this.#nowUs + 1) })
    } else if (effect.type === "rejected") {
      this.#world.plays.delete(effect.id)
      this.#transfers?.forget(effect.id)
    } else if (effect.type === "handedOff") {
      this.#transfers!.enqueue(this.#world.plays.get(effect.id)!, effect.progress, machine, this.#nowUs)
    } else if (effect.type === "demoted" && effect.reason !== "violated" && this.#router.reoffers > 0) {
      const play = this.#world.plays.get(effect.id)
      if (play !== undefined) this.#turnedDown.push(play)
    }
  }

  /** What was turned down here may be taken elsewhere, while nothing of it has been shown. */
  #reoffer(): void {
    const plays = this.#turnedDown
    if (plays.length === 0) return
    this.#turnedDown = []
    for (const machine of this.#front) machine.nowUs = this.#nowUs
    for (const play of plays) {
      const { spec } = play.request
      if (play.at < 0 || play.output > 0 || play.moves >= this.#router.reoffers) continue
      const chances = this.#chances(spec.id, 1 + play.moves)
      const taker = this.#front[this.#router.reoffer(spec, this.#front, play.at, this.#nowUs, chances)]
      const moved = taker && this.#machines[play.at]!.replica.withdraw(spec.id)
      if (!moved) continue
      play.moves++
      this.#moved++
      this.#give(taker, play, moved.progress)
      this.#decide(taker)
    }
  }

  #beginTransfers(): void {
    const { transferLatencyUs = 0, transferUsPerToken = 0 } = this.#options.disaggregated ?? {}
    for (const transfer of this.#transfers?.begin(this.#nowUs) ?? []) {
      const tokens = transfer.play.request.spec.promptTokens + transfer.progress.output - 1
      const durationUs = Math.max(1, Math.round(transferLatencyUs + transferUsPerToken * tokens))
      this.#push(this.#nowUs + durationUs, { type: "landing", transfer })
    }
  }

  #land(transfer: Transfer): void {
    if (transfer.void) return
    this.#transfers!.landed(transfer)
    // Room on the prefill side: it may have waited for it.
    transfer.from.replica.release(transfer.play.request.spec.id)
    transfer.from.touched = true
    this.#give(transfer.to!, transfer.play, transfer.progress)
  }

  #result(): FleetResult {
    const machines = this.#machines
    return {
      endUs: this.#nowUs,
      steps: machines.reduce((n, { steps }) => n + steps, 0),
      renewed: machines.reduce((n, { renewed }) => n + renewed, 0),
      decisions: this.#decisions,
      batchTokens: machines.reduce((n, { batchTokens }) => n + batchTokens, 0),
      busyUs: Float64Array.from(machines, ({ busyUs }) => busyUs),
      routed: Uint32Array.from(machines, ({ routed }) => routed),
      moved: this.#moved,
      bounced: this.#bounced,
      transfers: this.#transfers?.started ?? 0,
      transferWaitUs: this.#transfers?.waitedUs ?? 0,
    }
  }
}
