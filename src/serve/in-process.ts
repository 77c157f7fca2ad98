/** A replica in this very process, behind the port that all replicas have: reads prompts, asks its planner, and gives
 * its driver what it is to do. A worker process has one of these inside. */
import type { Effect, RequestId } from "../core/protocol.ts"
import { UserError, userError } from "../errors.ts"
import type { ReplicaDriver } from "../replica/driver.ts"
import {
  DECLINED,
  type Digest,
  type HostInfo,
  type HostState,
  type Job,
  type JobChoice,
  type JobEnd,
  type JobId,
  type JobSink,
  type Offer,
  type ReplicaHost,
} from "../replica/host.ts"
import { fromArrival, type Observed } from "../replica/observed.ts"
import { DriverObserver } from "../replica/observer.ts"
import { plannerOf } from "../replica/planner-view.ts"
import type { AnswerDelta, AnswerEnd } from "../text/answer.ts"
import { sinceArrival } from "./begun.ts"
import { countdown } from "./countdown.ts"
import { type Choice, claimOf, type GenerationRequest, type Intake, type Plan } from "./intake.ts"
import type { Tenant } from "./tenants.ts"

/** What was prepared for an offer is kept so long. */
const PREPARED_MS = 5_000

/** A job that was offered or submitted. */
interface Taken {
  job: Job
  tenant: Tenant
  request: GenerationRequest
  abort: AbortController
  /** Its prompt, read; null when it was given up before. Rejects for what cannot be served. */
  plan: Promise<Plan | null>
  /** null until it is submitted. */
  sink: JobSink | null
  /** Its choices in the driver; empty until the prompt is read. */
  ids: RequestId[]
  /** Some token of it is out. */
  begun: boolean
  /** Choices that have not ended. */
  live: number
  /** Lets its grammar go. */
  release: () => void
  forget: NodeJS.Timeout | null
}

export class InProcessHost implements ReplicaHost {
  readonly name: string
  readonly info: HostInfo
  readonly #intake: Intake
  readonly #driver: ReplicaDriver
  readonly #taken = new Map<JobId, Taken>()
  readonly #byRequest = new Map<RequestId, { taken: Taken; index: number }>()
  readonly #stateListeners = new Set<(state: HostState) => void>()
  readonly #observer: DriverObserver
  #state: HostState = "ready"

