/** A workload through a gateway or a balancer, before simulated engines that own their batching; each answer is judged as its
 * client sees it, token by token. */
import type { RequestId } from "../../../src/core/protocol.ts"
import { Judge } from "../../../src/fleet/backends/judge.ts"
import { CostFit } from "../../../src/fleet/cost-fit.ts"
import type { EngineRules } from "../../../src/fleet/engine-rules.ts"
import type { TwinOptions } from "../../../src/fleet/twin.ts"
import { APPS } from "../../../src/load/workload.ts"
import type { DispatchEffect, DispatchEvent, JobId } from "../../../src/router/dispatch.ts"
import { Dispatcher } from "../../../src/router/dispatcher.ts"
import { chance } from "../../../src/sim/chance.ts"
import { routingChances } from "../../../src/sim/gateway.ts"
import { EventHeap } from "../../../src/sim/heap.ts"
import type { SimRequest } from "../../../src/sim/world.ts"
import { replicaConfigs } from "../../../src/study/run.ts"
import type { RunSpec } from "../../../src/study/spec.ts"
import { Workload } from "../../../src/study/workload.ts"
import { EngineBehind } from "./engine-behind.ts"

export const FRONTS = ["gateway", "least connections", "power of two", "sessions stay"] as const
export type FrontName = (typeof FRONTS)[number]

export interface Played {
  /** Planned requests that kept every SLO, of those that count. */
  kept: number
  total: number
  /** Rounds that were promised when they came; those of them that kept every SLO. */
  promised: number
  promisedKept: number
  /** Rounds that missed, by what was late first: `never` began, `first` token of promised ones and of others, or `pace`. */
  why: Record<string, number>
}

/** How what is told is gathered, and then on its way, µs. */
export interface Telling {
  tellUs: number
  heardUs: number
}

/** What processes of one address gather themselves and their parent does (src/siblings). */
export const SIBLINGS: Telling = { tellUs: 5000, heardUs: 300 }
/** Gateways on several machines (src/fleet/peers): what one gathers, the network, and what the other's hub gathers and takes. */
export const peersOver = (networkUs: number): Telling => ({ tellUs: 4000, heardUs: networkUs + 1500 })

/** Gateways: how many, and how they tell each other what they have; null: /metrics alone. */
export interface Several {
  gateways: number
  tell: Telling | null
}

/** One way, µs. */
const NETWORK_US = 500
/** Numbers of jobs of one gateway. */
const JOBS_A_GATEWAY = 1e9
const [DIGEST_US, SCRAPE_US] = [50_000, 1_000_000]
const PATIENCE_US = 60_000_000

/** `rules`, `prior`: what the gateway believes of the engines at first. */
export function play(
  spec: RunSpec,
  front: FrontName,
  rules: EngineRules,
  prior?: TwinOptions["prior"],
  several: Several = { gateways: 1, tell: null },
  workload: Requests = new Workload(spec),
): Played {
  return new Play(spec, front, rules, prior, several, workload).run()
}

/** What comes, and who hears how it ended. */
export interface Requests {
  readonly first: readonly SimRequest[]
  /** Of a session's last round: whether all its rounds kept their SLOs, and whether it counts. */
  ended(
    id: RequestId,
    outcome: { attained: boolean; attainedEvery10: boolean },
  ): { ok: boolean; counted: boolean } | null
  follow(id: RequestId, nowUs: number): SimRequest | null
}

interface Client {
  request: SimRequest
  /** That it comes to. */
  gateway: number
  judge: Judge
  promised: boolean
  job: JobId
  at: number
  tokens: number
}

class Play {
  readonly #workload: Requests
  readonly #front: FrontName
  readonly #seed: number
  readonly #heap = new EventHeap<() => void>()
  /** As each gateway sees them. */
  readonly #views: EngineBehind[][]
  readonly #dispatchers: Dispatcher[]
  readonly #telling: Telling | null
  readonly #clients = new Map<RequestId, Client>()
  readonly #byJob = new Map<JobId, Client>()
  readonly #effects: { gateway: number; effect: DispatchEffect }[] = []
  /** By session. */
  readonly #homes = new Map<number, number>()
  #carrying = false
  #nowUs = 0
  #pending: number
  #turn = 0
  #jobs = 0
  readonly #played: Played = { kept: 0, total: 0, promised: 0, promisedKept: 0, why: {} }

