/** Chooses by asking twins (fleet/twin.ts): an endpoint takes a request whose SLO its twin says it would keep, with all
 * that it has promised to others. Requests whose answers are not sent here are placed by load: a twin that sees no
 * tokens cannot follow them. */
import type { RequestId } from "../../core/protocol.ts"
import type { BackendKind } from "../backends/kind.ts"
import { CostFit } from "../cost-fit.ts"
import type { EngineRules } from "../engine-rules.ts"
import { TimeReserve } from "../time-reserve.ts"
import { type EngineLoad, Twin, type TwinSpec } from "../twin.ts"
import { mayWaitUs } from "../twin-words.ts"
import { Affinity } from "./affinity.ts"
import type { Ask } from "./ask.ts"
import type { Chooser, Endpoint, Sent } from "./chooser.ts"
import { LeastLoaded } from "./least-loaded.ts"
import { Probes } from "./probes.ts"

export interface TwinsOptions {
  kind: BackendKind
  /** The engines order their queues by the priorities that are written for them. */
  byPriority: boolean
  /** SLO classes: output lengths are learnt for each. */
  apps: number
  /** Requests at one endpoint at once, whatever its twin says. */
  mostInFlight: number
  /** How the endpoints are asked how they are; null: they are not. */
  probes: Pick<ConstructorParameters<typeof Probes>[0], "everyMs" | "scheme"> | null
  nowUs(): number
  warn(message: string): void
}

/** Twins asked for one request. */
const HOPS = 3
/** Without an SLO a request goes where it would queue no longer than this, µs: in an engine's queue it can go nowhere else. */
const SOON_US = 100_000
/** An answer's length where its request names none. */
const USUAL_OUTPUT_TOKENS = 1024
/** Until usage was seen. */
const BYTES_PER_TOKEN = 4
/** Weight of the latest prompt in what is learnt of it. */
const LEARN = 0.05

export class Twins implements Chooser {
  readonly #options: TwinsOptions
  readonly #byLoad: LeastLoaded
  readonly #twins = new Map<Endpoint, Twin>()
  readonly #reserves = new WeakMap<Twin, TimeReserve>()
  /** A pool's endpoints serve one model. */
  readonly #kin: CostFit
  readonly #affinity = new Affinity()
  readonly #probes: Probes | null
  #bytesPerToken = BYTES_PER_TOKEN
  #nextId: RequestId = 0

  constructor(options: TwinsOptions) {
    this.#options = options
    this.#kin = new CostFit(options.kind.prior)
    this.#byLoad = new LeastLoaded(options.mostInFlight)
    this.#probes = options.probes === null ? null : this.#probesOf(options, options.probes)
  }

  set onRoom(listener: (() => void) | null) {
    this.#byLoad.onRoom = listener
  }

  get onRoom(): (() => void) | null {
    return this.#byLoad.onRoom
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#byLoad.setEndpoints(endpoints)
    this.#probes?.setEndpoints(endpoints)
    const known = new Set(endpoints)
    for (const [endpoint, twin] of this.#twins) {
      if (known.has(endpoint)) continue
      this.#affinity.forget(endpoint)
      if (twin.inFlight === 0) this.#twins.delete(endpoint)
    }
  }

