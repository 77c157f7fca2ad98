/** A simulated engine that owns its batching, and what stands before it: a gateway's twin and what it holds back (production
 * code, on virtual time), or nothing. Several gateways may stand before one engine, and tell each other what they have there. */
import type { ReplicaConfig } from "../../../src/core/replica.ts"
import { CacheHopes } from "../../../src/fleet/backends/cache-hopes.ts"
import { type Holdable, Holding, type Later } from "../../../src/fleet/backends/holding.ts"
import { Judge } from "../../../src/fleet/backends/judge.ts"
import { type LoadWord, SharedLoad } from "../../../src/fleet/backends/shared-load.ts"
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
  /** Where another gateway stands before it already; left out: it is made. */
  engine?: SimHost | undefined
  /** To other gateways, in a moment; left out: they see each other in /metrics alone. */
  tellSoon?: ((words: () => unknown) => void) | undefined
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
  readonly #shared: SharedLoad | null
  #ids = 0

  constructor(options: BehindOptions) {
    const { index, config, reality, rules, believed, apps, nowUs, later } = options
    this.#options = options
    this.engine = options.engine ?? engineOf(index, config, reality)
    this.twin = new Twin({ rules, apps, ...believed })
    const { tellSoon } = options
    const saw = ({ app, session, seen }: Parameters<SharedLoad["saw"]>[0] & object) =>
      this.#hopes.saw(app, session, seen)
    const sentElsewhere = (spec: TwinSpec, forced: boolean) => this.#holding.sentElsewhere(spec, forced)
    this.#shared =
      tellSoon === undefined
        ? null
        : new SharedLoad({ twin: this.twin, tellSoon, clockUs: 0, saw, sentElsewhere })
    const send = (course: Course, forced: boolean) => {
      this.twin.sent(course.id, course.spec, nowUs())
      this.#shared?.sent(course.id, course.spec, forced)
      this.#submit(course)
    }
    const turnDown = ({ id, job }: Course) => {
      this.#shared?.ended(id, false)
      options.tell({ type: "turnedDown", job })
    }
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
    const own = this.#holding.around(deadlineUs)
    const held = this.#shared?.around(deadlineUs, own) ?? own
    return this.twin.offer(spec, this.#options.nowUs(), held).takes
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
    if (!holds) {
      this.#submit(course)
      return
    }
    this.#shared?.held(course.id, spec, course.judge.deadlineUs)
    this.#holding.add(course)
  }

  withdraw(job: JobId): boolean {
    const course = this.#courses.get(job)
    if (course === undefined) return true
    if (course.begun) return false
    if (!this.#holding.remove(course)) {
      this.engine.cancel(job, this.#options.nowUs())
      this.twin.ended(course.id, this.#options.nowUs(), false)
    }
    this.#shared?.ended(course.id, false)
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
    const waiting = snapshot.waiting + this.#holding.size + (this.#shared?.heldElsewhere ?? 0)
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
      if (first) for (const view of [this.twin, this.#shared]) view?.cached(course.id, course.cachedTokens)
      this.twin.tokens(course.id, word.tokens, nowUs())
      this.#shared?.tokens(course.id, word.tokens)
      onTokens(word.job, word.tokens, word.answeringFrom >= 0)
      if (first) this.#holding.look()
    } else if (word.type === "ended") {
      this.#courses.delete(word.job)
      const { app, session, promptTokens: prompt } = course.request.spec
      const seen = { prompt, cached: course.cachedTokens, output: course.request.outputTokens }
      this.#hopes.saw(app, nameOf(session), seen)
      this.#shared?.saw({ app, session: nameOf(session), seen })
      this.twin.ended(course.id, nowUs(), true)
      this.#shared?.ended(course.id, true)
      onEnd(word.job)
      this.#holding.look()
    }
  }

  /** What another gateway told. */
  heardFrom(gateway: number, words: unknown): void {
    this.#shared?.hear(words as LoadWord[], gateway, this.#options.nowUs())
    this.#holding.look()
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

function engineOf(index: number, config: ReplicaConfig, reality: Reality): SimHost {
  const world = new World(reality.seed, config.limits.blockTokens)
  const machine = () => new Machine(index, config, reality, new Faults([]), world)
  const engine = new SimHost(index, { world, machine, deadlyAfter: () => Infinity, check: false })
  engine.start()
  return engine
}

const nameOf = (session: number) => (session < 0 ? null : String(session))