  constructor(
    spec: RunSpec,
    front: FrontName,
    rules: EngineRules,
    prior: TwinOptions["prior"],
    { gateways, tell }: Several,
    workload: Requests,
  ) {
    this.#workload = workload
    this.#front = front
    this.#seed = spec.seed
    this.#telling = gateways > 1 ? tell : null
    this.#pending = this.#workload.first.length
    const nowUs = () => this.#nowUs
    const later = (us: number, fn: () => void) => this.#cancellable(us, fn)
    this.#views = []
    for (let gateway = 0; gateway < gateways; gateway++) {
      const believed = { kin: new CostFit(prior), ...(prior && { prior }) }
      this.#views[gateway] = replicaConfigs(spec).map(
        (config, index) =>
          new EngineBehind({
            ...{ index, config, rules, believed, apps: APPS.length, nowUs, later },
            reality: { noiseSigma: spec.noiseSigma, bias: spec.bias, seed: spec.seed },
            engine: this.#views[0]?.[index]?.engine,
            ...(this.#telling !== null && { tellSoon: (words) => this.#tellSoon(gateway, index, words) }),
            tell: (event) => this.#tell(gateway, event),
            onTokens: (job, tokens, answering) => this.#tokens(job, tokens, answering),
            onEnd: (job) => this.#ended(job),
          }),
      )
    }
    this.#dispatchers = this.#views.map(
      (_, gateway) =>
        new Dispatcher({
          ...{ router: { reoffers: 3 }, chances: routingChances(spec.seed) },
          firstJob: 1 + gateway * JOBS_A_GATEWAY,
        }),
    )
  }

  get #engines(): EngineBehind[] {
    return this.#views[0]!
  }

  run(): Played {
    for (const gateway of this.#views.keys())
      for (const replica of this.#engines.keys()) this.#tell(gateway, { type: "replicaUp", replica })
    for (const request of this.#workload.first) this.#arrives(request)
    this.#every(DIGEST_US, (engine, gateway) => this.#tell(gateway, engine.digest()))
    this.#every(SCRAPE_US, (engine) => engine.scraped())
    while (this.#pending > 0 || this.#clients.size > 0) {
      this.#nowUs = this.#heap.nextUs
      while (this.#heap.nextUs === this.#nowUs) this.#heap.pop()!()
      for (const engine of this.#engines) this.#decide(engine)
    }
    return this.#played
  }

  #tellSoon(gateway: number, index: number, words: () => unknown): void {
    const { tellUs, heardUs } = this.#telling!
    this.#in(tellUs, () => {
      const told = words()
      this.#in(heardUs, () => {
        for (const [other, views] of this.#views.entries())
          if (other !== gateway) views[index]!.heardFrom(gateway, told)
      })
    })
  }

  #in(us: number, act: () => void): void {
    this.#heap.push(this.#nowUs + Math.max(0, Math.ceil(us)), 0, act)
  }

  #cancellable(us: number, fn: () => void): () => void {
    let wanted = true
    this.#in(us, () => wanted && fn())
    return () => {
      wanted = false
    }
  }

  #every(us: number, act: (engine: EngineBehind, gateway: number) => void): void {
    for (const [gateway, views] of this.#views.entries()) for (const view of views) act(view, gateway)
    this.#in(us, () => this.#every(us, act))
  }

  #arrives(request: SimRequest): void {
    this.#heap.push(request.atUs, 0, () => {
      this.#pending--
      const { spec } = request
      const judge = new Judge(
        { ...spec, arrivalUs: this.#nowUs },
        this.#nowUs,
        () => 0,
        () => {},
      )
      const gateway = Math.floor(chance(this.#seed, spec.id, 7) * this.#views.length)
      const client = { request, gateway, judge, promised: false, job: -1, at: -1, tokens: 0 }
      this.#clients.set(spec.id, client)
      const arrived = { id: spec.id, request: spec, choices: 1, patienceUs: PATIENCE_US }
      if (this.#front !== "gateway") this.#give(++this.#jobs, client, this.#chosen(spec), false)
      else this.#tell(gateway, { type: "arrived", ...arrived })
    })
  }

  /** By requests in flight alone. */
  #chosen({ id, session }: SimRequest["spec"]): number {
    const engines = this.#engines
    const stays = this.#front === "sessions stay" && session >= 0
    const home = stays ? this.#homes.get(session) : undefined
    if (home !== undefined) return home
    const turn = this.#turn++ % engines.length
    const drawn = [0, 1].map((n) => Math.floor(chance(this.#seed, id, n) * engines.length))
    const among = this.#front === "power of two" ? drawn : engines.map((_, i) => (turn + i) % engines.length)
    const chosen = among.reduce((least, i) => (engines[i]!.live < engines[least]!.live ? i : least))
    if (stays) this.#homes.set(session, chosen)
    return chosen
  }

  #give(job: JobId, client: Client, at: number, holds: boolean): void {
    Object.assign(client, { job, at })
    this.#byJob.set(job, client)
    if (holds) this.#views[client.gateway]![at]!.take(job, client.request, true)
    else this.#in(NETWORK_US, () => this.#engines[at]!.take(job, client.request, false))
  }

  #tell(gateway: number, event: DispatchEvent): void {
    const dispatcher = this.#dispatchers[gateway]!
    dispatcher.handle(event, this.#nowUs)
    for (const effect of dispatcher.poll(this.#nowUs)) this.#effects.push({ gateway, effect })
    if (this.#carrying) return
    this.#carrying = true
    for (let next = this.#effects.shift(); next !== undefined; next = this.#effects.shift())
      this.#carryOut(next.gateway, next.effect)
    this.#carrying = false
  }

  #carryOut(gateway: number, effect: DispatchEffect): void {
    if (effect.type === "wake")
      this.#in(effect.atUs - this.#nowUs, () => this.#tell(gateway, { type: "woke" }))
    else if (effect.type === "ask") this.#ask(gateway, effect)
    else if (effect.type === "submit") {
      const client = this.#clients.get(effect.id)!
      this.#placed(gateway, client.request, effect.replica)
      this.#give(effect.job, client, effect.replica, true)
    } else if (effect.type === "withdraw") this.#withdraw(gateway, effect.job, effect.replica)
    else if (effect.type === "probe")
      this.#tell(gateway, { type: "probed", replica: effect.replica, ok: true })
    else if (effect.type === "fail") this.#over(this.#clients.get(effect.id)!)
  }

  #placed(gateway: number, { spec }: SimRequest, replica: number): void {
    if (this.#telling === null) return
    this.#in(this.#telling.tellUs + this.#telling.heardUs, () => {
      for (const [other, dispatcher] of this.#dispatchers.entries())
        if (other !== gateway) dispatcher.placedElsewhere(spec, replica, this.#nowUs)
    })
  }

  #ask(gateway: number, { job, id, replica }: Extract<DispatchEffect, { type: "ask" }>): void {
    const client = this.#clients.get(id)!
    const takes = this.#views[gateway]![replica]!.offer(client.request)
    client.promised ||= takes
    this.#tell(gateway, { type: "offered", job, replica, takes })
  }

  #withdraw(gateway: number, job: JobId, replica: number): void {
    const ok = this.#views[gateway]![replica]!.withdraw(job)
    if (ok) this.#byJob.delete(job)
    this.#tell(gateway, { type: "withdrawn", job, ok })
  }

  #decide(behind: EngineBehind): void {
    const { engine } = behind
    const machine = engine.machine!
    if (!machine.touched) return
    const wokeUs = machine.wakeAtUs
    const { step } = engine.decide(this.#nowUs)
    const views = this.#views.map((each) => each[engine.index]!)
    if (step !== null) {
      for (const view of views) view.began(step)
      this.#heap.push(step.atUs, 0, () => engine.stepOver(step, this.#nowUs))
    }
    if (machine.wakeAtUs !== wokeUs)
      this.#heap.push(machine.wakeAtUs, 0, () => machine.wakeAtUs <= this.#nowUs && engine.woke(this.#nowUs))
    const words = engine.takeWords()
    if (words.length === 0) return
    this.#in(NETWORK_US, () => {
      for (const word of words) for (const view of views) view.hear(word)
    })
  }

  #tokens(job: JobId, tokens: number, answering: boolean): void {
    const client = this.#byJob.get(job)
    if (client === undefined) return
    client.tokens += tokens
    client.judge.tokens(tokens, answering, this.#nowUs)
    if (this.#front === "gateway") this.#tell(client.gateway, { type: "progressed", job, choice: 0, tokens })
  }

  #ended(job: JobId): void {
    const client = this.#byJob.get(job)
    if (client === undefined) return
    if (this.#front === "gateway") this.#tell(client.gateway, { type: "choiceEnded", job, choice: 0 })
    this.#over(client)
  }

  #over(client: Client): void {
    const { request, judge, job, promised } = client
    const { id } = request.spec
    this.#byJob.delete(job)
    this.#clients.delete(id)
    const outcome = judge.end("stop", null, this.#nowUs)
    const attained = outcome.attained && client.tokens === request.outputTokens
    if (promised) this.#played.promised++
    if (promised && attained) this.#played.promisedKept++
    if (!attained) this.#missed(client, outcome.stages[0]?.attained ?? null)
    const session = this.#workload.ended(id, { attained, attainedEvery10: attained })
    if (session?.counted) this.#played.total++
    if (session?.counted && session.ok) this.#played.kept++
    const next = this.#workload.follow(id, this.#nowUs)
    if (next === null) return
    this.#pending++
    this.#arrives({ ...next, atUs: Math.max(next.atUs, this.#nowUs + 1) })
  }

  #missed({ promised }: Client, firstKept: boolean | null): void {
    const what = firstKept === null ? "never" : firstKept ? "pace" : "first token"
    const name = `${promised ? "promised, " : ""}${what}`
    this.#played.why[name] = (this.#played.why[name] ?? 0) + 1
  }
}
