/** The real-time driver of one replica: drains its inbox, lets the core decide once, keeps at most one batch in
 * the engine, and carries out every effect. It decides nothing itself. */
import type {
  Batch,
  Effect,
  Event,
  FinishReason,
  Outcome,
  RejectReason,
  RequestId,
  Snapshot,
  StepResult,
} from "../core/protocol.ts"
import { DEFAULT_MAX_QUEUE, eventRank, Replica, type ReplicaConfig } from "../core/replica.ts"
import type { Engine, StepOutput, StepRow } from "../engine/port.ts"
import { type Clock, realClock } from "./clock.ts"
import { EngineWatch, WATCH_DEFAULTS, type WatchOptions } from "./engine-watch.ts"
import { Followers } from "./followers.ts"
import { fullLoadOf } from "./full-load.ts"
import { type Claim, Places, type Reservation } from "./places.ts"
import { arrivalOf, type End, probeThat, type Requested, type Submission } from "./submission.ts"

export type { Claim, Reservation } from "./places.ts"
export type { End, Requested, Submission } from "./submission.ts"

/** What one decision and its step took; for metrics. */
export interface StepReport {
  batch: Batch
  /** Time of the core's decision, µs. */
  planUs: number
  /** Time of the engine's step, µs. */
  durationUs: number
  /** Null, or why the step failed. */
  failure: string | null
  /** What came out of it. */
  rows: readonly StepRow[]
}

export interface DriverOptions {
  engine: Engine
  config: ReplicaConfig
  clock?: Clock
  /** Told of what should not happen: failed steps, callbacks that throw, an engine that is down, or back. */
  log?: (message: string, level: "error" | "info") => void
  /** When a step hangs. */
  watch?: Partial<WatchOptions>
}

export class ReplicaDriver {
  readonly engine: Engine
  readonly replica: Replica
  #clock: Clock
  #log: (message: string, level: "error" | "info") => void
  /** Whether the engine computes. */
  readonly watch: EngineWatch
  /** A request of the driver's own: none of its effects is told. */
  #probe: RequestId | null = null
  readonly #places: Places
  #submissions = new Map<RequestId, Submission>()
  #opened = new Set<RequestId>()
  readonly #followers = new Followers()
  #lastFailure: string | null = null
  #inbox: Event[] = []
  #drainSoon = false
  #step: Promise<void> | null = null
  #cancelWake: (() => void) | null = null
  #nextId = 1
  #observers: ((effect: Effect, nowUs: number) => void)[] = []
  #stepObservers: ((report: StepReport) => void)[] = []
  #accepting = true
  #closed = false

