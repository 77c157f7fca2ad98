/** An engine on another machine that owns its batching, behind the port that all replicas have: OpenAI's API to it, and a
 * twin that answers offers in its place. */
import type { RequestSpec } from "../../core/protocol.ts"
import {
  DECLINED,
  type Digest,
  type HostInfo,
  type Job,
  type JobChoice,
  type JobEnd,
  type JobId,
  type JobSink,
  type Offer,
  type ReplicaHost,
  refuse,
} from "../../replica/host.ts"
import type { ObservedEffect } from "../../replica/observed.ts"
import { WatchedHost } from "../../replica/watched-host.ts"
import type { EngineRules } from "../engine-rules.ts"
import { type Held, NOTHING_HELD } from "../sent.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import type { ReadStep } from "./answer-reader.ts"
import { type Ask, askOf, cannotGoOn, modelFor, priorityOf, unlimited } from "./ask.ts"
import { type Course, usageOf } from "./course.ts"
import { type ExchangeEnd, exchange } from "./exchange.ts"
import { forecastView } from "./forecast.ts"
import { Holding } from "./holding.ts"
import { infoOf, MOST_TOKENS } from "./info.ts"
import { JobSpecs } from "./job-specs.ts"
import { Judge } from "./judge.ts"
import type { BackendKind, Learnt } from "./kind.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { Moment } from "./moment.ts"
import { type PrefillServers, prefillServers } from "./prefill-servers.ts"
import { headersOf, Prober, type Served } from "./prober.ts"
import type { RemoteHostOptions } from "./remote-options.ts"
import type { RemotePlanner } from "./remote-planner.ts"
import { type SiblingsLoad, shareLoad } from "./shared-load.ts"
import { sloArgsOf } from "./slo-args.ts"
import { endUnfit, unfitFor } from "./unfit.ts"

export type { RemoteHostOptions } from "./remote-options.ts"

/** Without a Retry-After, ms. */
const USUAL_PAUSE_MS = 1000
interface Taken {
  job: Job
  courses: Course[]
}

export class RemoteHost extends WatchedHost implements ReplicaHost {
  readonly twin: Twin
  readonly #options: RemoteHostOptions
  #kind: BackendKind
  readonly #prober: Prober
  readonly #holding: Holding<Course>
  /** null: no other process of this gateway has requests there. */
  readonly #shared: SiblingsLoad | null
  readonly #specs: JobSpecs
  readonly #jobs = new Map<JobId, Taken>()
  /** Where its prompts are computed; null: at the engine itself. */
  readonly #prefill: PrefillServers | null
  /** Where it is, and what each request to it says. */
  readonly #at: { origin: string; basePath: string; headers: Readonly<Record<string, string>> }
  /** As the job is known that was offered last: it is mostly submitted next, and its twin knows the answer still. */
  #offered: { job: JobId; spec: TwinSpec } | null = null
  readonly #effects = new Moment<ObservedEffect>((effects) => this.observed({ effects, steps: [] }))
  #onDrained: (() => void)[] = []

