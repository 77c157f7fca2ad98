/** A replica behind a connection, as a gateway has it: jobs in, tokens and ends out. It dies, freezes, starts again, and ends
 * what it has when the connection breaks. */
import { assert } from "../core/assert.ts"
import type { Effect, Progress, RequestId, RequestSpec } from "../core/protocol.ts"
import type { JobId, LossReason } from "../router/dispatch.ts"
import type { Machine, Step } from "./machine.ts"
import type { Play, SimRequest, World } from "./world.ts"

/** What a replica says of a job by itself. `from`: tokens of its answer before these. */
export type Word =
  | { type: "started"; job: JobId }
  | { type: "tokens"; job: JobId; from: number; tokens: number; answeringFrom: number }
  | { type: "ended"; job: JobId; failed: boolean }
  | { type: "turnedDown"; job: JobId }
  | { type: "lost"; job: JobId; reason: LossReason }

interface HostJob {
  job: JobId
  /** Its number in the core: another one for each try. */
  coreId: RequestId
  play: Play
  answeringFrom: number
  started: boolean
}

export interface HostWorld {
  world: World
  /** A new life. */
  machine: () => Machine
  /** The replica dies when it computes this request's next token after so many; Infinity: it does not. */
  deadlyAfter: (id: RequestId) => number
  onEffect?: ((effect: Effect, nowUs: number, replica: number, request: RequestId) => void) | undefined
  check: boolean
}

/** Numbers of further tries of a request in the cores: apart from those of the requests. */
const FURTHER_TRIES = 1_000_000

export class SimHost {
  readonly index: number
  readonly #outside: HostWorld
  /** null while it is dead. */
  machine: Machine | null = null
  /** It does nothing until then (SIGSTOP). */
  frozenUntilUs = -1
  readonly #jobs = new Map<JobId, HostJob>()
  readonly #byCore = new Map<RequestId, HostJob>()
  #words: Word[] = []

  constructor(index: number, outside: HostWorld) {
    this.index = index
    this.#outside = outside
  }

  get live(): number {
    return this.#jobs.size
  }
  /** The requests that it has. */
  get requests(): { id: RequestId; job: JobId }[] {
    return [...this.#jobs.values()].map(({ job, play }) => ({ id: play.request.spec.id, job }))
  }
  frozen(nowUs: number): boolean {
    return nowUs < this.frozenUntilUs
  }

  start(): void {
    this.machine = this.#outside.machine()
    this.frozenUntilUs = -1
  }

  die(): void {
    if (this.machine !== null) this.machine.lost = true
    this.machine = null
    for (const own of [...this.#jobs.values()]) this.#forget(own)
    this.#words = []
  }

  // What a gateway asks of it.

  offer(spec: RequestSpec, nowUs: number, progress?: Progress): boolean {
    return this.machine!.replica.offer(spec, nowUs, progress)
  }

  /** `output`: tokens that are out. */
  submit(
    job: JobId,
    first: boolean,
    request: SimRequest,
    output: number,
    progress: Progress | undefined,
    nowUs: number,
  ): void {
    assert(!this.#jobs.has(job), `job ${job} came twice`)
    const coreId = first ? request.spec.id : FURTHER_TRIES + job
    const play: Play = { request, output, at: this.index, moves: 0, cancelled: false }
    const own: HostJob = { job, coreId, play, answeringFrom: -1, started: false }
    this.#jobs.set(job, own)
    this.#byCore.set(coreId, own)
    this.#outside.world.plays.set(coreId, play)
    const spec = { ...request.spec, id: coreId }
    this.#tell({ type: "arrived", request: spec, ...(progress && { progress }) }, nowUs)
  }

  withdraw(job: JobId): boolean {
    const own = this.#jobs.get(job)
    // What is not here is gone from here.
    if (own === undefined) return true
    if (own.play.output > 0 || !this.machine!.replica.withdraw(own.coreId)) return false
    this.machine!.touched = true
    this.#forget(own)
    return true
  }

  cancel(job: JobId, nowUs: number): void {
    const own = this.#jobs.get(job)
    if (own !== undefined) this.#tell({ type: "cancelled", id: own.coreId }, nowUs)
  }

  /** The gateway is gone, or has given it up. */
  disconnected(nowUs: number): void {
    for (const job of this.#jobs.keys()) this.cancel(job, nowUs)
    this.#words = []
  }

  // What it does.

  stepOver(step: Step, nowUs: number): void {
    for (const event of this.machine!.over(step)) {
      for (const { id, answeringFrom } of event.type === "stepDone" ? event.results : []) {
        const own = this.#byCore.get(id)
        if (own !== undefined) own.answeringFrom = answeringFrom
      }
      this.#tell(event, nowUs)
    }
  }

  woke(nowUs: number): void {
    this.machine!.wakeAtUs = Infinity
    this.#tell({ type: "woke" }, nowUs)
  }

  /** One decision: the step that it begins, and the time at which it wants to be woken; Infinity: none. `deadly`: it dies of
   * that step. */
  decide(nowUs: number): { step: Step | null; deadly: boolean } {
    const machine = this.machine!
    machine.touched = false
    let step: Step | null = null
    let deadly = false
    for (const effect of machine.replica.poll(nowUs)) {
      this.#observe(effect, nowUs)
      if (effect.type === "run") {
        machine.run(effect.batch)
        step = machine.begin(nowUs).step
        for (const { id, sample } of effect.batch.items) deadly = this.#runs(id, sample) || deadly
      } else if (effect.type === "wake") machine.wakeAtUs = effect.atUs
      else this.#say(effect)
    }
    if (this.#outside.check) machine.replica.check()
    return { step, deadly }
  }

  /** What it says since it was asked last, in order. */
  takeWords(): Word[] {
    const words = this.#words
    this.#words = []
    return words
  }

  #runs(coreId: RequestId, sample: boolean): boolean {
    const own = this.#byCore.get(coreId)
    if (own === undefined) return false
    if (!own.started) this.#words.push({ type: "started", job: own.job })
    own.started = true
    return sample && own.play.output >= this.#outside.deadlyAfter(own.play.request.spec.id)
  }

  #say(effect: Exclude<Effect, { type: "run" | "wake" }>): void {
    const own = this.#byCore.get(effect.id)
    if (own === undefined) return
    const { job, play, answeringFrom } = own
    if (effect.type === "token") {
      const from = play.output - effect.count
      this.#words.push({ type: "tokens", job, from, tokens: effect.count, answeringFrom })
    } else if (effect.type === "demoted") {
      if (effect.reason !== "violated" && play.output === 0) this.#words.push({ type: "turnedDown", job })
    } else if (effect.type === "finished") {
      if (effect.reason !== "cancelled")
        this.#words.push({ type: "ended", job, failed: effect.reason === "failed" })
      this.#forget(own)
    } else if (effect.type === "rejected") {
      const reason = effect.reason === "queueFull" ? "full" : "refused"
      this.#words.push({ type: "lost", job, reason })
      this.#forget(own)
    }
  }

  #observe(effect: Effect, nowUs: number): void {
    const id = "id" in effect ? (this.#byCore.get(effect.id)?.play.request.spec.id ?? effect.id) : -1
    this.#outside.onEffect?.(effect, nowUs, this.index, id)
  }

  #tell(event: Parameters<Machine["replica"]["handle"]>[0], nowUs: number): void {
    this.machine!.replica.handle(event, nowUs)
    this.machine!.touched = true
  }

  #forget({ job, coreId }: HostJob): void {
    this.#byCore.delete(coreId)
    this.#jobs.delete(job)
    this.#outside.world.plays.delete(coreId)
  }
}
