/** Chooses by asking twins (fleet/twin.ts): an endpoint takes a request whose SLO its twin says it would keep, with all
 * that it has promised to others. Requests whose answers are not sent here are placed by load: a twin that sees no
 * tokens cannot follow them. */
import type { RequestId } from "../../core/protocol.ts"
import type { EngineRules } from "../engine-rules.ts"
import { type EngineLoad, Twin, type TwinSpec } from "../twin.ts"
import type { Ask } from "./ask.ts"
import type { Chooser, Endpoint, Sent } from "./chooser.ts"
import { LeastLoaded } from "./least-loaded.ts"

export interface TwinsOptions {
  rules: EngineRules
  /** What is believed of step times until they were seen. */
  prior?: ConstructorParameters<typeof Twin>[0]["prior"]
  /** SLO classes: output lengths are learnt for each. */
  apps: number
  /** Requests at one endpoint at once, whatever its twin says. */
  mostInFlight: number
}

/** Twins asked for one request. */
const HOPS = 3
/** Without an SLO a request goes where it would start so soon, µs: in an engine's queue it can go nowhere else. */
const SOON_US = 100_000
/** An answer's length where its request names none. */
const USUAL_OUTPUT_TOKENS = 1024
/** Until usage was seen. */
const BYTES_PER_TOKEN = 4
/** Weight of the latest prompt in what is learnt of it. */
const LEARN = 0.05
/** Sessions remembered; the oldest are forgotten. */
const MOST_SESSIONS = 100_000

export class Twins implements Chooser {
  readonly #options: TwinsOptions
  readonly #byLoad: LeastLoaded
  readonly #twins = new Map<Endpoint, Twin>()
  readonly #homes = new Map<string, Endpoint>()
  #bytesPerToken = BYTES_PER_TOKEN
  #nextId: RequestId = 0

  constructor(options: TwinsOptions) {
    this.#options = options
    this.#byLoad = new LeastLoaded(options.mostInFlight)
  }

  set onRoom(listener: (() => void) | null) {
    this.#byLoad.onRoom = listener
  }

  get onRoom(): (() => void) | null {
    return this.#byLoad.onRoom
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#byLoad.setEndpoints(endpoints)
    const known = new Set(endpoints)
    for (const [endpoint, twin] of this.#twins)
      if (!known.has(endpoint) && twin.inFlight === 0) this.#twins.delete(endpoint)
  }

  choose(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[] {
    const free = this.#byLoad.choose(ask, among)
    if (!ask.followed) return free
    const spec = this.#specOf(ask)
    for (const endpoint of this.#homeFirst(ask, free).slice(0, HOPS))
      if (this.#twin(endpoint).offer(spec, nowUs).takes) return first(endpoint, free)
    return []
  }

  anywhere(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[] {
    const free = this.#byLoad.choose(ask, among)
    if (!ask.followed) return free
    const spec: TwinSpec = { ...this.#specOf(ask), tier: "bestEffort" }
    for (const endpoint of this.#homeFirst(ask, free).slice(0, HOPS)) {
      const twin = this.#twin(endpoint)
      // An idle endpoint takes anything: a twin that is wrong for ever would keep it idle for ever.
      if (twin.inFlight === 0) return first(endpoint, free)
      const { keepsOthers, startsUs } = twin.offer(spec, nowUs)
      if (keepsOthers && startsUs - nowUs <= SOON_US) return first(endpoint, free)
    }
    return []
  }

  sent(ask: Ask, endpoint: Endpoint, nowUs: number): Sent {
    if (ask.session !== null) this.#remember(`${ask.tenant}\n${ask.session}`, endpoint)
    const load = this.#byLoad.sent(ask, endpoint)
    const spec = this.#specOf(ask)
    const { id } = spec
    let twin = ask.followed ? this.#twin(endpoint) : null
    twin?.sent(id, spec, nowUs)
    return {
      servedBy: (other) => {
        load.servedBy(other)
        if (twin === null || this.#twin(other) === twin) return
        twin.ended(id, nowUs, false)
        twin = this.#twin(other)
        twin.sent(id, spec, nowUs)
      },
      tokens: (count, atUs) => twin?.tokens(id, count, atUs),
      usage: (promptTokens) => this.#learn(ask.bytes, promptTokens),
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
    this.#byLoad.close()
    this.#twins.clear()
  }

  #twin(endpoint: Endpoint): Twin {
    const known = this.#twins.get(endpoint)
    if (known !== undefined) return known
    const { rules, apps, prior } = this.#options
    const twin = new Twin({ rules, apps, ...(prior !== undefined && { prior }) })
    this.#twins.set(endpoint, twin)
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

  /** Where a session's last round ran, its KV is. */
  #homeFirst({ tenant, session }: Ask, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    const home = session === null ? undefined : this.#homes.get(`${tenant}\n${session}`)
    return home !== undefined && endpoints.includes(home) ? first(home, endpoints) : endpoints
  }

  #remember(session: string, endpoint: Endpoint): void {
    this.#homes.delete(session)
    this.#homes.set(session, endpoint)
    if (this.#homes.size <= MOST_SESSIONS) return
    for (const oldest of this.#homes.keys()) return void this.#homes.delete(oldest)
  }
}

function first(endpoint: Endpoint, all: readonly Endpoint[]): Endpoint[] {
  return [endpoint, ...all.filter((other) => other !== endpoint)]
}
