/** Lives and deaths of the replicas behind a simulated gateway: connections that break, processes that die, freeze and are
 * started again, as faults have it. */
import type { DispatchEvent, DownCause } from "../router/dispatch.ts"
import { type RestartOptions, Restarts } from "../router/health.ts"
import type { GatewayFault } from "./gateway-faults.ts"
import type { SimHost } from "./host.ts"
import type { Links } from "./links.ts"
import type { Machine } from "./machine.ts"

export interface LivesOptions {
  faults?: readonly GatewayFault[]
  /** A replica that the gateway gives up lives on, and only the connection ends: it is on another machine. */
  remote?: boolean
  /** From its start until a replica takes requests, µs; and the chance that a start fails. */
  startUs?: number
  startFails?: number
  /** The gateway is told when a replica that died is to be back: as it will be, or wrongly. Default: it is not told. */
  foresees?: "rightly" | "wrongly"
  restarts?: RestartOptions
}

/** What they happen to. */
export interface Stage {
  now: () => number
  at: (atUs: number, act: () => void) => void
  tell: (event: DispatchEvent) => void
  /** Whatever was there is lost to the gateway. */
  lose: (host: SimHost) => void
  linked: (host: SimHost) => void
  loseGateway: () => void
}

/** A lost connection is tried again after this. */
const RECONNECT_US = 1_000_000

export class Lives {
  readonly #options: LivesOptions
  readonly #hosts: readonly SimHost[]
  readonly #links: Links
  readonly #stage: Stage
  readonly #restarts: Restarts[]
  readonly #draining = new Set<SimHost>()
  /** Those whose next word is nonsense. */
  readonly nonsense = new Set<SimHost>()
  deaths = 0
  /** Faults that struck something. */
  faults = 0

  constructor(options: LivesOptions, hosts: readonly SimHost[], links: Links, stage: Stage) {
    this.#options = options
    this.#hosts = hosts
    this.#links = links
    this.#stage = stage
    this.#restarts = hosts.map(() => new Restarts(options.restarts))
  }

  begin(): void {
    for (const host of this.#hosts) this.#start(host)
    for (const fault of this.#options.faults ?? []) {
      if (fault.kind !== "slowSteps" && fault.kind !== "poison")
        this.#stage.at(fault.atUs, () => this.#strike(fault))
      else this.faults++
    }
  }

  dies(host: SimHost, machine: Machine | null, cause: DownCause): void {
    if (machine === null || host.machine !== machine) return
    this.deaths++
    this.#unlink(host)
    host.die()
    this.#stage.tell({ type: "replicaDown", replica: host.index, cause })
    this.#restart(host)
  }

  /** Killed, where that is in the gateway's power; else only the connection ends. */
  giveUp(host: SimHost): void {
    if (!this.#options.remote) this.dies(host, host.machine, "died")
    else {
      this.#unlink(host)
      this.#relinkAt(host, this.#stage.now() + RECONNECT_US)
    }
  }

  #start(host: SimHost): void {
    host.start()
    this.#restarts[host.index]!.up(this.#stage.now())
    this.#relink(host)
  }

  #restart(host: SimHost): void {
    const { startUs = 0, startFails = 0 } = this.#options
    const atUs = this.#restarts[host.index]!.died(this.#stage.now(), this.#links.draw()) + startUs
    this.#foresee(host, atUs)
    this.#stage.at(atUs, () => {
      if (this.#links.draw() < startFails) this.#restart(host)
      else this.#start(host)
    })
  }

  #foresee({ index: replica }: SimHost, atUs: number): void {
    const { foresees, startUs = 0 } = this.#options
    if (foresees === undefined) return
    const wronglyUs = this.deaths % 2 === 0 ? Infinity : atUs - Math.ceil(startUs / 2)
    this.#stage.tell({ type: "expected", replica, byUs: foresees === "rightly" ? atUs : wronglyUs })
  }

  #relinkAt(host: SimHost, atUs: number): void {
    this.#stage.at(atUs, () => this.#relink(host))
  }

  #relink(host: SimHost): void {
    const nowUs = this.#stage.now()
    if (this.#links.isUp(host) || host.machine === null) return
    if (host.frozen(nowUs)) {
      this.#relinkAt(host, host.frozenUntilUs)
      return
    }
    host.disconnected(nowUs)
    this.#links.up(host)
    this.#stage.tell({ type: "replicaUp", replica: host.index })
    if (this.#draining.has(host)) this.#stage.tell({ type: "replicaDraining", replica: host.index })
    this.#stage.linked(host)
  }

  /** Both ends know; a frozen one when it goes on. What was on the way is gone. */
  #unlink(host: SimHost): void {
    this.#links.down(host)
    this.#stage.lose(host)
    const nowUs = this.#stage.now()
    if (host.machine !== null && !host.frozen(nowUs)) host.disconnected(nowUs)
  }

  /** Nothing happens where there is nothing to strike. */
  #strike(fault: Exclude<GatewayFault, { kind: "slowSteps" | "poison" }>): void {
    const host = fault.kind === "gatewayLoss" ? null : this.#hosts[fault.replica]!
    if (host?.machine === null) return
    this.faults++
    if (fault.kind === "gatewayLoss") this.#gatewayLoss()
    else if (fault.kind === "death") this.dies(host!, host!.machine, "died")
    else if (fault.kind === "nonsense") this.nonsense.add(host!)
    else if (fault.kind === "drain") this.#drain(host!, fault.forUs)
    else if (fault.kind === "cut") this.#cut(host!, fault.forUs)
    else this.#freeze(host!, fault.forUs)
  }

  #freeze(host: SimHost, forUs: number): void {
    host.frozenUntilUs = Math.max(host.frozenUntilUs, this.#stage.now() + forUs)
    // It goes on with what it was about.
    this.#stage.at(host.frozenUntilUs, () => {})
  }

  #drain(host: SimHost, forUs: number): void {
    this.#draining.add(host)
    this.#stage.tell({ type: "replicaDraining", replica: host.index })
    this.#stage.at(this.#stage.now() + forUs, () => {
      this.#draining.delete(host)
      this.#cut(host, 0)
    })
  }

  #cut(host: SimHost, forUs: number): void {
    if (!this.#links.isUp(host)) return
    this.#unlink(host)
    this.#stage.tell({ type: "replicaDown", replica: host.index, cause: "died" })
    this.#relinkAt(host, this.#stage.now() + forUs)
  }

  #gatewayLoss(): void {
    for (const host of this.#hosts) if (this.#links.isUp(host)) this.#unlink(host)
    this.#stage.loseGateway()
    for (const host of this.#hosts) this.#relinkAt(host, this.#stage.now() + 1)
  }
}
