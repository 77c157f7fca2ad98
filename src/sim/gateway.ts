/** A gateway in front of simulated replicas: the production dispatcher over the production core, with messages that take time,
 * get lost or come twice, and replicas that die, freeze, slow down and start again. Every client is watched: it ends once,
 * and misses or repeats no token. */
import { assert } from "../core/assert.ts"
import type { Progress, RequestId } from "../core/protocol.ts"
import { progressOf } from "../core/seen.ts"
import type { DispatchEffect, DispatchEvent, JobId } from "../router/dispatch.ts"
import { Dispatcher } from "../router/dispatcher.ts"
import type { Chances } from "../router/target.ts"
import { chance } from "./chance.ts"
import { type Client, Clients } from "./clients.ts"
import { Faults } from "./faults.ts"
import { PERFECT } from "./gateway-faults.ts"
import type { GatewayOptions, GatewayResult } from "./gateway-options.ts"
import { EventHeap } from "./heap.ts"
import { SimHost, type Word } from "./host.ts"
import { Links } from "./links.ts"
import { Lives } from "./lives.ts"
import { Machine, type Step } from "./machine.ts"
import { type SimRequest, World } from "./world.ts"

/** The luck of routing. */
export function routingChances(seed: number): (id: RequestId, place: number) => Chances {
  const stream = seed ^ ROUTING_STREAM
  return (id, place) => [chance(stream, id, 2 * place), chance(stream, id, 2 * place + 1)]
}

/** Run to the end. Deterministic: same options, same decisions. */
export function simulateGateway(options: GatewayOptions): GatewayResult {
  return new Gateway(options).run()
}

type Happening =
  | { type: "step"; host: SimHost; machine: Machine; step: Step }
  | { type: "cancel"; id: RequestId }
  | { type: "fault"; act: () => void }
  | { type: "message"; act: () => void }
  | { type: "arrival"; client: Client }
  | { type: "wake"; host: SimHost; machine: Machine }
  | { type: "gatewayWake" }
  | { type: "digest"; host: SimHost }

/** Order within one microsecond, as in `fleet.ts`. */
const RANK: Record<Happening["type"], number> = {
  ...{ step: 0, cancel: 1, fault: 2, message: 3, arrival: 4, wake: 5, gatewayWake: 6, digest: 7 },
}

/** As in `fleet.ts`. */
const ROUTING_STREAM = 0x726f7574
const JOBS_PER_GATEWAY = 1_000_000
const MINUTE_US = 60_000_000
/** What is over is gone after this: a step takes no longer. */
const SETTLE_US = 30_000_000

class Gateway {
  #options: GatewayOptions
  #heap = new EventHeap<Happening>()
  #world: World
  #hosts: SimHost[]
  #links: Links
  #lives: Lives
  #dispatcher: Dispatcher
  #clients = new Clients()
  #nowUs = 0
  #events = 0
  readonly #arrivals: readonly SimRequest[]
  #nextArrival = 0
  /** To come. */
  #pending: number
  #resumed = 0
  #gateways = 1

  constructor(options: GatewayOptions) {
    this.#options = options
    const { replicas, seed, noiseSigma = 0, bias = 1, truth, checkCores: check = false, onEffect } = options
    this.#world = new World(seed, replicas[0]!.limits.blockTokens)
    const slow = (options.faults ?? []).filter((fault) => fault.kind === "slowSteps")
    const poison = new Map<RequestId, number>()
    for (const fault of options.faults ?? [])
      if (fault.kind === "poison") poison.set(fault.request, fault.after)
    const reality = { noiseSigma, bias, seed, ...(truth && { truth }) }
    this.#hosts = replicas.map((config, index) => {
      const machine = () => new Machine(index, config, reality, new Faults(slow), this.#world)
      const deadlyAfter = (id: RequestId) => poison.get(id) ?? Infinity
      return new SimHost(index, { world: this.#world, machine, deadlyAfter, onEffect, check })
    })
    const later = (atUs: number, act: () => void) => this.#push(atUs, { type: "message", act })
    this.#links = new Links(options.network ?? PERFECT, seed, replicas.length, () => this.#nowUs, later)
    this.#dispatcher = this.#newDispatcher()
    this.#arrivals = [...options.requests].sort((a, b) => a.atUs - b.atUs)
    this.#pending = options.requests.length
    this.#lives = new Lives(options, this.#hosts, this.#links, {
      now: () => this.#nowUs,
      at: (atUs, act) => this.#push(atUs, { type: "fault", act }),
      tell: (event) => this.#tell(event),
      lose: (host) => this.#lose(host),
      linked: (host) => this.#changed(host),
      loseGateway: () => this.#loseGateway(),
    })
    this.#lives.begin()
    if (options.digestUs !== undefined)
      for (const host of this.#hosts) this.#push(host.index, { type: "digest", host })
  }

