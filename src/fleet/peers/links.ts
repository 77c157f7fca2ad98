/** Connections to other gateways, one to each: what the processes here tell goes out on all of them, and what comes in on each is
 * heard here. */
import { randomBytes } from "node:crypto"
import type { Duplex } from "node:stream"
import { deserialize } from "node:v8"
import type { Elsewhere, Hub } from "../../siblings/hub.ts"
import type { Told, ToldBytes } from "../../siblings/messages.ts"
import { encodeFrame } from "../../wire/frames.ts"
import { machineUs } from "../backends/shared-load.ts"
import { Link } from "./link.ts"
import type { PeerMessage } from "./messages.ts"
import { Numbers } from "./numbers.ts"
import { Theirs } from "./theirs.ts"
import { Turns } from "./turns.ts"
import { countOf, outgoing, outgoingWhole } from "./words.ts"

export interface LinksOptions {
  /** Of the processes here. */
  hub: Hub
  /** Most processes here: numbers of others' begin there. */
  processes: number
  /** Classes that there are here. */
  apps: number
  log: (message: string, level: "warn" | "info") => void
  aliveMs?: number
  /** As this gateway calls itself. Default: drawn anew at each start. */
  gateway?: string
  /** That gateway is gone: what did not connect to it, for it had a connection, may do so. */
  onGone?: (gateway: string) => void
}

/** What was told and heard. */
export interface PeerCounts {
  connected: number
  toldWords: number
  heardWords: number
  messages: number
}

/** What made a connection, and makes it again. */
export interface Dialing {
  /** The gateway that is there has a connection already, or is this one. */
  standsFor: string | null
  up(): void
  later(why: string): void
}

interface Connection {
  name: string
  sameMachine: boolean
  /** null: the other end made it. */
  dial: Dialing | null
}

const ALIVE_MS = 1000
/** A connection that was not heard in so many looks may be dead: a new one of the same gateway takes its place. */
const STALE_LOOKS = 2
/** A gateway that hangs up for another connection is heard on that one by then, ms. */
const MOVED_MS = 5000
/** What is said within so long goes in one message, ms, and of how much at most. */
const [SAY_MS, MOST_SAID] = [4, 512]

export class Links implements Elsewhere {
  readonly #options: LinksOptions
  readonly #gateway: string
  readonly #numbers: Numbers
  readonly #turns = new Turns()
  /** One for each gateway. */
  readonly #links = new Map<string, Link>()
  /** Those that have not greeted included. */
  readonly #all = new Set<Link>()
  readonly #theirs = new Map<string, Theirs>()
  /** Gateways that hung up for another connection, which is yet to be seen. */
  readonly #moving = new Map<string, NodeJS.Timeout>()
  /** As the processes here are called elsewhere: one that comes in another's place is another. */
  readonly #names = new Map<number, number>()
  #named = 0
  /** How often all was told from its beginning. */
  #begun = 0
  readonly #counts = { toldWords: 0, heardWords: 0, messages: 0 }
  #saying: Told[] = []

  constructor(options: LinksOptions) {
    this.#options = options
    this.#gateway = options.gateway ?? randomBytes(16).toString("hex")
    this.#numbers = new Numbers(options.processes)
  }

