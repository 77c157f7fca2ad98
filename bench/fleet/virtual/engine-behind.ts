/** A simulated engine that owns its batching, and what stands before it: a gateway's twin and what it holds back (production
 * code, on virtual time), or nothing. */
import type { ReplicaConfig } from "../../../src/core/replica.ts"
import { CacheHopes } from "../../../src/fleet/backends/cache-hopes.ts"
import { type Holdable, Holding, type Later } from "../../../src/fleet/backends/holding.ts"
import { Judge } from "../../../src/fleet/backends/judge.ts"
import type { EngineRules } from "../../../src/fleet/engine-rules.ts"
import { Twin, type TwinOptions, type TwinSpec } from "../../../src/fleet/twin.ts"
import type { DispatchEvent, JobId } from "../../../src/router/dispatch.ts"
import { Faults } from "../../../src/sim/faults.ts"
import { SimHost, type Word } from "../../../src/sim/host.ts"
import { Machine, type Reality, type Step } from "../../../src/sim/machine.ts"
import { type SimRequest, World } from "../../../src/sim/world.ts"

interface Course extends Holdable {
  readonly job: JobId
  readonly request: SimRequest
  begun: boolean
  /** Prompt tokens that the engine had; -1 until it has begun. */
  cachedTokens: number
}

export interface BehindOptions {
  index: number
  config: ReplicaConfig
  reality: Reality
  rules: EngineRules
  believed: Pick<TwinOptions, "prior" | "kin">
  apps: number
  nowUs: () => number
  later: Later
  /** Tells the fleet's dispatcher. */
  tell: (event: DispatchEvent) => void
  /** Where each token goes that came. */
  onTokens: (job: JobId, tokens: number, answering: boolean) => void
  onEnd: (job: JobId) => void
}

export class EngineBehind {
  readonly engine: SimHost
  readonly twin: Twin
  readonly #options: BehindOptions
  readonly #holding: Holding<Course>
  readonly #courses = new Map<JobId, Course>()
  readonly #hopes = new CacheHopes()
  #ids = 0

  constructor(options: BehindOptions) {
    const { index, config, reality, rules, believed, apps, nowUs, later } = options
    this.#options = options
    const world = new World(reality.seed, config.limits.blockTokens)
    const machine = () => new Machine(index, config, reality, new Faults([]), world)
    this.engine = new SimHost(index, { world, machine, deadlyAfter: () => Infinity, check: false })
    this.engine.start()
    this.twin = new Twin({ rules, apps, ...believed })
    const send = (course: Course) => {
      this.twin.sent(course.id, course.spec, nowUs())
      this.#submit(course)
    }
    const turnDown = ({ job }: Course) => options.tell({ type: "turnedDown", job })
    this.#holding = new Holding(this.twin, nowUs, { send, turnDown }, later)
    this.#holding.open()
  }

  /** Held and in flight. */
  get live(): number {
    return this.#courses.size
  }

  offer(request: SimRequest): boolean {
    const spec = this.#specOf(request)
    const { deadlineUs } = this.#judge(spec)
    return this.twin.offer(spec, this.#options.nowUs(), this.#holding.around(deadlineUs)).takes
  }

  /** `holds`: by the twin's word; else it goes to the engine at once. */
  take(job: JobId, request: SimRequest, holds: boolean): void {
    const spec = this.#specOf(request)
    const sinceUs = this.#options.nowUs()
    const course = {
      id: spec.id,
      spec,
      judge: this.#judge(spec),
      sinceUs,
      job,
      request,
      begun: false,
      cachedTokens: -1,
    }
    this.#courses.set(job, course)
    if (holds) this.#holding.add(course)
    else this.#submit(course)
  }

  withdraw(job: JobId): boolean {
    const course = this.#courses.get(job)
    if (course === undefined) return true
    if (course.begun) return false
    if (!this.#holding.remove(course)) {
      this.engine.cancel(job, this.#options.nowUs())
      this.twin.ended(course.id, this.#options.nowUs(), false)
    }
    this.#courses.delete(job)
    return true
  }

  /** What /metrics say. */
  scraped(): void {
    const { waiting, running, kvUsedTokens } = this.engine.machine!.replica.snapshot(this.#options.nowUs())
    this.twin.metrics({ waiting, running, kvUsedTokens }, this.#options.nowUs())
    this.#holding.look()
  }

  digest(): DispatchEvent {
    const takenAtUs = this.#options.nowUs()
    const snapshot = this.twin.snapshot(takenAtUs)
    const waiting = snapshot.waiting + this.#holding.size
    const { index: replica } = this.#options
    return { type: "digest", replica, snapshot: { ...snapshot, waiting }, takenAtUs, computes: true }
  }

  /** A step begins: what it does not compute of a prompt, the engine had. Told with the first token, as engines do. */
  began({ items, plays }: Step): void {
    const positions = new Map(items.map(({ position }, i) => [plays[i]?.request.spec.id, position]))
    for (const course of this.#courses.values()) {
      const position = positions.get(course.request.spec.id)
      if (position !== undefined && course.cachedTokens < 0) course.cachedTokens = position
    }
  }

  hear(word: Word): void {
    const course = this.#courses.get(word.job)
    if (course === undefined) return
    const { nowUs, onTokens, onEnd } = this.#options
    if (word.type === "tokens") {
      const first = !course.begun
      course.begun = true
      if (first) this.twin.cached(course.id, course.cachedTokens)
      this.twin.tokens(course.id, word.tokens, nowUs())
      onTokens(word.job, word.tokens, word.answeringFrom >= 0)
      if (first) this.#holding.look()
    } else if (word.type === "ended") {
      this.#courses.delete(word.job)
      const { app, session, promptTokens: prompt } = course.request.spec
      const seen = { prompt, cached: course.cachedTokens, output: course.request.outputTokens }
      this.#hopes.saw(app, nameOf(session), seen)
      this.twin.ended(course.id, nowUs(), true)
      onEnd(word.job)
      this.#holding.look()
    }
  }

  /** The engine knows promises as its API does: a deadline, where it goes by these. */
  #submit({ job, request, spec }: Course): void {
    this.engine.submit(
      job,
      false,
      { ...request, spec: { ...request.spec, arrivalUs: request.atUs, tier: spec.tier } },
      0,
      undefined,
      this.#options.nowUs(),
    )
  }

  #specOf({ spec, atUs }: SimRequest): TwinSpec {
    const cachedTokens = this.#hopes.tokens(spec.app, nameOf(spec.session), spec.promptTokens)
    return { ...spec, id: ++this.#ids, arrivalUs: atUs, session: -1, prefix: [], cachedTokens }
  }

  #judge(spec: TwinSpec): Judge {
    return new Judge(
      spec,
      this.#options.nowUs(),
      (tokens) => this.twin.zeroLoadPrefillUs(tokens),
      () => {},
    )
  }
}

const nameOf = (session: number) => (session < 0 ? null : String(session))
