/** Other gateways before the same engines, on other machines: what the processes of each tell each other all of them hear, without a
 * store that they share. There is one connection between two gateways, whichever made it. */
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import type { Server, TLSSocket } from "node:tls"
import { deserialize } from "node:v8"
import type { PeerAddress } from "../../config/peers.ts"
import type { Elsewhere, Hub } from "../../siblings/hub.ts"
import type { Told, ToldBytes } from "../../siblings/messages.ts"
import { encodeFrame } from "../../wire/frames.ts"
import type { Lookup } from "../backends/addresses.ts"
import { machineUs } from "../backends/shared-load.ts"
import { PeerAddresses } from "./addresses.ts"
import { Dial } from "./dial.ts"
import { Link } from "./link.ts"
import type { PeerMessage } from "./messages.ts"
import { Numbers } from "./numbers.ts"
import { isSameMachine, peerKey, serverFor } from "./secure.ts"
import { Turns } from "./turns.ts"
import { outgoing } from "./words.ts"

export interface PeersOptions {
  peers: readonly PeerAddress[]
  /** A file with more of them. */
  file?: string | undefined
  /** Where others connect to. */
  listen: { host: string; port: number }
  /** What all of them have in common. */
  secret: string
  /** Of the processes here. */
  hub: Hub
  /** Most processes here: numbers of others' begin there. */
  processes: number
  /** Classes that there are here. */
  apps: number
  log: (message: string, level: "warn" | "info") => void
  aliveMs?: number
  refreshMs?: number
  lookup?: Lookup
}

/** What was told and heard. */
export interface PeerCounts {
  connected: number
  toldWords: number
  heardWords: number
  messages: number
}

const [ALIVE_MS, REFRESH_MS] = [1000, 5000]
/** A connection that was not heard in so many looks may be dead: a new one of the same gateway takes its place. */
const STALE_LOOKS = 2
/** What is said within so long goes in one message, ms, and of how much at most. */
const [SAY_MS, MOST_SAID] = [4, 512]
/** Strangers are warned of once in so long, ms. */
const STRANGERS_MS = 60_000

export class Peers implements Elsewhere {
  readonly #options: PeersOptions
  /** As this gateway calls itself, drawn anew at each start. */
  readonly #gateway = randomBytes(16).toString("hex")
  readonly #numbers: Numbers
  readonly #turns = new Turns()
  /** One for each gateway. */
  readonly #links = new Map<string, Link>()
  /** Those that have not greeted included. */
  readonly #all = new Set<Link>()
  readonly #dials = new Map<string, Dial>()
  readonly #counts = { toldWords: 0, heardWords: 0, messages: 0 }
  #saying: Told[] = []
  #server: Server | null = null
  #addresses: PeerAddresses | null = null
  #strangersMs = Number.NEGATIVE_INFINITY

  private constructor(options: PeersOptions) {
    this.#options = options
    this.#numbers = new Numbers(options.processes)
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
    return { connected: this.#links.size, ...this.#counts }
  }

  told(from: number, bytes: ToldBytes): void {
    if (this.#links.size === 0) return
    const told = deserialize(bytes) as Told[]
    for (const sameMachine of [false, true]) {
      const links = [...this.#links.values()].filter((link) => link.sameMachine === sameMachine)
      if (links.length === 0) continue
      for (const words of outgoing(told, sameMachine)) {
        this.#counts.toldWords += words.reduce((sum, { word }) => sum + (word as unknown[]).length, 0)
        this.#send(links, { type: "told", from, clockUs: machineUs(), words })
      }
    }
  }

  left(from: number): void {
    this.#send([...this.#links.values()], { type: "left", from })
  }

  say(topic: string, word: unknown): void {
    if (this.#links.size === 0) return
    if (this.#saying.length === 0) setTimeout(() => this.#say(), SAY_MS)
    this.#saying.push({ topic, word })
  }

  async ask(what: string, asked: unknown): Promise<unknown[]> {
    this.#counts.messages += this.#links.size
    const answers = await Promise.all([...this.#links.values()].map((link) => link.ask(what, asked)))
    return answers.filter((answer) => answer !== null)
  }

  close(): void {
    this.#options.hub.elsewhere = null
    this.#addresses?.close()
    for (const dial of this.#dials.values()) dial.close()
    this.#dials.clear()
    for (const link of [...this.#all]) link.close()
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
    hub.elsewhere = this
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
    const { hub, apps, aliveMs = ALIVE_MS } = this.#options
    const link: Link = new Link({
      ...{ socket, name, hub, apps, aliveMs, dialed: dial !== null, gateway: this.#gateway },
      ...{ numbers: this.#numbers, turns: this.#turns, sameMachine: isSameMachine(socket) },
      onGreeted: () => this.#greeted(link, dial),
      onHeard: (words) => {
        this.#counts.heardWords += words
      },
      onEnd: (why) => this.#ended(link, dial, why),
    })
    this.#all.add(link)
  }

  /** Both ends decide alike which of two connections stays. */
  #greeted(link: Link, dial: Dial | null): void {
    const peer = link.peer!
    dial?.up()
    if (peer === this.#gateway) {
      link.refuse("it is this gateway itself")
      return
    }
    const other = this.#links.get(peer)
    if (other !== undefined && !this.#isBetter(link, other)) {
      link.refuse("it is connected already")
      return
    }
    this.#links.set(peer, link)
    if (other === undefined) this.#options.log(`peer ${link.name} is connected`, "info")
    else other.refuse("another connection takes its place")
  }

  #isBetter(link: Link, other: Link): boolean {
    const dialer = ({ dialed, peer }: Link) => (dialed ? this.#gateway : peer!)
    if (dialer(link) !== dialer(other)) return dialer(link) < dialer(other)
    return !link.dialed && other.missed >= STALE_LOOKS
  }

  #ended(link: Link, dial: Dial | null, why: string): void {
    this.#all.delete(link)
    const { peer } = link
    const isOwn = peer !== null && this.#links.get(peer) === link
    if (isOwn) {
      this.#links.delete(peer)
      this.#options.log(`peer ${link.name} is gone (${why}): what it had is forgotten`, "warn")
      for (const other of this.#dials.values()) if (other.standsFor === peer) other.again()
    }
    if (dial === null) return
    if (peer !== null && (peer === this.#gateway || this.#links.has(peer))) dial.standsFor = peer
    else dial.later(why)
  }

  #say(): void {
    const words = this.#saying
    this.#saying = []
    this.#counts.toldWords += words.length
    for (let at = 0; at < words.length; at += MOST_SAID)
      this.#send([...this.#links.values()], { type: "said", words: words.slice(at, at + MOST_SAID) })
  }

  #send(links: readonly Link[], message: PeerMessage): void {
    if (links.length === 0) return
    const frame = encodeFrame(message)
    this.#counts.messages += links.length
    for (const link of links) link.send(frame)
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