  constructor(options: RemoteHostOptions) {
    super(options.name, "it is being reached")
    const { apps, kin } = options
    this.#options = options
    this.#kind = options.kind ?? BACKEND_KINDS.openai
    const { origin, pathname } = new URL(options.url)
    this.#at = { origin, basePath: pathname.replace(/\/$/, ""), headers: headersOf(options) }
    this.#prefill = prefillServers({ ...options, headers: this.#at.headers })
    this.#specs = new JobSpecs(this.#prefill !== null)
    const { prior } = this.#kind
    this.twin = new Twin({ rules: this.#rules, apps, ...(prior && { prior }), ...(kin && { kin }) })
    this.#holding = new Holding(this.twin, nowUs, {
      send: (course, forced) => this.#send(course, forced),
      turnDown: (course) => {
        course.judge.turnedDown(nowUs())
        this.#shared?.ended(course.id, false)
        course.sink.turnedDown?.(course.choice.index)
      },
    })
    this.#shared = shareLoad(options, this.twin, this.#specs, this.#holding)
    this.#prober = new Prober(options, {
      up: (served) => this.#up(served),
      down: (detail) => this.#down(detail),
      learnt: (learnt) => this.#learnt(learnt),
    })
  }

  /** With what its step times are, once they are known. */
  override get info(): HostInfo | null {
    const info = super.info
    const { fit, rules } = this.twin
    if (info === null || !fit.confident) return info
    return { ...info, planner: forecastView(info.limits, rules, fit.model, this.#planner !== null) }
  }

  /** Whether it does is seen by its health. */
  override get computes(): boolean {
    return true
  }

  async offer(job: Job, deadlineMs: number): Promise<Offer> {
    if (this.#refusal(job) !== null || unfitFor(job, this.#kind) !== null) return DECLINED
    const now = nowUs()
    const spec = this.#specOf(job, now)
    const planner = this.#planner
    if (planner !== null) {
      const { takes } = await planner.offer(job, spec.promptTokens - (spec.cachedTokens ?? 0), deadlineMs)
      return { takes, promptTokens: spec.promptTokens }
    }
    this.#offered = { job: job.id, spec }
    const { takes } = this.twin.offer(spec, now, this.#heldAround(spec, now))
    return { takes, promptTokens: spec.promptTokens }
  }

  submit(job: Job, sink: JobSink): void {
    const refusal = this.#refusal(job)
    if (refusal !== null) refuse(job, sink, refusal)
    if (refusal !== null || endUnfit(job, this.#kind, sink)) return
    const courses = job.choices.map((choice) => this.#courseOf(job, choice, sink))
    this.#jobs.set(job.id, { job, courses })
    for (const course of courses) {
      if (this.#planner !== null) this.#send(course)
      else {
        this.#shared?.held(course.id, course.spec, course.judge.deadlineUs)
        this.#holding.add(course)
      }
    }
  }

  cancel(id: JobId): void {
    for (const course of this.#jobs.get(id)?.courses.slice() ?? []) this.#cancelled(course)
  }

  async withdraw(id: JobId): Promise<boolean> {
    const taken = this.#jobs.get(id)
    if (taken === undefined || taken.courses.some(({ begun }) => begun)) return false
    for (const course of taken.courses.slice()) {
      this.#leave(course)
      course.judge.end("cancelled", null, nowUs())
    }
    return true
  }

  /** A backend of twice the weight looks half as busy. */
  digest(): Digest {
    const { weight = 1 } = this.#options
    const planned = this.#planner?.digest() ?? null
    const snapshot = planned?.snapshot ?? this.twin.snapshot(nowUs())
    const waiting = Math.ceil((snapshot.waiting + this.#heldSize) / weight)
    const running = Math.ceil(snapshot.running / weight)
    const engine = { state: "ok" as const, detail: "", trips: 0, downUs: { hung: 0, failing: 0 } }
    return { snapshot: { ...snapshot, waiting, running }, ageUs: planned?.ageUs ?? 0, engine }
  }

  drain(): Promise<void> {
    if (this.state === "closed") return Promise.resolve()
    this.become("draining", "it is shutting down")
    return new Promise((resolve) => {
      this.#onDrained.push(resolve)
      this.#checkDrained()
    })
  }

  giveUp(detail: string): void {
    this.#prober.giveUp(detail)
  }

  async close(): Promise<void> {
    if (this.state === "closed") return
    this.#prober.close()
    this.#shared?.close()
    this.#holding.shut()
    await this.#options.planner?.close()
    await this.#prefill?.close()
    this.#endAll((course) => this.#cancelled(course))
    this.become("closed", "it is closed")
    this.#checkDrained()
  }

  /** Null while it is not there. */
  get #planner(): RemotePlanner | null {
    const { planner } = this.#options
    return planner?.ready ? planner : null
  }

  get #rules(): EngineRules {
    const { rules, withPriority } = this.#kind
    return this.#options.priority && withPriority !== null ? withPriority : rules
  }

  /** Why it does not take the job, or null. */
  #refusal(job: Job): string | null {
    if (this.state !== "ready") return this.detail
    if (this.#holding.paused) return "it asked for a pause"
    for (const choice of job.choices) {
      const why = cannotGoOn(job, choice, this.#kind)
      if (why !== null) return why
    }
    return null
  }

  #specOf(job: Job, now: number): TwinSpec {
    return this.#specs.of(job, super.info?.limits.contextTokens ?? MOST_TOKENS, now)
  }

  /** Here, and by others. */
  get #heldSize(): number {
    return this.#holding.size + (this.#shared?.heldElsewhere ?? 0)
  }

  #heldAround(spec: TwinSpec, now: number): Held {
    if (this.#heldSize === 0) return NOTHING_HELD
    const { deadlineUs } = this.#judge(spec, now, () => {})
    const own = this.#holding.around(deadlineUs)
    return this.#shared?.around(deadlineUs, own) ?? own
  }

  #judge(spec: RequestSpec, now: number, tell: (effect: ObservedEffect) => void): Judge {
    return new Judge(spec, now, (tokens) => this.twin.zeroLoadPrefillUs(tokens), tell)
  }

  #courseOf(job: Job, choice: JobChoice, sink: JobSink): Course {
    const now = nowUs()
    const asked = this.#offered?.job === job.id ? this.#offered.spec : this.#specOf(job, now)
    this.#offered = null
    const start = choice.begun?.start
    // It is judged by the deadline that it began with.
    const spec =
      start === undefined ? asked : { ...asked, slo: { ...asked.slo, ttftSlowdown: 0, ttftUs: start.ttftUs } }
    const judge = this.#judge(spec, now, (effect) => this.#effects.add(effect))
    let begunTokens = 0
    for (const { tokens, agoUs } of choice.begun?.steps ?? []) {
      begunTokens += tokens.length
      judge.replay(tokens.length, now - agoUs)
    }
    // What is out is computed again, with the prompt. Of what has not begun the twin knows its own answer by this very object.
    const twinSpec = begunTokens === 0 ? spec : { ...spec, promptTokens: spec.promptTokens + begunTokens }
    return {
      ...{ id: spec.id, job, choice, sink, judge, spec: twinSpec, begunTokens },
      ...{ sinceUs: now, abort: null, begun: begunTokens > 0 },
    }
  }

  #send(course: Course, forced = false): void {
    const { options, now } = { options: this.#options, now: nowUs() }
    const { job, choice, begunTokens, judge, spec } = course
    const deadlineMs = spec.tier === "slo" ? Date.now() + (judge.deadlineUs - now) / 1000 : Infinity
    const ask = askOf(job, choice, {
      kind: this.#kind,
      model: modelFor(job, options.models, this.#prober.served?.model),
      priorityMs: options.priority ? priorityOf(deadlineMs, Date.now()) : null,
      sloArgs: this.#kind.takesSloArgs ? sloArgsOf(course, now) : null,
      contextTokens: this.#prober.served?.contextTokens ?? null,
      begun: begunTokens > 0 ? { tokens: begunTokens, text: choice.begun?.text?.content ?? "" } : null,
    })
    judge.sent(now)
    this.twin.sent(course.id, spec, now)
    this.#shared?.sent(course.id, spec, forced)
    if (this.#prefill === null || begunTokens > 0) this.#begin(course, ask)
    else course.abort = this.#prefill.compute(ask, (full, named) => this.#begin(course, full, named))
  }

  #begin(course: Course, ask: Ask, named: Readonly<Record<string, string>> = {}): void {
    const { dispatcher, timeouts } = this.#options
    const at = { ...this.#at, headers: { ...this.#at.headers, ...course.job.trace, ...named } }
    course.abort = exchange(
      { ...at, ask, dispatcher, timeouts, promptTokens: course.spec.promptTokens },
      {
        step: (step) => this.#step(course, step),
        end: (end) => {
          const shorter = end.kind === "failed" ? unlimited(ask, course.job, this.#kind) : null
          if (shorter === null) this.#ended(course, end)
          else this.#begin(course, shorter, named)
        },
      },
    )
  }

  #step(course: Course, { tokens, delta, answering, cachedTokens }: ReadStep): void {
    const now = nowUs()
    const first = !course.begun
    if (first && cachedTokens !== null)
      for (const view of [this.twin, this.#shared]) view?.cached(course.id, cachedTokens)
    if (first) course.sink.started?.(course.choice.index, course.judge.start)
    course.begun = true
    this.#prober.heard()
    course.judge.tokens(tokens.length, answering, now)
    this.twin.tokens(course.id, tokens.length, now)
    this.#shared?.tokens(course.id, tokens.length)
    delta.completionTokens += course.begunTokens
    course.sink.tokens(course.choice.index, tokens, delta)
    if (first) this.#holding.look()
  }

  #ended(course: Course, end: ExchangeEnd): void {
    const { sink, choice } = course
    this.#leave(course, end.kind === "finished" && end.reason === "stop")
    if (end.kind === "busy") this.#holding.pause((end.retryAfterMs ?? USUAL_PAUSE_MS) * 1000)
    if (end.kind === "lost" && end.reason === "died") this.#prober.failed(end.detail)
    if (end.kind === "misconfigured") this.#prober.failed(end.detail)
    sink.end(choice.index, this.#endOf(course, end))
    this.#holding.look()
    this.#checkDrained()
  }

  #endOf(course: Course, end: ExchangeEnd): JobEnd {
    const { judge, job, begunTokens } = course
    if (end.kind === "finished") {
      const { reason, usage } = end
      const seen = begunTokens === 0 ? this.#specs.learn(job, usage) : null
      this.#shared?.saw(seen)
      const outcome = judge.end(reason === "length" ? "length" : "stop", usage, nowUs())
      return { kind: "finished", reason, stop: end.stop, usage: usageOf(course, usage), outcome }
    }
    judge.end("failed", null, nowUs())
    if (end.kind === "failed" || end.kind === "lost") return end
    return { kind: "lost", reason: "refused", detail: end.detail }
  }

  #cancelled(course: Course): void {
    this.#leave(course)
    course.judge.end("cancelled", null, nowUs())
    course.sink.end(course.choice.index, { kind: "cancelled" })
    this.#checkDrained()
  }

  /** It is not here any more. */
  #leave(course: Course, stopped = false): void {
    if (!this.#holding.remove(course)) this.twin.ended(course.id, nowUs(), stopped)
    this.#shared?.ended(course.id, stopped)
    course.abort?.()
    const taken = this.#jobs.get(course.job.id)
    if (taken === undefined) return
    taken.courses = taken.courses.filter((other) => other !== course)
    if (taken.courses.length === 0) this.#jobs.delete(course.job.id)
  }

  #up(served: Served): void {
    if (served.kind !== this.#kind) {
      this.#kind = served.kind
      this.twin.learnRules(this.#rules)
    }
    this.serves(infoOf(served, this.twin.rules, [...(this.#options.models?.keys() ?? [])][0]))
    if (this.state === "starting" || this.state === "down") this.become("ready", "")
    this.#holding.open()
  }

  /** Nothing it has comes to an end any more. */
  #down(detail: string): void {
    if (this.state === "closed") return
    this.#holding.shut()
    if (this.state === "ready") this.become("down", detail)
    else if (this.state === "starting") this.become("starting", detail)
    else this.explain(detail)
    this.#endAll((course) => {
      const reason = course.abort === null ? "refused" : "died"
      this.#leave(course)
      course.judge.end("failed", null, nowUs())
      course.sink.end(course.choice.index, { kind: "lost", reason, detail })
    })
    this.#checkDrained()
  }

  #learnt({ rules, load }: Learnt): void {
    if (rules !== undefined) this.twin.learnRules(rules)
    if (load !== undefined) this.twin.metrics(load, nowUs())
    this.#holding.look()
  }

  #checkDrained(): void {
    if (this.#jobs.size === 0) for (const resolve of this.#onDrained.splice(0)) resolve()
  }

  /** All that is here ends by `end`. The twin is told first, at once: it is run forward for each that ends alone. */
  #endAll(end: (course: Course) => void): void {
    const jobs = [...this.#jobs.values()]
    const all = jobs.flatMap(({ courses }) => courses.map(({ id }) => [id, false] as const))
    this.twin.endedTogether(all, nowUs())
    for (const { courses } of jobs) for (const course of courses.slice()) end(course)
  }
}

function nowUs(): number {
  return Math.round(performance.now() * 1000)
}