  choose(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[] {
    const free = this.#free(ask, among)
    if (!ask.followed) return free
    const spec = this.#specOf(ask)
    // A twin takes all best effort, for a gateway holds it afterwards; here it is held before.
    if (spec.tier === "bestEffort") return this.anywhere(ask, among, nowUs)
    for (const endpoint of this.#affinity.order(ask, free).slice(0, HOPS))
      if (this.#twin(endpoint).offer(spec, nowUs).takes) return first(endpoint, free)
    return []
  }

  anywhere(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[] {
    const free = this.#free(ask, among)
    if (!ask.followed) return free
    const spec: TwinSpec = { ...this.#specOf(ask), tier: "bestEffort" }
    const dueUs = ask.arrivalUs + ask.slo.slo.ttftUs
    for (const endpoint of this.#affinity.order(ask, free).slice(0, HOPS)) {
      const twin = this.#twin(endpoint)
      // An idle endpoint takes anything: a twin that is wrong for ever would keep it idle for ever.
      if (twin.inFlight === 0) return first(endpoint, free)
      const offer = twin.offer(spec, nowUs)
      const { keepsOthers, leavesRoom } = offer
      const harms = !keepsOthers || !leavesRoom || !this.#reserves.get(twin)!.leaves(spec, nowUs, dueUs)
      if (!harms && mayWaitUs(offer) <= SOON_US) return first(endpoint, free)
    }
    return []
  }

  sent(ask: Ask, endpoint: Endpoint, nowUs: number): Sent {
    this.#affinity.sent(ask, endpoint)
    const load = this.#byLoad.sent(ask, endpoint)
    const spec = this.#specOf(ask)
    const { id } = spec
    const { bytes } = ask
    let twin = ask.followed ? this.#twin(endpoint) : null
    twin?.sent(id, spec, nowUs)
    if (twin !== null) this.#reserves.get(twin)!.sent(spec, nowUs)
    return {
      servedBy: (other) => {
        load.servedBy(other)
        if (twin === null || this.#twin(other) === twin) return
        twin.ended(id, nowUs, false)
        twin = this.#twin(other)
        twin.sent(id, spec, nowUs)
      },
      tokens: (count, atUs) => twin?.tokens(id, count, atUs),
      usage: (promptTokens) => this.#learn(bytes, promptTokens),
      ended: (how, atUs) => {
        twin?.ended(id, atUs, how === "done")
        twin = null
        load.ended(how, atUs)
      },
    }
  }

  zeroLoadUs(ask: Ask, among: readonly Endpoint[]): number {
    const tokens = this.#promptTokens(ask)
    let least = Number.POSITIVE_INFINITY
    for (const endpoint of among) least = Math.min(least, this.#twin(endpoint).zeroLoadPrefillUs(tokens))
    return Number.isFinite(least) ? least : this.#byLoad.zeroLoadUs(ask)
  }

  /** Not even an idle endpoint would be on time. */
  hopeless(ask: Ask, dueUs: number, among: readonly Endpoint[], nowUs: number): boolean {
    if (dueUs < nowUs || !ask.followed) return dueUs < nowUs
    const sure = among.filter((endpoint) => this.#twin(endpoint).fit.confident)
    return sure.length === among.length && dueUs < nowUs + this.zeroLoadUs(ask, among)
  }

  /** What an engine said of itself. */
  told(endpoint: Endpoint, load: EngineLoad | null, rules: Partial<EngineRules>, nowUs: number): void {
    const twin = this.#twin(endpoint)
    twin.learnRules(rules)
    if (load !== null) twin.metrics(load, nowUs)
  }

  /** For metrics: requests at an endpoint that its twin follows, and whether it knows its step times. */
  state(endpoint: Endpoint): { inFlight: number; confident: boolean } {
    const twin = this.#twins.get(endpoint)
    return { inFlight: twin?.inFlight ?? 0, confident: twin?.fit.confident ?? false }
  }

  close(): void {
    this.#probes?.close()
    this.#byLoad.close()
    this.#twins.clear()
  }

  /** Those that are up and have a place, the least busy first. */
  #free(ask: Ask, among: readonly Endpoint[]): readonly Endpoint[] {
    return this.#byLoad.choose(ask, this.#probes?.left(among) ?? among)
  }

  #probesOf({ kind, nowUs, warn }: TwinsOptions, how: NonNullable<TwinsOptions["probes"]>): Probes {
    return new Probes({
      ...{ kind, ...how },
      learnt: (endpoint, { load = null, rules = {} }) => this.told(endpoint, load, rules, nowUs()),
      changed: (endpoint, up, detail) => {
        warn(
          up ? `${endpoint} serves` : `${endpoint} is down, and left out while others are there: ${detail}`,
        )
        if (up) this.onRoom?.()
        else this.#affinity.forget(endpoint)
      },
    })
  }

  #twin(endpoint: Endpoint): Twin {
    const known = this.#twins.get(endpoint)
    if (known !== undefined) return known
    const { kind, byPriority, apps } = this.#options
    const rules = (byPriority ? kind.withPriority : null) ?? kind.rules
    const { prior } = kind
    const twin = new Twin({ rules, apps, kin: this.#kin, ...(prior && { prior }) })
    this.#twins.set(endpoint, twin)
    this.#reserves.set(twin, new TimeReserve(twin))
    return twin
  }

  #specOf(ask: Ask): TwinSpec {
    const { slo, tier, thinking, class: its } = ask.slo
    return {
      ...{ id: this.#nextId++, app: its.app, session: -1, arrivalUs: ask.arrivalUs, prefix: [] },
      ...{ slo, tier, thinking },
      promptTokens: this.#promptTokens(ask),
      maxOutputTokens: ask.maxTokens ?? USUAL_OUTPUT_TOKENS,
    }
  }

  #promptTokens({ bytes }: Ask): number {
    return Math.max(1, Math.ceil(bytes / this.#bytesPerToken))
  }

  #learn(bytes: number, promptTokens: number): void {
    if (promptTokens > 0 && bytes > 0)
      this.#bytesPerToken += LEARN * (bytes / promptTokens - this.#bytesPerToken)
  }
}

function first(endpoint: Endpoint, all: readonly Endpoint[]): Endpoint[] {
  return [endpoint, ...all.filter((other) => other !== endpoint)]
}
