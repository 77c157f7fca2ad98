/** The connections between a simulated gateway and its replicas: messages take time, in order; answers may get lost, come
 * late or twice; what is on the way when a connection breaks never arrives. */
import { chance } from "./chance.ts"
import type { Network } from "./gateway-faults.ts"
import type { SimHost } from "./host.ts"

interface Link {
  epoch: number
  up: boolean
  /** When the last message arrives, each way. */
  toHostUs: number
  toGatewayUs: number
}

const NETWORK_STREAM = 0x6e657477

export class Links {
  readonly #network: Network
  readonly #seed: number
  readonly #links: Link[]
  readonly #now: () => number
  readonly #later: (atUs: number, act: () => void) => void
  #draws = 0

  constructor(
    network: Network,
    seed: number,
    count: number,
    now: () => number,
    later: (atUs: number, act: () => void) => void,
  ) {
    this.#network = network
    this.#seed = seed
    this.#links = Array.from({ length: count }, () => ({ epoch: 0, up: false, toHostUs: 0, toGatewayUs: 0 }))
    this.#now = now
    this.#later = later
  }

  /** Messages take no time. */
  get instant(): boolean {
    return this.#network.latencyUs + this.#network.jitterUs === 0
  }
  isUp({ index }: SimHost): boolean {
    return this.#links[index]!.up
  }
  up({ index }: SimHost): void {
    const link = this.#links[index]!
    link.up = true
    link.epoch++
  }
  down({ index }: SimHost): void {
    const link = this.#links[index]!
    link.up = false
    link.epoch++
  }

  /** Uniform in [0, 1), the next one of this run. */
  draw(): number {
    return chance(this.#seed ^ NETWORK_STREAM, this.#draws++, 0)
  }

  /** Carried out there; by a frozen replica when it goes on. */
  toHost(host: SimHost, act: () => void): void {
    const link = this.#links[host.index]!
    if (!link.up) return
    const { epoch } = link
    const arrived = () => {
      if (link.epoch !== epoch || host.machine === null) return
      if (host.frozen(this.#now())) this.#later(host.frozenUntilUs, arrived)
      else act()
    }
    link.toHostUs = Math.max(link.toHostUs, this.#now() + this.#delayUs())
    if (this.instant && !host.frozen(this.#now())) arrived()
    else this.#later(link.toHostUs, arrived)
  }

  /** By itself. */
  toGateway({ index }: SimHost, act: () => void): void {
    const link = this.#links[index]!
    if (!link.up) return
    link.toGatewayUs = Math.max(link.toGatewayUs, this.#now() + this.#delayUs())
    this.#later(link.toGatewayUs, this.#unlessBroken(link, act))
  }

  /** To a question. */
  answer(host: SimHost, act: () => void): void {
    if (this.instant) {
      act()
      return
    }
    const { lost, twice, late, lateUs } = this.#network
    if (this.draw() < lost) return
    const link = this.#links[host.index]!
    if (this.draw() < late) this.#later(this.#now() + lateUs, this.#unlessBroken(link, act))
    else this.toGateway(host, act)
    if (this.draw() < twice) this.toGateway(host, act)
  }

  #unlessBroken(link: Link, act: () => void): () => void {
    const { epoch } = link
    return () => {
      if (link.epoch === epoch) act()
    }
  }

  #delayUs(): number {
    const { latencyUs, jitterUs } = this.#network
    return latencyUs + (jitterUs > 0 ? Math.floor(this.draw() * jitterUs) : 0)
  }
}