  constructor(options: DriverOptions) {
    this.engine = options.engine
    const { maxQueue, tenantWeights } = options.config
    this.#places = new Places(maxQueue ?? DEFAULT_MAX_QUEUE, {
      ...{ weights: tenantWeights ?? [], nowUs: () => this.nowUs, ...fullLoadOf(() => this.replica) },
    })
    // The core's own bound would not count what is on its way to it.
    this.replica = new Replica({ ...options.config, maxQueue: Number.POSITIVE_INFINITY })
    this.#clock = options.clock ?? realClock
    this.#log = options.log ?? (() => {})
    const seen = { down: () => this.#giveUp(), probe: () => this.#submitProbe(), log: this.#log }
    this.watch = new EngineWatch(this.#clock, { ...WATCH_DEFAULTS, ...options.watch }, seen)
  }

  get nowUs(): number {
    return this.#clock.nowUs()
  }
  /** Another length of the queue and other shares of it, and of what is computed, from now on. */
  renew(maxQueue: number, weights: readonly number[]): void {
    this.#places.renew(maxQueue, weights)
    this.#post({ type: "tenantWeights", weights: [...weights] })
  }
  get accepting(): boolean {
    return this.#accepting
  }
  /** Most live requests; those that have a place now. */
  get queue(): Omit<Places, "take" | "giveBack"> {
    return this.#places
  }
  snapshot(): Snapshot {
    const now = this.replica.snapshot(this.nowUs)
    return { ...now, waiting: now.waiting + this.#followers.count }
  }
  /** See every effect as it is carried out. The one place for metrics, traces and pages. */
  observe(fn: (effect: Effect, nowUs: number) => void): void {
    this.#observers.push(fn)
  }
  observeSteps(fn: (report: StepReport) => void): void {
    this.#stepObservers.push(fn)
  }

  /** Places in the queue for requests that are yet to be submitted: for all of them, or none and the reason. To be
   * asked before anything is done for them; what is not submitted in the end must be given back. */
  reserve(count: number, tenant = 0, claim: Claim = "room"): Reservation | RejectReason {
    if (!this.#accepting) return this.refused("shuttingDown")
    if (this.watch.state !== "ok") return this.refused("engineDown")
    if (this.#places.take(count, tenant, claim === "begun")) return { left: count, tenant, onPromise: false }
    const mayPromise = claim === "promise" && this.replica.policy.offer !== undefined
    if (mayPromise && this.#places.takeBeyond(count, tenant)) return { left: count, tenant, onPromise: true }
    return this.refused("queueFull")
  }

  /** Tells observers that a request found no place. */
  refused(reason: RejectReason): RejectReason {
    this.#tell({ type: "rejected", id: this.#nextId++, reason }, this.nowUs)
    return reason
  }

  /** What was reserved and not submitted. */
  giveBack(reserved: Reservation): void {
    this.#places.giveBack(reserved.left, reserved.tenant, false)
    reserved.left = 0
  }

  /** `reserved`: places of the submission's tenant; left out: one is asked for. */
  submit(
    submission: Submission,
    reserved: Reservation | RejectReason = this.reserve(1, submission.tenant),
  ): RequestId {
    const id = this.#nextId++
    if (typeof reserved === "string") {
      this.#clock.soon(() => submission.onEnd({ reason: reserved, outcome: null }))
      return id
    }
    reserved.left--
    this.#submissions.set(id, submission)
    if (this.watch.state !== "ok") this.#clock.soon(() => this.#over(id, this.#engineDown(null)))
    else if (submission.after !== undefined && this.#submissions.has(submission.after))
      this.#followers.add(submission.after, id)
    else this.#arrive(id, submission)
    return id
  }

  #arrive(id: RequestId, submission: Submission): void {
    this.#post({ type: "arrived", ...arrivalOf(id, submission, this.replica.zeroLoadPrefillUs) })
  }

  /** Could the core keep its SLOs, and all that it has promised? Changes nothing. */
  offer(requested: Requested): boolean {
    if (!this.#accepting || this.watch.state !== "ok") return false
    const { begun, tenant = 0, tier } = requested
    const hasPlace = begun !== undefined || this.#places.hasRoom(1, tenant)
    if (!hasPlace && (tier !== "slo" || !this.#places.hasRoomBeyond(1))) return false
    return this.promises(requested)
  }

  /** Likewise, of a request that has its place. */
  promises(requested: Requested): boolean {
    const { request, progress } = arrivalOf(0, requested, this.replica.zeroLoadPrefillUs)
    return this.replica.offer(request, this.nowUs, progress)
  }

  /** Gives up requests that are not being computed, without a word to their submissions: all of them, or none and false. */
  withdraw(ids: readonly RequestId[]): boolean {
    if (!ids.every((id) => this.#canLeave(id))) return false
    for (const id of ids) {
      const { after, tenant = 0 } = this.#submissions.get(id)!
      this.#followers.remove(after, id)
      this.#inbox = this.#inbox.filter((event) => !isArrivalOf(event, id))
      this.replica.withdraw(id)
      this.#submissions.delete(id)
      this.#places.giveBack(1, tenant)
    }
    for (const id of ids) this.#release(id)
    return true
  }

  #canLeave(id: RequestId): boolean {
    const submission = this.#submissions.get(id)
    if (submission === undefined) return false
    if (this.#followers.has(submission.after, id)) return true
    return this.replica.canWithdraw(id) || this.#inbox.some((event) => isArrivalOf(event, id))
  }

  cancel(id: RequestId): void {
    this.#end(id, false)
  }

  /** `failed`: for lack of an engine. */
  #end(id: RequestId, failed: boolean): void {
    if (this.#followers.remove(this.#submissions.get(id)?.after, id))
      this.#over(id, failed ? this.#engineDown(null) : { reason: "cancelled", outcome: null })
    else if (this.#submissions.has(id)) this.#post({ type: "cancelled", id, failed })
  }

  /** The engine is down. What it computes just now is still its own: that KV is free when the step ends. */
  #giveUp(): void {
    for (const id of this.#submissions.keys()) this.#end(id, true)
  }

  #engineDown(outcome: Outcome | null): End {
    return { reason: "engineDown", outcome, message: this.watch.detail }
  }

  #submitProbe(): void {
    const id = this.#nextId++
    this.#probe = id
    const probe = probeThat(({ reason, message }) => {
      this.#probe = null
      if (reason !== "cancelled") this.watch.probed(reason === "length" ? null : (message ?? reason))
    })
    this.#submissions.set(id, probe)
    this.#arrive(id, probe)
  }

  /** The prompt of `id` is in place, or never will be: those that waited for it arrive. */
  #release(id: RequestId): void {
    for (const follower of this.#followers.take(id)) this.#arrive(follower, this.#submissions.get(follower)!)
  }

  /** Accept no more; resolves when everything accepted has ended. */
  drain(): Promise<void> {
    this.#accepting = false
    return this.#places.empty()
  }

  /** Cancel what is left, wait for the running step, close the engine. */
  async close(): Promise<void> {
    const drained = this.drain()
    for (const id of this.#submissions.keys()) this.cancel(id)
    await drained
    this.#closed = true
    this.#cancelWake?.()
    this.watch.close()
    await this.#step
    await this.engine.close()
  }

  #post(event: Event): void {
    this.#inbox.push(event)
    if (this.#drainSoon) return
    this.#drainSoon = true
    this.#clock.soon(() => this.#drain())
  }

  /** Everything posted so far, in the order of ranks; then one decision; then its effects. */
  #drain(): void {
    this.#drainSoon = false
    if (this.#closed) return
    const nowUs = this.#clock.nowUs()
    const events = this.#inbox.sort((a, b) => eventRank(a) - eventRank(b))
    this.#inbox = []
    const started = performance.now()
    for (const event of events) this.replica.handle(event, nowUs)
    const effects = this.replica.poll(nowUs)
    const planUs = (performance.now() - started) * 1000
    // The engine first: what follows (text to clients) then runs beside it.
    for (const effect of effects) if (effect.type === "run") this.#run(effect.batch, planUs)
    for (const effect of effects) this.#carryOut(effect, nowUs)
  }

  #carryOut(effect: Effect, nowUs: number): void {
    this.#tell(effect, nowUs)
    if (effect.type === "token" || effect.type === "finished" || effect.type === "rejected")
      this.#release(effect.id)
    if (effect.type === "finished") {
      this.#over(effect.id, this.#endOf(effect.reason, effect.outcome))
    } else if (effect.type === "rejected") {
      this.#over(effect.id, { reason: effect.reason, outcome: null })
    } else if (effect.type === "wake") {
      this.#cancelWake?.()
      this.#cancelWake = this.#clock.wakeAt(effect.atUs, () => this.#post({ type: "woke" }))
    }
  }

  #endOf(reason: FinishReason, outcome: Outcome): End {
    if (reason !== "failed") return { reason, outcome }
    if (this.watch.state !== "ok") return this.#engineDown(outcome)
    return { reason, outcome, ...(this.#lastFailure !== null && { message: this.#lastFailure }) }
  }

  #tell(effect: Effect, nowUs: number): void {
    if ("id" in effect && effect.id === this.#probe) return
    for (const observer of this.#observers) observer(effect, nowUs)
  }

  #over(id: RequestId, end: End): void {
    const submission = this.#submissions.get(id)
    if (this.#submissions.delete(id) && id !== this.#probe) this.#places.giveBack(1, submission?.tenant ?? 0)
    try {
      submission?.onEnd(end)
    } catch (error) {
      this.#log(`request ${id}: its answer failed at the end: ${error}`, "error")
    }
  }

  #run(batch: Batch, planUs: number): void {
    this.watch.began(batch.items.length, batch.predictedUs)
    this.#step = this.#execute(batch).then(
      (output) => this.#landed(batch, planUs, output),
      (error: Error) => {
        this.#landed(batch, planUs, {
          ok: false,
          reason: "engineError",
          message: error.message,
          durationUs: 0,
        })
      },
    )
  }

  /** The core counts what a batch drops as dropped even where the step fails: so it is dropped also when a request
   * of the batch cannot be opened. The engine is not told to drop what it never had: it would refuse the batch. */
  async #execute(batch: Batch): Promise<StepOutput> {
    const evict = batch.evict.filter((id) => this.#opened.has(id))
    const release = batch.release.filter((id) => this.#opened.delete(id))
    const trim = batch.trim?.filter(({ id }) => this.#opened.has(id)) ?? []
    try {
      for (const { id } of batch.items) this.#open(id)
    } catch (error) {
      await this.engine.execute({ ...batch, items: [], evict, release, trim })
      throw error
    }
    return this.engine.execute({ ...batch, evict, release, trim })
  }

  #open(id: RequestId): void {
    if (this.#opened.has(id)) return
    const { prompt, sampling, begun } = this.#submissions.get(id)!
    this.engine.open(id, prompt, sampling, begun?.output)
    this.#opened.add(id)
  }

  #landed(batch: Batch, planUs: number, output: StepOutput): void {
    const inTime = this.watch.landed(
      output.ok ? null : output.message,
      !output.ok && output.reason === "kvFull",
    )
    const failure = output.ok ? (inTime ? null : "late") : `${output.reason}: ${output.message}`
    for (const observer of this.#stepObservers)
      observer({
        batch,
        planUs,
        durationUs: output.durationUs,
        failure,
        rows: output.ok && inTime ? output.rows : [],
      })
    if (!output.ok) this.#lastFailure = output.message
    if (failure !== null) {
      this.#log(`step ${batch.number} failed (${failure})`, "error")
      // What a late step computed is no longer wanted, and its time is no measure of others.
      const reason = output.ok ? "engineError" : output.reason
      this.#post({ type: "stepFailed", batch: batch.number, reason })
    }
    if (!output.ok || !inTime) return
    const asked = new Map(batch.items.map(({ id, draft }) => [id, draft]))
    const results = output.rows.map((row) => {
      const result = this.#toText(row)
      if (row.drafted >= asked.get(row.id)!) return result
      return { ...result, drafted: row.drafted, ...(row.behind && { behind: true }) }
    })
    this.#post({ type: "stepDone", batch: batch.number, durationUs: output.durationUs, results })
  }

  /** Show a row to its answer. An answer that throws loses its request, not the replica. */
  #toText(row: StepRow): StepResult {
    const result = { id: row.id, tokens: row.tokens.length, stopped: row.end, answeringFrom: -1 }
    const submission = this.#submissions.get(row.id)
    if (submission === undefined) return result
    try {
      const seen = submission.onTokens(row)
      return { ...result, ...seen }
    } catch (error) {
      this.#log(`request ${row.id}: its answer failed: ${error}`, "error")
      this.cancel(row.id)
      return result
    }
  }
}

function isArrivalOf(event: Event, id: RequestId): boolean {
  return event.type === "arrived" && event.request.id === id
}
