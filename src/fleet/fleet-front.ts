/** A fleet of replicas behind the HTTP API: takes places for requests, makes jobs of them, and shows all replicas as one. */
import type { RejectReason, Snapshot } from "../core/protocol.ts"
import type { ModelInfo } from "../engine/port.ts"
import { type UserError, userError } from "../errors.ts"
import { backlogMs } from "../replica/backlog.ts"
import { decodeSlowdown } from "../replica/full-load.ts"
import {
  type EngineHealth,
  type HostInfo,
  type Job,
  type JobEnd,
  type JobId,
  type JobLost,
  type JobSink,
  QUEUE_FULL,
  type ReplicaHost,
} from "../replica/host.ts"
import type { Observed, ObservedEffect } from "../replica/observed.ts"
import { type Claim, Places } from "../replica/places.ts"
import type { PlannerView } from "../replica/planner-view.ts"
import { sumOf } from "../replica/summed-snapshot.ts"
import type { Front, QueueView, ReplicaRow, Shares } from "../serve/front.ts"
import { claimOf, type GenerationRequest } from "../serve/intake.ts"
import { queueRefusal } from "../serve/refusal.ts"
import { MOST_NAMED, OTHERS, type Tenant, Tenants } from "../serve/tenants.ts"
import { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import type { AnswerDelta, AnswerSink } from "../text/answer.ts"

/** Decides which replica has which job, and hands jobs on that their replicas lose. */
export interface JobTaker {
  submit(job: Job, sink: JobSink, onPromise: boolean): void
  cancel(id: JobId): void
  drain(): Promise<void>
  close(): Promise<void>
}

export interface FleetFrontOptions {
  fleet: JobTaker
  hosts: readonly ReplicaHost[]
  /** Of any of them, once one is ready: all serve one model. */
  info: HostInfo
  maxQueue: number
  tenants?: Tenants
  /** Jobs carry the bodies that clients sent: for replicas that are other servers of the same API. Default: they do not. */
  bodies?: boolean
  /** What comes while no replica is up, or comes back soon, is refused at once. Default: it waits for one for a while. */
  refusesDown?: boolean
}

/** Ids of one replica's requests must not be another's. */
const IDS_PER_REPLICA = 2 ** 40

export class FleetFront implements Front {
  readonly engineHere = false
  readonly generates = true
  readonly queue: QueueView
  readonly figures: FiguresByTenant
  readonly replica = null
  readonly tokens = null
  readonly #fleet: JobTaker
  readonly #hosts: ReplicaHost[] = []
  readonly #bodies: boolean
  readonly #refusesDown: boolean
  readonly #info: HostInfo
  readonly #places: Places
  readonly #tenants: Tenants
  readonly #listeners: ((observed: Observed) => void)[] = []
  #nextJob = 1
  #joined = 0
  #draining = false

  constructor(options: FleetFrontOptions) {
    const {
      fleet,
      hosts,
      info,
      maxQueue,
      tenants = new Tenants(),
      bodies = false,
      refusesDown = false,
    } = options
    this.#fleet = fleet
    this.#bodies = bodies
    this.#refusesDown = refusesDown
    this.#info = info
    this.#tenants = tenants
    this.#places = new Places(maxQueue, {
      ...{ weights: tenants.weights, running: () => this.#running },
      slowdown: (few, many) => this.#slowdown(few, many),
    })
    this.queue = this.#places
    this.figures = new FiguresByTenant({ names: tenants.labelled, mostOthers: MOST_NAMED, rest: OTHERS })
    for (const host of hosts) this.join(host)
  }

  /** It is shown, and what it does is told, from now on. */
  join(host: ReplicaHost): void {
    const number = this.#joined++
    this.#hosts.push(host)
    host.onObserved((observed) => this.#observed(observed, number))
  }

  /** It is shown no more; what it still has is told to its end. */
  leave(host: ReplicaHost): void {
    const at = this.#hosts.indexOf(host)
    if (at >= 0) this.#hosts.splice(at, 1)
  }

  get model(): ModelInfo {
    return this.#info.model
  }
  get contextTokens(): number {
    return this.#info.limits.contextTokens
  }
  get longestTokenBytes(): number {
    return this.#info.longestTokenBytes
  }
  get nowUs(): number {
    return performance.now() * 1000
  }

  tokenBytes(token: number): Uint8Array | null {
    return this.#info.vocabulary?.[token] ?? null
  }

  /** Down only where no replica is up. */
  get watch(): EngineHealth {
    return new FleetWatch(this.#hosts)
  }

  get replicas(): readonly ReplicaRow[] {
    return this.#hosts.map((host) => {
      const digest = host.digest()
      const { name, state, detail, restarts = 0 } = host
      return { name, state, detail, restarts, snapshot: digest?.snapshot ?? null, ageUs: digest?.ageUs ?? 0 }
    })
  }

  get planner(): PlannerView | null {
    return this.#hosts.find(({ info }) => info?.planner != null)?.info?.planner ?? null
  }

  snapshot(): Snapshot {
    return sumOf(this.#hosts.flatMap((host) => host.digest()?.snapshot ?? []))
  }

  onObserved(listener: (observed: Observed) => void): void {
    this.#listeners.push(listener)
  }

  async start(requests: readonly GenerationRequest[], sinks: readonly AnswerSink[]): Promise<void> {
    const tenant = this.#tenants.of(requests[0]!.tenant, (number) => this.#places.takenBy(number) === 0)
    const claim = claimOf(requests[0]!, sinks.length)
    const places = this.#reserve(sinks.length, tenant.number, claim)
    if (typeof places === "string") throw this.#refused(places, tenant, sinks.length)
    const each = sinks.length / requests.length
    for (const [i, request] of requests.entries())
      this.#submit(request, sinks.slice(i * each, (i + 1) * each), tenant, places.onPromise)
  }

  #refused(reason: RejectReason, tenant: Tenant, choices: number): UserError {
    this.#tell({ effects: [{ type: "rejected", id: 0, reason }], steps: [] })
    this.figures.of(tenant.name).refused += reason === "queueFull" ? choices : 0
    const { detail } = this.watch
    return queueRefusal(reason, { queue: this.#places, tenant, choices, backlogMs: this.#backlogMs, detail })
  }

  /** Requests that all replicas run at once. */
  get #running(): number {
    return (
      this.#hosts.reduce((sum, { info }) => sum + (info?.limits.maxSequences ?? 0), 0) || this.#places.limit
    )
  }

  /** Where requests are shared out evenly; of engines of others it is not known. */
  #slowdown(few: number, many: number): number {
    const replicas = Math.max(1, this.#hosts.length)
    return this.planner === null ? 1 : decodeSlowdown(this.planner.cost, few / replicas, many / replicas)
  }

  /** Of the replica that is done first. */
  get #backlogMs(): number {
    const all = this.#hosts.flatMap((host) => host.digest()?.snapshot ?? []).map(backlogMs)
    return all.length === 0 ? 0 : Math.min(...all)
  }

  /** Replicas that share a queue out themselves are told. */
  renew(shares: Shares): void {
    this.#places.renew(shares.maxQueue, shares.weights)
    for (const host of this.#hosts) host.renew?.(shares)
  }

  async drain(): Promise<void> {
    this.#draining = true
    await this.#places.empty()
  }

  async close(): Promise<void> {
    this.#draining = true
    await this.#fleet.close()
  }

  #reserve(count: number, tenant: number, claim: Claim): { onPromise: boolean } | RejectReason {
    if (this.#draining) return "shuttingDown"
    if (this.#isDown) return "engineDown"
    if (this.#places.take(count, tenant)) return { onPromise: false }
    return claim === "promise" && this.#places.takeBeyond(count, tenant) ? { onPromise: true } : "queueFull"
  }

  /** No replica is up, or to be expected. */
  get #isDown(): boolean {
    if (this.#hosts.some(({ comesBack = false }) => comesBack)) return false
    return this.#refusesDown && this.watch.state !== "ok"
  }

  #submit(
    request: GenerationRequest,
    sinks: readonly AnswerSink[],
    tenant: Tenant,
    onPromise: boolean,
  ): void {
    const { arrivalMs, signal, body, trace, ...generation } = request
    const id = this.#nextJob++
    const job: Job = {
      ...{ id, generation, ...(this.#bodies && body !== undefined && { body, ...(trace && { trace }) }) },
      ageUs: (performance.now() - arrivalMs) * 1000,
      choices: sinks.map((_, index) => ({ index, begun: null })),
    }
    // It goes with its signal, which is this exchange's own: to take it off again would cost more than all else at its end.
    const gone = () => this.#fleet.cancel(id)
    const ended = (used: boolean) => this.#places.giveBack(1, tenant.number, used)
    let refusal: UserError | null = null
    const full = () => (refusal ??= this.#refused("queueFull", tenant, sinks.length))
    const sink = new ExchangeSink(sinks, this.figures.of(generation.tenant), { ended, full })
    this.#fleet.submit(job, sink, onPromise)
    if (signal.aborted) gone()
    else signal.addEventListener("abort", gone, { once: true })
  }

  #observed({ effects, steps }: Observed, replica: number): void {
    const own = (effect: ObservedEffect) => ({ ...effect, id: effect.id + replica * IDS_PER_REPLICA })
    this.#tell({ effects: effects.map(own), steps })
  }

  #tell(observed: Observed): void {
    for (const listener of this.#listeners) listener(observed)
  }
}

/** From a job's answers to those of an exchange. */
class ExchangeSink implements JobSink {
  readonly #sinks: readonly AnswerSink[]
  readonly #figures: ReturnType<FiguresByTenant["of"]>
  readonly #tell: { ended: (used: boolean) => void; full: () => UserError }
  /** The rest of a text, which is shown with its end: a replica that goes on would say it again. */
  readonly #rests: (AnswerDelta | null)[]

  /** `ended`: one of its answers has, which had a place in some queue (`used`). `full`: no replica has a place for it. */
  constructor(
    sinks: readonly AnswerSink[],
    figures: ReturnType<FiguresByTenant["of"]>,
    tell: { ended: (used: boolean) => void; full: () => UserError },
  ) {
    this.#sinks = sinks
    this.#figures = figures
    this.#tell = tell
    this.#rests = sinks.map(() => null)
  }

  tokens(choice: number, tokens: readonly number[], delta: AnswerDelta | null): void {
    this.#figures.outputTokens += tokens.length
    if (delta === null) return
    if (tokens.length === 0) this.#rests[choice] = delta
    else this.#sinks[choice]!.delta(delta)
  }

  end(choice: number, end: JobEnd): void {
    const sink = this.#sinks[choice]!
    this.#tell.ended(end.kind !== "lost" || end.detail !== QUEUE_FULL)
    if (end.kind === "finished") {
      this.#figures.ended(end.reason === "tool_calls" ? "stop" : end.reason, end.outcome)
      const rest = this.#rests[choice]
      if (rest) sink.delta(rest)
      sink.end(end)
    } else if (end.kind === "lost") sink.end({ kind: "failed", error: this.#errorOf(end) })
    else sink.end(end)
  }

  #errorOf({ detail }: JobLost): UserError {
    return detail === QUEUE_FULL ? this.#tell.full() : userError("no_replica", { detail })
  }
}

/** The engines of a fleet as one: down where all are. */
class FleetWatch implements EngineHealth {
  readonly #hosts: readonly ReplicaHost[]

  constructor(hosts: readonly ReplicaHost[]) {
    this.#hosts = hosts
  }

  /** Every request asks: the first that computes is enough of an answer. */
  get #computes(): boolean {
    return this.#hosts.some(({ state, computes }) => state === "ready" && computes)
  }
  /** The first of those that are up, where none computes. */
  get #down(): EngineHealth | null {
    const up = this.#hosts.filter(({ state }) => state === "ready")
    return up.map((host) => host.digest()?.engine).find((engine) => engine !== undefined) ?? null
  }
  get state(): EngineHealth["state"] {
    return this.#computes ? "ok" : (this.#down?.state ?? "failing")
  }
  get detail(): string {
    if (this.#computes) return ""
    if (this.#down !== null) return this.#down.detail
    return `no replica is up (${this.#hosts.map(({ name, detail }) => `${name}: ${detail}`).join("; ")})`
  }
  get trips(): number {
    return this.#sum((engine) => engine.trips)
  }
  get downUs(): { hung: number; failing: number } {
    return {
      hung: this.#sum(({ downUs }) => downUs.hung),
      failing: this.#sum(({ downUs }) => downUs.failing),
    }
  }

  #sum(of: (engine: EngineHealth) => number): number {
    return this.#hosts.reduce((sum, host) => {
      const engine = host.digest()?.engine
      return engine === undefined ? sum : sum + of(engine)
    }, 0)
  }
}