  get counts(): PeerCounts {
    return { connected: this.#links.size, ...this.#counts }
  }

  /** Gateways that are connected. */
  get gateways(): string[] {
    return [...this.#links.keys()]
  }

  connected(socket: Duplex, { name, sameMachine, dial }: Connection): void {
    const { hub, apps, aliveMs = ALIVE_MS } = this.#options
    const link: Link = new Link({
      ...{ socket, name, hub, apps, aliveMs, dialed: dial !== null, gateway: this.#gateway },
      ...{ turns: this.#turns, sameMachine },
      onGreeted: () => this.#greeted(link, dial),
      onHeard: (words) => {
        this.#counts.heardWords += words
      },
      onAgain: () => this.#begin(link),
      onEnd: (why, moves) => this.#ended(link, dial, why, moves),
    })
    this.#all.add(link)
  }

  close(): void {
    for (const link of [...this.#all]) link.close()
    for (const peer of [...this.#moving.keys()]) this.#gone(peer)
  }

  told(from: number, bytes: ToldBytes): void {
    if (this.#links.size === 0) return
    const told = deserialize(bytes) as Told[]
    for (const sameMachine of [false, true]) {
      const links = [...this.#links.values()].filter((link) => link.sameMachine === sameMachine)
      if (links.length === 0) continue
      for (const words of outgoing(told, sameMachine)) {
        this.#counts.toldWords += countOf(words)
        this.#send(links, { type: "told", from: this.#nameOf(from), clockUs: machineUs(), words })
      }
    }
  }

  left(from: number): void {
    const name = this.#names.get(from)
    if (name === undefined) return
    this.#names.delete(from)
    this.#send([...this.#links.values()], { type: "left", from: name })
  }

  again(): void {
    this.#send([...this.#links.values()], { type: "again" })
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

  /** All that is told goes there from now on, on top of what there is. */
  #begin(link: Link): void {
    const { hub } = this.#options
    // What is yet to be said is in what is said first.
    this.#say()
    this.#sayTo([link], hub.firstWords)
    const processes = hub.serving.map((index) => this.#nameOf(index))
    this.#send([link], { type: "begins", turn: ++this.#begun, processes })
    hub.wholes((from, bytes) => this.#tellWhole(link, from, deserialize(bytes) as Told[]))
  }

  #tellWhole(link: Link, index: number, told: readonly Told[]): void {
    if (!this.#all.has(link)) return
    const [from, clockUs] = [this.#nameOf(index), machineUs()]
    const pieces = outgoingWhole(told, link.sameMachine)
    for (const [i, words] of pieces.entries()) {
      this.#counts.toldWords += countOf(words)
      this.#send([link], { type: "whole", from, clockUs, words, more: i < pieces.length - 1 })
    }
  }

  #nameOf(index: number): number {
    const known = this.#names.get(index)
    if (known !== undefined) return known
    this.#names.set(index, this.#named)
    return this.#named++
  }

  #theirsOf(peer: string): Theirs {
    const known = this.#theirs.get(peer)
    if (known !== undefined) return known
    const theirs = new Theirs(this.#options.hub, this.#numbers)
    this.#theirs.set(peer, theirs)
    return theirs
  }

  /** Both ends decide alike which of two connections stays. */
  #greeted(link: Link, dial: Dialing | null): void {
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
    if (!this.#theirs.has(peer)) this.#options.log(`peer ${link.name} is connected`, "info")
    clearTimeout(this.#moving.get(peer))
    this.#moving.delete(peer)
    this.#links.set(peer, link)
    link.theirs = this.#theirsOf(peer)
    this.#begin(link)
    other?.refuse("another connection takes its place", true)
  }

  #isBetter(link: Link, other: Link): boolean {
    const dialer = ({ dialed, peer }: Link) => (dialed ? this.#gateway : peer!)
    if (dialer(link) !== dialer(other)) return dialer(link) < dialer(other)
    return !link.dialed && other.missed >= STALE_LOOKS
  }

  /** `moves`: the other end has another connection in its place, of which nothing may be known here yet. */
  #ended(link: Link, dial: Dialing | null, why: string, moves: boolean): void {
    this.#all.delete(link)
    const { peer } = link
    if (peer !== null && this.#links.get(peer) !== link)
      link.theirs?.ended(link, this.#links.get(peer) ?? null)
    else if (peer !== null) {
      this.#links.delete(peer)
      const over = () => this.#gone(peer, `peer ${link.name} is gone (${why}): what it had is forgotten`)
      if (moves) this.#moving.set(peer, setTimeout(over, MOVED_MS).unref())
      else over()
    }
    if (dial === null) return
    const isKnown = peer !== null && (this.#links.has(peer) || this.#moving.has(peer))
    if (isKnown || peer === this.#gateway) dial.standsFor = peer
    else dial.later(why)
  }

  #gone(peer: string, message?: string): void {
    clearTimeout(this.#moving.get(peer))
    this.#moving.delete(peer)
    this.#theirs.get(peer)?.gone()
    this.#theirs.delete(peer)
    if (message !== undefined) this.#options.log(message, "warn")
    this.#options.onGone?.(peer)
  }

  #say(): void {
    const words = this.#saying
    this.#saying = []
    this.#sayTo([...this.#links.values()], words)
  }

  #sayTo(links: readonly Link[], words: readonly Told[]): void {
    this.#counts.toldWords += words.length
    for (let at = 0; at < words.length; at += MOST_SAID)
      this.#send(links, { type: "said", words: words.slice(at, at + MOST_SAID) })
  }

  #send(links: readonly Link[], message: PeerMessage): void {
    if (links.length === 0) return
    const frame = encodeFrame(message)
    this.#counts.messages += links.length
    for (const link of links) link.send(frame)
  }
}
