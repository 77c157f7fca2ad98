/** A fleet in real time: tells its dispatcher what replicas and clients do, and carries out what that decides. A client sees one
 * stream, wherever its answer is computed: what a replica says of a job that its request has left is dropped. */
import type { RequestId } from "../core/protocol.ts"
import { type Clock, realClock } from "../replica/clock.ts"
import type { HostState, Job, JobEnd, JobSink, ReplicaHost } from "../replica/host.ts"
import type { DispatchEffect, DispatchEvent, FailReason, JobId, LossReason } from "../router/dispatch.ts"
import { Dispatcher, type DispatcherOptions } from "../router/dispatcher.ts"
import type { RouterOptions } from "../router/router.ts"
import type { Routed } from "../router/target.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { endFor, lossOf } from "./ends.ts"
import { patienceOf } from "./patience.ts"
import { routedOf } from "./routed.ts"
import { Told } from "./told.ts"

export interface FleetOptions extends Omit<DispatcherOptions, "chances"> {
  /** More may join later. Default: none. */
  hosts?: readonly ReplicaHost[]
  clock?: Clock
  /** How often replicas' last words on how busy they are are looked at, ms. Default 50. */
  digestMs?: number
  /** Some replica knows texts, not tokens: then texts are kept of answers under way. */
  texts?: boolean
  log?: (message: string, level: "error" | "info") => void
  /** Told where each request goes. */
  placed?: (request: Routed, replica: string) => void
  // For tests.
  chances?: DispatcherOptions["chances"]
  routed?: (job: Job) => Routed
  patienceUs?: (job: Job) => number
  onDecision?: (event: DispatchEvent, effects: readonly DispatchEffect[], nowUs: number) => void
}

/** One request under way. */
interface Request {
  job: Job
  routed: Routed
  sink: JobSink
  arrivedUs: number
  told: Map<number, Told>
  left: number
  /** The try that is listened to; -1: none. */
  current: JobId
}

const DIGEST_MS = 50
/** A digest is another one when it was taken so much later, µs: ages are not exact. */
const NEWS_US = 1000
/** A replica answers a probe by having said how it is so lately, µs. */
const LATELY_US = 1_000_000
/** One that was given up, and does not go down for it, is tried again after this, µs. */
const AGAIN_US = 1_000_000
/** It looks at replicas many times in this time. */
const STILL_US = 1_000_000
/** As fleets route: what is turned down is offered to others so often. */
const ROUTER: RouterOptions = { reoffers: 3 }

export class Fleet {
  readonly #options: FleetOptions
  readonly #hosts: ReplicaHost[] = []
  readonly #clock: Clock
  readonly #dispatcher: Dispatcher
  readonly #requests = new Map<RequestId, Request>()
  readonly #withdrawing = new Set<JobId>()
  readonly #takenAtUs: number[] = []
  /** When each is to be back, as the dispatcher was told last. */
  readonly #expectedUs: (number | null)[] = []
  readonly #listening: (() => void)[] = []
  #effects: DispatchEffect[] = []
  #carrying = false
  #awakeUs: number
  #cancelWake: (() => void) | null = null
  #cancelLook: (() => void) | null = null
  #onIdle: (() => void)[] = []
  #closed = false

  constructor(options: FleetOptions) {
    this.#options = options
    this.#clock = options.clock ?? realClock
    const chances = options.chances ?? (() => [Math.random(), Math.random()] as const)
    this.#dispatcher = new Dispatcher({ router: ROUTER, ...options, chances })
    this.#awakeUs = this.#clock.nowUs()
    for (const host of options.hosts ?? []) this.join(host)
    this.#lookLater()
  }

  /** It is given requests from now on, as soon as it is ready. To leave again it is drained: it says so by its state. */
  join(host: ReplicaHost): void {
    const replica = this.#hosts.push(host) - 1
    this.#listening.push(host.onState((state) => this.#stateOf(replica, state)))
    this.#stateOf(replica, host.state)
  }

