/** Other gateways before the same engines, on other machines: what the processes of each tell each other all of them hear, without a
 * store that they share. There is one connection between two gateways, whichever made it. */
import { once } from "node:events"
import type { Server, TLSSocket } from "node:tls"
import type { PeerAddress } from "../../config/peers.ts"
import type { Lookup } from "../backends/addresses.ts"
import { PeerAddresses } from "./addresses.ts"
import { Dial } from "./dial.ts"
import { Links, type LinksOptions, type PeerCounts } from "./links.ts"
import { isSameMachine, peerKey, serverFor } from "./secure.ts"

export interface PeersOptions extends Omit<LinksOptions, "gateway" | "onGone"> {
  peers: readonly PeerAddress[]
  /** A file with more of them. */
  file?: string | undefined
  /** Where others connect to. */
  listen: { host: string; port: number }
  /** What all of them have in common. */
  secret: string
  refreshMs?: number
  lookup?: Lookup
}

const REFRESH_MS = 5000
/** Strangers are warned of once in so long, ms. */
const STRANGERS_MS = 60_000

export class Peers {
  readonly #options: PeersOptions
  readonly links: Links
  readonly #dials = new Map<string, Dial>()
  #server: Server | null = null
  #addresses: PeerAddresses | null = null
  #strangersMs = Number.NEGATIVE_INFINITY

  private constructor(options: PeersOptions) {
    this.#options = options
    const onGone = (gateway: string) => {
      for (const dial of this.#dials.values()) if (dial.standsFor === gateway) dial.again()
    }
    this.links = new Links({ ...options, onGone })
  }

  /** Rejects where its port cannot be listened on, or with UserError for a file that cannot be meant. Gateways that are not there are no
   * error. */
  static async open(options: PeersOptions): Promise<Peers> {
    const peers = new Peers(options)
    try {
      await peers.#open()
    } catch (error) {
      peers.close()
      throw error
    }
    return peers
  }

  get port(): number {
    return (this.#server!.address() as { port: number }).port
  }

  get counts(): PeerCounts {
    return this.links.counts
  }

  close(): void {
    this.#options.hub.elsewhere = null
    this.#addresses?.close()
    for (const dial of this.#dials.values()) dial.close()
    this.#dials.clear()
    this.links.close()
    this.#server?.close()
  }

  async #open(): Promise<void> {
    const { listen, secret, hub, peers, file, lookup, refreshMs = REFRESH_MS, log } = this.#options
    const key = peerKey(secret)
    this.#server = serverFor(
      key,
      (socket) => this.#connected(socket, socket.remoteAddress ?? "a peer that is gone", null),
      (address, why) => this.#stranger(address, why),
    )
    this.#server.listen(listen)
    await once(this.#server, "listening")
    hub.elsewhere = this.links
    this.#addresses = await PeerAddresses.open({
      ...{ peers, file, lookup, refreshMs },
      warn: (message) => log(message, "warn"),
      onChange: (addresses) => this.#dial(addresses, key),
    })
  }

  #dial(addresses: readonly PeerAddress[], key: ReturnType<typeof peerKey>): void {
    const wanted = new Map(addresses.map((address) => [`${address.host} ${address.port}`, address]))
    for (const [name, dial] of this.#dials) {
      if (wanted.has(name)) continue
      dial.close()
      this.#dials.delete(name)
    }
    for (const [name, address] of wanted) {
      if (this.#dials.has(name)) continue
      const dial: Dial = new Dial({
        ...{ address, key },
        onSocket: (socket, name) => this.#connected(socket, name, dial),
        warn: (message) => this.#options.log(message, "warn"),
      })
      this.#dials.set(name, dial)
    }
  }

  #connected(socket: TLSSocket, name: string, dial: Dial | null): void {
    this.links.connected(socket, { name, dial, sameMachine: isSameMachine(socket) })
  }

  #stranger(address: string, why: string): void {
    const nowMs = performance.now()
    if (nowMs - this.#strangersMs < STRANGERS_MS) return
    this.#strangersMs = nowMs
    this.#options.log(
      `${address} is no peer: it has another secret, or speaks something else (${why})`,
      "warn",
    )
  }
}