  constructor(intake: Intake, name = "local") {
    const { engine, driver } = intake
    this.name = name
    this.#intake = intake
    this.#driver = driver
    const { model, limits, tokenizer } = engine
    const vocabulary = Array.from({ length: model.vocabSize }, (_, token) => tokenizer.bytes(token))
    const { longestTokenBytes } = tokenizer
    this.info = { model, limits, longestTokenBytes, vocabulary, planner: plannerOf(driver.replica) }
    driver.observe((effect) => this.#observe(effect))
    this.#observer = new DriverObserver(driver)
  }

  get state(): HostState {
    return this.#state
  }
  get detail(): string {
    return this.#state === "ready" ? "" : "it is shutting down"
  }

  get computes(): boolean {
    return this.#driver.watch.state === "ok"
  }

  onState(listener: (state: HostState) => void): () => void {
    this.#stateListeners.add(listener)
    return () => this.#stateListeners.delete(listener)
  }

  onObserved(listener: (observed: Observed) => void): () => void {
    return this.#observer.on(listener)
  }

  async offer(job: Job, deadlineMs: number): Promise<Offer> {
    const taken = this.#take(job)
    const plan = await within(taken.plan, deadlineMs)
    if (plan === null) return DECLINED
    const promptTokens = plan.prompt.length
    try {
      const [first] = taken.job.choices
      const spec = this.#intake.spec(taken.request, taken.tenant, plan, choiceOf(taken.job, first!))
      return { takes: this.#driver.offer(spec), promptTokens }
    } catch {
      // Why it cannot go on here is said to the sink.
      return { takes: false, promptTokens }
    }
  }

  submit(job: Job, sink: JobSink): void {
    const taken = this.#take(job)
    if (taken.forget !== null) clearTimeout(taken.forget)
    taken.sink = sink
    void this.#begin(taken, sink)
  }

  cancel(id: JobId): void {
    this.#taken.get(id)?.abort.abort()
  }

  async withdraw(id: JobId): Promise<boolean> {
    const taken = this.#taken.get(id)
    if (taken === undefined || taken.begun) return false
    if (taken.ids.length > 0 && !this.#driver.withdraw(taken.ids)) return false
    this.#drop(taken)
    return true
  }

  digest(): Digest {
    const { state, detail, trips, downUs } = this.#driver.watch
    return { snapshot: this.#driver.snapshot(), ageUs: 0, engine: { state, detail, trips, downUs } }
  }

  drain(): Promise<void> {
    this.#become("draining")
    return this.#driver.drain()
  }

  /** It cannot end without its process: what it has is given up. */
  giveUp(): void {
    for (const taken of [...this.#taken.values()]) taken.abort.abort()
  }

  async close(): Promise<void> {
    for (const taken of this.#taken.values()) if (taken.sink === null) this.#drop(taken)
    this.#become("draining")
    await this.#intake.close()
    await this.#driver.close()
    this.#become("closed")
  }

  /** The job, whose prompt is read from now on if it was not before. */
  #take(job: Job): Taken {
    const before = this.#taken.get(job.id)
    if (before !== undefined) {
      // Another replica may have begun it since the offer.
      if (before.sink === null) Object.assign(before, { job, live: job.choices.length })
      return before
    }
    const abort = new AbortController()
    const arrivalMs = performance.now() - job.ageUs / 1000
    const request = { ...job.generation, arrivalMs, signal: abort.signal }
    const tenant = this.#intake.tenant(request.tenant)
    const plan = this.#intake.plan(request, tenant)
    // Whether it can be served is said to the sink; an offer has none.
    plan.catch(() => {})
    const live = job.choices.length
    const taken: Taken = {
      ...{ job, tenant, request, abort, plan, sink: null, ids: [], begun: false, live, forget: null },
      release: () => {},
    }
    this.#taken.set(job.id, taken)
    this.#forgetLater(taken)
    return taken
  }

  #forgetLater(taken: Taken): void {
    taken.forget = setTimeout(() => this.#drop(taken), PREPARED_MS)
    taken.forget.unref()
  }

  /** It is not here any more, and nothing more is told of it. */
  #drop(taken: Taken): void {
    if (taken.forget !== null) clearTimeout(taken.forget)
    taken.sink = null
    this.#taken.delete(taken.job.id)
    for (const id of taken.ids) this.#byRequest.delete(id)
    taken.abort.abort()
    taken.release()
  }

  async #begin(taken: Taken, sink: JobSink): Promise<void> {
    const { tenant, request, job } = taken
    const begun = job.choices.some((choice) => choice.begun !== null)
    const claim = begun ? "begun" : claimOf(request, job.choices.length)
    const places = this.#driver.reserve(job.choices.length, tenant.number, claim)
    if (typeof places === "string") {
      this.#endAll(taken, { kind: "lost", reason: "refused", detail: places })
      return
    }
    try {
      const plan = await taken.plan
      if (!this.#intake.isTaken(places, request, tenant, plan, choiceOf(job, job.choices[0]!)))
        return this.#endAll(taken, {
          kind: "lost",
          reason: "refused",
          detail: this.#driver.refused("queueFull"),
        })
      const release = await this.#intake.hold([plan], tenant)
      // It may have been withdrawn in the meantime.
      if (taken.sink !== sink) return release()
      taken.release = release
      const choices = job.choices.map((choice) => this.#choice(taken, sink, choice))
      const ended = countdown(choices.length, release)
      taken.ids = this.#intake.submit(places, tenant, request, plan, choices, ended)
      for (const [i, id] of taken.ids.entries())
        this.#byRequest.set(id, { taken, index: job.choices[i]!.index })
    } catch (error) {
      this.#endAll(taken, { kind: "failed", error: asUserError(error) })
    } finally {
      this.#driver.giveBack(places)
    }
  }

  #endAll(taken: Taken, end: JobEnd): void {
    for (const { index } of taken.job.choices) this.#end(taken, index, end)
  }

  #choice(taken: Taken, sink: JobSink, choice: JobChoice): Choice {
    const { index } = choice
    let delta: AnswerDelta | null = null
    return {
      ...choiceOf(taken.job, choice),
      onStart: (start) => {
        if (taken.sink === sink) sink.started?.(index, start)
      },
      sink: {
        delta: (next) => {
          delta = next
        },
        end: (end) => {
          if (delta !== null && taken.sink === sink) sink.tokens(index, [], delta)
          this.#end(taken, index, lostOf(end))
        },
      },
      onTokens: (tokens) => {
        taken.begun = true
        const text = delta
        delta = null
        if (taken.sink === sink) sink.tokens(index, tokens, text)
      },
    }
  }

  #end(taken: Taken, index: number, end: JobEnd): void {
    const { sink } = taken
    if (--taken.live === 0) {
      this.#taken.delete(taken.job.id)
      for (const id of taken.ids) this.#byRequest.delete(id)
    }
    sink?.end(index, end)
  }

  #observe(effect: Effect): void {
    if (effect.type === "demoted" && effect.reason !== "violated") this.#turnedDown(effect.id)
  }

  #turnedDown(id: RequestId): void {
    const found = this.#byRequest.get(id)
    if (found !== undefined && !found.taken.begun) found.taken.sink?.turnedDown?.(found.index)
  }

  #become(state: HostState): void {
    if (this.#state === state) return
    this.#state = state
    for (const listener of this.#stateListeners) listener(state)
  }
}

function choiceOf({ ageUs }: Job, { index, begun }: JobChoice): Pick<Choice, "index" | "begun"> {
  return { index, begun: begun && sinceArrival(begun, ageUs) }
}

/** An engine that is down is no fault of the request: another replica may have it. */
function lostOf(end: AnswerEnd): JobEnd {
  if (end.kind === "finished") return { ...end, outcome: fromArrival(end.outcome) }
  if (end.kind === "failed" && (end.error.code === "engine_down" || end.error.code === "shutting_down"))
    return { kind: "lost", reason: "died", detail: end.error.message }
  return end
}

function asUserError(error: unknown): UserError {
  return error instanceof UserError ? error : userError("engine_failed", { detail: String(error) })
}

/** null when it takes longer, or fails. */
function within<T>(promise: Promise<T>, deadlineMs: number): Promise<T | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), deadlineMs)
    promise.then(
      (value) => {
        clearTimeout(timer)
        resolve(value)
      },
      () => {
        clearTimeout(timer)
        resolve(null)
      },
    )
  })
}