  /** Requests that are not over; of these, those that wait for a replica. */
  get live(): number {
    return this.#requests.size
  }
  get waiting(): number {
    return this.#dispatcher.waiting
  }
  /** Of each replica: whether it is given requests just now, and how many it has. */
  get replicas(): { name: string; usable: boolean; requests: number }[] {
    return this.#hosts.map(({ name }, i) => ({
      ...{ name, usable: this.#dispatcher.usable(i), requests: this.#dispatcher.at(i) },
    }))
  }

  /** All that becomes of it goes to the sink: one stream a choice, whatever happens to replicas. `job.id` is not used again.
   * `onPromise`: where no replica promises it, it ends as `QUEUE_FULL`. */
  submit(job: Job, sink: JobSink, onPromise = false): void {
    const nowUs = this.#clock.nowUs()
    const { id, choices, generation, ageUs } = job
    const texts = this.#options.texts ?? false
    const told = new Map(choices.map(({ index, begun }) => [index, new Told(index, begun, nowUs, texts)]))
    const routed = this.#options.routed?.(job) ?? routedOf(generation)
    const arrivedUs = nowUs - ageUs
    this.#requests.set(id, { job, routed, sink, arrivedUs, told, left: choices.length, current: -1 })
    const patienceUs = this.#options.patienceUs?.(job) ?? patienceOf(generation) - ageUs
    this.#tell({ type: "arrived", id, request: routed, choices: choices.length, patienceUs, onPromise })
  }

  /** Its client has gone: its sink is told so, and nothing more. Unknown ones are ignored. */
  cancel(id: RequestId): void {
    const request = this.#requests.get(id)
    if (request === undefined) return
    this.#tell({ type: "cancelled", id })
    this.#endAll(id, request, { kind: "cancelled" })
  }

  /** Resolves when nothing is live. What comes is taken all the same. */
  drain(): Promise<void> {
    if (this.#requests.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#onIdle.push(resolve))
  }

  /** Cancels what is left, and closes the replicas. */
  async close(): Promise<void> {
    if (this.#closed) return
    for (const id of [...this.#requests.keys()]) this.cancel(id)
    this.#closed = true
    this.#cancelWake?.()
    this.#cancelLook?.()
    for (const stop of this.#listening) stop()
    await Promise.all(this.#hosts.map((host) => host.close()))
  }

  /** Look at what replicas said last of how busy they are. By itself every `digestMs`. */
  look(): void {
    this.#isAwake(this.#clock.nowUs())
    for (const [replica, host] of this.#hosts.entries()) {
      if (host.state !== "ready") this.#expect(replica, host.backInUs ?? null)
      const digest = host.state === "closed" ? null : host.digest()
      if (digest === null) continue
      const takenAtUs = this.#clock.nowUs() - digest.ageUs
      if (takenAtUs < this.#takenAtUs[replica]! + NEWS_US) continue
      this.#takenAtUs[replica] = takenAtUs
      const computes = digest.engine.state === "ok"
      this.#tell({ type: "digest", replica, snapshot: digest.snapshot, takenAtUs, computes })
    }
  }

  /** Requests wait for it no longer than that. */
  #expect(replica: number, inUs: number | null): void {
    const byUs = inUs === null ? null : this.#clock.nowUs() + inUs
    const before = this.#expectedUs[replica] ?? null
    const isSame = byUs === before || (byUs !== null && Math.abs(byUs - (before ?? Infinity)) < NEWS_US)
    if (isSame) return
    this.#expectedUs[replica] = byUs
    this.#tell({ type: "expected", replica, byUs })
  }

  #lookLater(): void {
    const { digestMs = DIGEST_MS } = this.#options
    if (digestMs === Infinity) return
    this.#cancelLook = this.#clock.wakeAt(this.#clock.nowUs() + digestMs * 1000, () => {
      this.look()
      if (!this.#closed) this.#lookLater()
    })
  }

  // The dispatcher, and what it wants.

  /** Effects are carried out in order: what one of them brings about comes after those that were decided before. */
  #tell(event: DispatchEvent): void {
    if (this.#closed) return
    const nowUs = this.#clock.nowUs()
    this.#isAwake(nowUs)
    this.#dispatcher.handle(event, nowUs)
    const effects = this.#dispatcher.poll(nowUs)
    this.#options.onDecision?.(event, effects, nowUs)
    if (effects.length === 0) return
    this.#effects.push(...effects)
    if (this.#carrying) return
    this.#carrying = true
    for (let effect = this.#effects.shift(); effect !== undefined; effect = this.#effects.shift())
      this.#carryOut(effect)
    this.#carrying = false
  }

  /** Where this process did nothing for long, what replicas said meanwhile is yet to be read: their silence says nothing. */
  #isAwake(nowUs: number): void {
    const stillUs = nowUs - this.#awakeUs
    this.#awakeUs = nowUs
    const { digestMs = DIGEST_MS } = this.#options
    if (stillUs < STILL_US || digestMs * 1000 >= STILL_US) return
    for (const replica of this.#hosts.keys()) this.#dispatcher.handle({ type: "heard", replica }, nowUs)
  }

  #carryOut(effect: DispatchEffect): void {
    if (effect.type === "ask") this.#ask(effect)
    else if (effect.type === "submit") this.#submit(effect)
    else if (effect.type === "withdraw") this.#withdraw(effect.job, effect.replica)
    else if (effect.type === "cancel") this.#hosts[effect.replica]!.cancel(effect.job)
    else if (effect.type === "fail") this.#fail(effect.id, effect.reason)
    else if (effect.type === "giveUp") this.#giveUp(effect.replica, effect.reason)
    else if (effect.type === "probe") this.#probe(effect.replica)
    else this.#wakeAt(effect.atUs)
  }

  #wakeAt(atUs: number): void {
    this.#cancelWake?.()
    this.#cancelWake = this.#clock.wakeAt(atUs, () => this.#tell({ type: "woke" }))
  }

  #ask({ job, id, replica, deadlineUs }: Extract<DispatchEffect, { type: "ask" }>): void {
    const request = this.#requests.get(id)
    if (request === undefined) return
    const deadlineMs = Math.max(0, (deadlineUs - this.#clock.nowUs()) / 1000)
    const answered = (takes: boolean) => this.#tell({ type: "offered", job, replica, takes })
    this.#hosts[replica]!.offer(this.#jobOf(request, job), deadlineMs).then(
      ({ takes }) => answered(takes),
      () => answered(false),
    )
  }

  #submit({ job, id, replica }: Extract<DispatchEffect, { type: "submit" }>): void {
    const request = this.#requests.get(id)
    if (request === undefined) return
    request.current = job
    this.#options.placed?.(request.routed, this.#hosts[replica]!.name)
    this.#hosts[replica]!.submit(this.#jobOf(request, job), this.#listen(request, job, replica))
  }

  /** Another fleet gave such a request to the replica of that name, where this one has it as well; `isOld`: some time ago. */
  placedElsewhere(request: Routed, name: string, isOld = false): void {
    const replica = this.#hosts.findLastIndex((host) => host.name === name)
    if (replica < 0) return
    if (isOld) this.#dispatcher.wasPlacedElsewhere(request, replica)
    else this.#dispatcher.placedElsewhere(request, replica, this.#clock.nowUs())
  }

  /** What is left of it, as another replica is to be told. */
  #jobOf({ job, told, arrivedUs }: Request, id: JobId): Job {
    const nowUs = this.#clock.nowUs()
    const left = [...told.values()].filter(({ ended }) => !ended)
    const choices = left.map((choice) => ({ index: choice.index, begun: choice.begun(nowUs) }))
    return { ...job, id, ageUs: nowUs - arrivedUs, choices }
  }

  #withdraw(job: JobId, replica: number): void {
    // Asked before, and not answered yet: a replica answers once.
    if (this.#withdrawing.has(job)) return
    this.#withdrawing.add(job)
    const answered = (ok: boolean) => {
      this.#withdrawing.delete(job)
      this.#tell({ type: "withdrawn", job, ok })
    }
    this.#hosts[replica]!.withdraw(job).then(answered, () => answered(false))
  }

  #giveUp(replica: number, reason: string): void {
    const host = this.#hosts[replica]!
    this.#options.log?.(`replica ${host.name} is given up: it is ${reason}`, "error")
    host.giveUp(`it is ${reason}`)
    this.#clock.wakeAt(this.#clock.nowUs() + AGAIN_US, () => {
      if (host.state === "ready" && !this.#dispatcher.usable(replica)) this.#stateOf(replica, "ready")
    })
  }

  #probe(replica: number): void {
    const { state } = this.#hosts[replica]!
    const digest = this.#hosts[replica]!.digest()
    const ok =
      state === "ready" && digest !== null && digest.engine.state === "ok" && digest.ageUs < LATELY_US
    this.#tell({ type: "probed", replica, ok })
  }

  #stateOf(replica: number, state: HostState): void {
    this.#takenAtUs[replica] = -Infinity
    if (state === "ready") this.#expectedUs[replica] = null
    if (state === "ready") this.#tell({ type: "replicaUp", replica })
    else if (state === "draining") this.#tell({ type: "replicaDraining", replica })
    else this.#tell({ type: "replicaDown", replica, cause: state === "closed" ? "closed" : "died" })
  }

  // What replicas say of jobs.

  #listen(request: Request, job: JobId, replica: number): JobSink {
    const choice = (index: number) => {
      const told = request.current === job ? request.told.get(index) : undefined
      return told?.ended === false ? told : undefined
    }
    return {
      started: (index, start) => {
        const told = choice(index)
        if (told === undefined || told.start !== null) return
        told.start = start
        request.sink.started?.(index, start)
      },
      tokens: (index, tokens, delta) => {
        const told = choice(index)
        if (told !== undefined) this.#tokens(request, told, tokens, delta)
      },
      turnedDown: (index) => {
        if (choice(index) !== undefined) this.#tell({ type: "turnedDown", job })
      },
      end: (index, end) => {
        const told = choice(index)
        if (told === undefined) return
        if (end.kind === "finished" || end.kind === "failed") this.#ended(request, told, end)
        else this.#lost(request, replica, lossOf(end))
      },
    }
  }

  #tokens(request: Request, told: Told, tokens: readonly number[], delta: AnswerDelta | null): void {
    if (tokens.length === 0) {
      told.rest = delta
      return
    }
    told.step(tokens, delta, this.#clock.nowUs())
    this.#show(request, (sink) => sink.tokens(told.index, tokens, delta))
    const { current: job } = request
    this.#tell({ type: "progressed", job, choice: told.index, tokens: tokens.length })
  }

  #ended(request: Request, told: Told, end: JobEnd): void {
    const { id } = request.job
    const { current: job } = request
    told.ended = true
    const over = --request.left === 0
    if (over) this.#forget(id)
    this.#tell({ type: "choiceEnded", job, choice: this.#placeOf(request, told) })
    const { rest } = told
    if (rest !== null && end.kind === "finished")
      this.#show(request, (sink) => sink.tokens(told.index, [], rest))
    this.#show(request, (sink) => sink.end(told.index, end))
  }

  /** The dispatcher counts a request's choices from 0; a job may be of some only. */
  #placeOf({ job }: Request, { index }: Told): number {
    return job.choices.findIndex((choice) => choice.index === index)
  }

  #lost(request: Request, replica: number, reason: LossReason): void {
    const { current: job } = request
    request.current = -1
    for (const told of request.told.values()) told.rest = null
    // Of several answers some may still be computed there.
    if (request.told.size > 1) this.#hosts[replica]!.cancel(job)
    this.#tell({ type: "lost", job, reason })
  }

  #fail(id: RequestId, reason: FailReason): void {
    const request = this.#requests.get(id)
    if (request !== undefined) this.#endAll(id, request, endFor(reason, this.#hosts))
  }

  #endAll(id: RequestId, request: Request, end: JobEnd): void {
    request.current = -1
    this.#forget(id)
    for (const told of request.told.values()) {
      if (told.ended) continue
      told.ended = true
      this.#show(request, (sink) => sink.end(told.index, end))
    }
  }

  #forget(id: RequestId): void {
    this.#requests.delete(id)
    if (this.#requests.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /** A client that fails takes nothing else down. */
  #show({ sink, job }: Request, act: (sink: JobSink) => void): void {
    try {
      act(sink)
    } catch (error) {
      this.#options.log?.(`request ${job.id}: its answer failed: ${error}`, "error")
      this.cancel(job.id)
    }
  }
}