  run(): GatewayResult {
    const { mostEvents = 5_000_000, mostUs = 3600_000_000 } = this.#options
    while (this.#pending > 0 || this.#clients.live > 0) {
      const atUs = Math.min(this.#heap.nextUs, this.#arrivals[this.#nextArrival]?.atUs ?? Infinity)
      const stuck = this.#events > mostEvents || atUs > mostUs
      if (stuck) throw new Error(`${this.#clients.live} requests hang: ${this.#hanging()}`)
      this.#nowUs = atUs
      while (this.#arrivals[this.#nextArrival]?.atUs === atUs)
        this.#schedule(this.#arrivals[this.#nextArrival++]!)
      while (this.#heap.nextUs === atUs) this.#happen(this.#heap.pop()!)
    }
    this.#finish()
    const { deaths, faults } = this.#lives
    return {
      ...{ endUs: this.#nowUs, clients: this.#clients, events: this.#events },
      ...{ faults, deaths, resumed: this.#resumed },
    }
  }

  #newDispatcher(): Dispatcher {
    return new Dispatcher({
      ...{ ...this.#options.dispatch, firstJob: this.#gateways * JOBS_PER_GATEWAY },
      ...(this.#options.router && { router: this.#options.router }),
      chances: routingChances(this.#options.seed),
    })
  }

  #push(atUs: number, happening: Happening): void {
    this.#heap.push(Math.max(atUs, this.#nowUs), RANK[happening.type], happening)
  }

  /** In order of `RANK`; replicas decide when nothing else happens at this moment, or a message has come. */
  #happen(happening: Happening): void {
    this.#events++
    if (happening.type === "step") this.#stepOver(happening)
    else if (happening.type === "arrival") this.#arrive(happening.client)
    else if (happening.type === "cancel") this.#cancel(happening.id)
    else if (happening.type === "wake") this.#woke(happening)
    else if (happening.type === "gatewayWake") this.#tell({ type: "woke" })
    else if (happening.type === "digest") this.#digestTick(happening.host)
    else happening.act()
    const last = this.#heap.nextUs > this.#nowUs
    if (last || happening.type === "message") for (const host of this.#hosts) this.#decide(host)
  }

  // Clients.

  #schedule(request: SimRequest): void {
    const client = this.#clients.enter(request)
    this.#push(request.atUs, { type: "arrival", client })
    const { cancelAtUs } = request
    if (cancelAtUs !== undefined && cancelAtUs > request.atUs)
      this.#push(cancelAtUs, { type: "cancel", id: request.spec.id })
  }

  #arrive(client: Client): void {
    const { request } = client
    const { id } = request.spec
    this.#pending--
    this.#clients.arrived(client)
    const patienceUs = this.#options.patienceUs?.(request) ?? MINUTE_US
    const onPromise = this.#options.onPromise?.(request) ?? false
    this.#tell({ type: "arrived", id, request: request.spec, choices: 1, patienceUs, onPromise })
    if (request.cancelAtUs === request.atUs) this.#cancel(id)
  }

  #cancel(id: RequestId): void {
    const client = this.#clients.of(id)
    if (client.end !== null) return
    this.#tell({ type: "cancelled", id })
    this.#end(client, "cancelled")
  }

  #end(client: Client, end: NonNullable<Client["end"]>): void {
    this.#clients.ended(client, end, this.#nowUs)
    const follower = this.#options.follow?.(client.request.spec.id, this.#nowUs)
    if (!follower) return
    this.#pending++
    this.#schedule({ ...follower, atUs: Math.max(follower.atUs, this.#nowUs + 1) })
  }

  // The dispatcher, and what it wants.

  #tell(event: DispatchEvent): void {
    this.#dispatcher.handle(event, this.#nowUs)
    const effects = this.#dispatcher.poll(this.#nowUs)
    if (this.#options.check) this.#dispatcher.check()
    this.#options.onDecision?.(event, effects, this.#nowUs)
    for (const effect of effects) this.#carryOut(effect)
  }

  #carryOut(effect: DispatchEffect): void {
    if (effect.type === "wake") this.#push(effect.atUs, { type: "gatewayWake" })
    else if (effect.type === "fail") this.#end(this.#clients.of(effect.id), effect.reason)
    else if (effect.type === "ask") this.#ask(effect)
    else if (effect.type === "submit") this.#submit(effect)
    else if (effect.type === "withdraw") this.#withdraw(effect.job, effect.replica)
    else if (effect.type === "cancel") this.#giveBack(effect.job, effect.replica)
    else if (effect.type === "probe") this.#probe(effect.replica)
    else if (effect.type === "giveUp") this.#lives.giveUp(this.#hosts[effect.replica]!)
  }

  #ask({ job, id, replica }: Extract<DispatchEffect, { type: "ask" }>): void {
    const client = this.#clients.of(id)
    const host = this.#hosts[replica]!
    this.#links.toHost(host, () => {
      const progress = this.#progress(client, host)
      const takes = host.offer(this.#specOf(client), this.#nowUs, progress)
      this.#links.answer(host, () => this.#tell({ type: "offered", job, replica, takes }))
    })
  }

  #submit({ job, id, replica, resumed }: Extract<DispatchEffect, { type: "submit" }>): void {
    const client = this.#clients.opened(id, job, replica)
    const host = this.#hosts[replica]!
    const first = client.submissions === 1
    assert(resumed === client.tokens > 0, `request ${id} has ${client.tokens} tokens, resumed: ${resumed}`)
    if (resumed) this.#resumed++
    this.#links.toHost(host, () => {
      // Whatever has it besides knows already, or will when it goes on, that nothing is wanted of it.
      const elsewhere = this.#hosts.some((other) => other !== host && this.#hasOpen(other, id))
      assert(!elsewhere, `request ${id} comes to replica ${replica}, and is live at another`)
      const request = { ...client.request, spec: this.#specOf(client) }
      host.submit(job, first, request, client.tokens, this.#progress(client, host), this.#nowUs)
      this.#options.onGiven?.(id, replica, this.#nowUs)
      this.#changed(host)
    })
  }

  /** It has the request, and the gateway counts on it. */
  #hasOpen(host: SimHost, id: RequestId): boolean {
    return host.requests.some((own) => own.id === id && this.#clients.at(own.job) !== undefined)
  }

  #specOf({ request }: Client): SimRequest["spec"] {
    return request.atUs === this.#nowUs ? request.spec : { ...request.spec, arrivalUs: request.atUs }
  }

  /** What its client saw of it; undefined while that is nothing. */
  #progress({ request, steps, tokens }: Client, host: SimHost): Progress | undefined {
    if (steps.length === 0) return undefined
    const { spec, atUs, blocks } = request
    const { limits, zeroLoadPrefillUs } = host.machine!.replica
    const filled = Math.floor((spec.promptTokens + tokens) / limits.blockTokens)
    const prefix = blocks?.slice(0, filled) ?? spec.prefix
    return progressOf({ ...spec, arrivalUs: atUs }, { steps, prefix }, zeroLoadPrefillUs)
  }

  #withdraw(job: JobId, replica: number): void {
    const host = this.#hosts[replica]!
    // Where only an offer of it is given back, it is not there yet.
    const client = this.#clients.at(job)
    this.#links.toHost(host, () => {
      const ok = host.withdraw(job)
      this.#changed(host)
      this.#links.answer(host, () => {
        if (ok && client?.open === job) this.#clients.left(client)
        this.#tell({ type: "withdrawn", job, ok })
      })
    })
  }

  #giveBack(job: JobId, replica: number): void {
    const client = this.#clients.at(job)
    if (client !== undefined) this.#clients.left(client)
    const host = this.#hosts[replica]!
    this.#links.toHost(host, () => {
      host.cancel(job, this.#nowUs)
      this.#changed(host)
    })
  }

  #probe(replica: number): void {
    const host = this.#hosts[replica]!
    this.#links.toHost(host, () => {
      this.#links.answer(host, () => this.#tell({ type: "probed", replica, ok: true }))
    })
  }

  // Replicas.

  #stepOver({ host, machine, step }: Extract<Happening, { type: "step" }>): void {
    if (machine.lost) return
    if (host.frozen(this.#nowUs)) this.#push(host.frozenUntilUs, { type: "step", host, machine, step })
    else host.stepOver(step, this.#nowUs)
  }

  #woke({ host, machine }: Extract<Happening, { type: "wake" }>): void {
    if (machine.lost || machine.wakeAtUs > this.#nowUs) return
    if (host.frozen(this.#nowUs)) this.#push(host.frozenUntilUs, { type: "wake", host, machine })
    else host.woke(this.#nowUs)
  }

  #decide(host: SimHost): void {
    const { machine } = host
    if (!machine?.touched || host.frozen(this.#nowUs)) return
    const wokeUs = machine.wakeAtUs
    const { step, deadly } = host.decide(this.#nowUs)
    if (step !== null) this.#push(step.atUs, { type: "step", host, machine, step })
    if (machine.wakeAtUs !== wokeUs) this.#push(machine.wakeAtUs, { type: "wake", host, machine })
    const words = host.takeWords()
    if (words.length > 0) this.#links.toGateway(host, () => this.#hear(host, words))
    this.#changed(host)
    if (!deadly) return
    const act = () => this.#lives.dies(host, machine, "died")
    this.#push(Math.round((this.#nowUs + step!.atUs) / 2), { type: "fault", act })
  }

  /** Where digests take no time, each change is told. */
  #changed(host: SimHost): void {
    if (this.#options.digestUs === undefined) this.#digest(host)
  }

  #digest(host: SimHost): void {
    const takenAtUs = this.#nowUs
    const snapshot = host.machine!.replica.snapshot(takenAtUs)
    const { index: replica } = host
    const act = () => this.#tell({ type: "digest", replica, snapshot, takenAtUs, computes: true })
    if (this.#links.instant) act()
    else this.#links.toGateway(host, act)
  }

  #digestTick(host: SimHost): void {
    if (host.machine !== null && !host.frozen(this.#nowUs)) this.#digest(host)
    this.#push(this.#nowUs + this.#options.digestUs!, { type: "digest", host })
  }

  #hear(host: SimHost, words: readonly Word[]): void {
    for (const word of words) {
      if (word.type === "started" && !(this.#options.tellsStarts ?? true)) continue
      const client = this.#clients.at(word.job)
      if (client === undefined) continue
      if (this.#lives.nonsense.delete(host)) {
        this.#giveBack(word.job, host.index)
        this.#clients.lost(client, this.#nowUs)
        this.#tell({ type: "lost", job: word.job, reason: "broken" })
      } else this.#hearOf(client, word)
    }
  }

  #hearOf(client: Client, word: Word): void {
    const { job } = word
    if (word.type === "tokens") {
      const { from, tokens, answeringFrom } = word
      this.#clients.tokens(client, from, tokens, answeringFrom, this.#nowUs)
      this.#tell({ type: "progressed", job, choice: 0, tokens })
    } else if (word.type === "ended") {
      this.#tell({ type: "choiceEnded", job, choice: 0 })
      this.#end(client, word.failed ? "failed" : "finished")
    } else if (word.type === "lost") {
      this.#clients.lost(client, this.#nowUs)
      this.#tell(word)
    } else this.#tell(word)
  }

  /** The connection is gone, and with it what was there. */
  #lose({ index }: SimHost): void {
    for (const client of this.#clients.openAt(index)) this.#clients.lost(client, this.#nowUs)
  }

  /** Its clients are lost, and no others: the next gateway knows nothing of them. */
  #loseGateway(): void {
    for (const client of this.#clients.all.values())
      if (client.arrived && client.end === null) this.#end(client, "gatewayLost")
    this.#gateways++
    this.#dispatcher = this.#newDispatcher()
  }

  #hanging(): string {
    const live = [...this.#clients.all.values()].filter(({ end }) => end === null)
    return live
      .slice(0, 5)
      .map(({ request, tokens, openAt }) => `${request.spec.id} (${tokens} tokens, at ${openAt})`)
      .join(", ")
  }

  /** Nothing is left of what is over. */
  #finish(): void {
    assert(this.#dispatcher.live === 0, `the gateway keeps ${this.#dispatcher.live} requests that are over`)
    const { latencyUs, jitterUs, lateUs } = this.#options.network ?? PERFECT
    const untilUs = this.#nowUs + SETTLE_US + 2 * (latencyUs + jitterUs) + lateUs
    while (this.#heap.nextUs <= untilUs) {
      this.#nowUs = this.#heap.nextUs
      while (this.#heap.nextUs === this.#nowUs) this.#happen(this.#heap.pop()!)
    }
    for (const host of this.#hosts)
      if (!host.frozen(this.#nowUs))
        assert(host.live === 0, `replica ${host.index} keeps requests that are over`)
  }
}
