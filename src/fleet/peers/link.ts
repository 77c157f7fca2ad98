/** A connection to another gateway, whichever of the two made it: what is told there is told here, and what is told here there. */

import type { Duplex } from "node:stream"
import type { Hub } from "../../siblings/hub.ts"
import type { Told } from "../../siblings/messages.ts"
import { Channel } from "../../wire/channel.ts"
import { machineUs } from "../backends/shared-load.ts"
import {
  greetingOf,
  type PeerMessage,
  readPeerMessage,
  type ToldMessage,
  type WholeMessage,
} from "./messages.ts"
import type { Theirs } from "./theirs.ts"
import type { Turns } from "./turns.ts"
import { countOf, incoming, incomingWhole, joined, MOST_WHOLE_WEIGHT, weightOfAll } from "./words.ts"

export interface LinkOptions {
  socket: Duplex
  /** This gateway, as it calls itself. */
  gateway: string
  /** This end made the connection. */
  dialed: boolean
  /** For the log. */
  name: string
  /** The other gateway is on this machine. */
  sameMachine: boolean
  hub: Hub
  /** Of all connections. */
  turns: Turns
  /** Classes that there are here. */
  apps: number
  /** Between two words that it is there, ms. */
  aliveMs: number
  /** The other end has said which gateway it is. */
  onGreeted: () => void
  /** Of so many words that it told. */
  onHeard: (words: number) => void
  /** It asks for all that there is here. */
  onAgain: () => void
  /** Once. `moves`: the other end has another connection in its place. */
  onEnd: (why: string, moves: boolean) => void
}

/** Looks in a row that the other end has said nothing: it is gone. Looks, and not time: this end may have stood still. */
const MOST_MISSED = 5
/** An end that does not take so much does not keep up: it is better off without. */
const MOST_UNREAD_BYTES = 16 * 2 ** 20
/** An answer is waited for so long, and is no longer than so much text. */
const [MOST_ASKED_MS, MOST_ANSWER] = [2000, 12 * 2 ** 20]
/** It is told all that there is once in so long, however often it asks, ms. */
const AGAIN_MS = 200
/** Messages that are yet to be looked at: while there are as many no more are read, until there are a few only. */
const [MOST_WAITING, FEW_WAITING] = [256, 32]

export class Link {
  readonly name: string
  readonly dialed: boolean
  readonly sameMachine: boolean
  /** The other gateway, as it calls itself; null: it has not yet. */
  peer: string | null = null
  readonly #options: LinkOptions
  readonly #channel: Channel<PeerMessage, PeerMessage>
  /** The processes of that gateway; null: this is not the connection that they are heard on. */
  theirs: Theirs | null = null
  /** Pieces of what its processes have, and their weight. */
  readonly #pieces = new Map<number, Told[]>()
  #weight = 0
  #again: NodeJS.Timeout | null = null
  #againMs = Number.NEGATIVE_INFINITY
  /** Questions to it, by their ids. */
  readonly #open = new Map<number, (answer: unknown) => void>()
  readonly #look: NodeJS.Timeout
  #questions = 0
  /** Messages that were not looked at yet. */
  #waiting = 0
  #missed = 0
  #ended = false

  constructor(options: LinkOptions) {
    const { name, dialed, sameMachine, socket, gateway, aliveMs } = options
    this.#options = options
    this.name = name
    this.dialed = dialed
    this.sameMachine = sameMachine
    this.#channel = new Channel<PeerMessage, PeerMessage>(socket, {
      ...{ greeting: greetingOf(gateway), read: readPeerMessage, mostUnreadBytes: MOST_UNREAD_BYTES },
      onMessage: (message) => this.#handle(message),
      onEnd: (_reason, detail) => this.#end(detail),
    })
    this.#look = setInterval(() => this.#lookAt(), aliveMs)
  }

  /** Looks since it was heard last. */
  get missed(): number {
    return this.#missed
  }

  send(frame: Buffer): void {
    this.#channel.sendFrame(frame)
  }

  /** null: it has no answer, or does not answer. */
  ask(what: string, asked: unknown): Promise<unknown> {
    const id = ++this.#questions
    return new Promise((resolve) => {
      const over = (answer: unknown) => {
        clearTimeout(late)
        this.#open.delete(id)
        resolve(answer)
      }
      const late = setTimeout(() => over(null), MOST_ASKED_MS)
      this.#open.set(id, over)
      this.#channel.send({ type: "ask", id, what, asked })
    })
  }

  /** It is told why, and hung up on. `moves`: another connection takes its place. */
  refuse(why: string, moves = false): void {
    this.#channel.send({ type: "refused", why, moves })
    this.#channel.close()
    this.#end(why)
  }

  close(): void {
    this.#channel.close()
    this.#end("this gateway ends")
  }

  #lookAt(): void {
    if (++this.#missed > MOST_MISSED) {
      this.#channel.giveUp("it says nothing any more")
      return
    }
    if (this.peer !== null) this.#channel.send({ type: "alive" })
  }

  #handle(message: PeerMessage): void {
    this.#missed = 0
    if (message.type === "hello") {
      this.peer = message.gateway
      this.#options.onGreeted()
    } else if (message.type === "refused") {
      this.#channel.close()
      this.#end(`it hangs up: ${message.why}`, message.moves)
    } else if (message.type === "told") this.#soon(() => this.#told(message))
    else if (message.type === "whole") this.#soon(() => this.#whole(message))
    else if (message.type === "begins")
      this.#soon(() => this.theirs?.begin(this, message.turn, message.processes))
    else if (message.type === "left") this.#soon(() => this.theirs?.left(this, message.from))
    else if (message.type === "again") this.#soon(() => this.#tellAgain())
    else if (message.type === "said") this.#soon(() => this.#said(message.words as Told[]))
    else if (message.type === "ask") this.#soon(() => void this.#answer(message))
    else if (message.type === "answered") this.#answered(message)
  }

  #soon(work: () => void): void {
    const { socket, turns } = this.#options
    this.#waiting++
    turns.push(() => {
      this.#waiting--
      if (this.#ended) return
      try {
        work()
      } catch (error) {
        this.#channel.giveUp((error as Error).message)
        return
      }
      if (socket.isPaused() && this.#waiting < FEW_WAITING) socket.resume()
    })
    if (this.#waiting > MOST_WAITING) socket.pause()
  }

  #told({ from, clockUs, words }: ToldMessage): void {
    const told = incoming(words as Told[], machineUs() - clockUs, this.#options.apps)
    if (told.length === 0) return
    this.#options.onHeard(countOf(told))
    this.theirs?.tell(this, from, told)
  }

  #whole({ from, clockUs, words, more }: WholeMessage): void {
    const piece = incomingWhole(words as Told[], machineUs() - clockUs, this.#options.apps)
    this.#options.onHeard(countOf(piece))
    this.#weight += weightOfAll(piece)
    if (this.#weight > MOST_WHOLE_WEIGHT) throw new Error("it has more than a gateway can have")
    const pieces = [...(this.#pieces.get(from) ?? []), ...piece]
    this.#pieces.set(from, pieces)
    if (more) return
    this.#pieces.delete(from)
    this.#weight -= weightOfAll(pieces)
    this.theirs?.tell(this, from, joined(pieces), true)
  }

  /** At once, or in a while where it asks often. */
  #tellAgain(): void {
    if (this.#again !== null) return
    const inMs = Math.max(0, this.#againMs + AGAIN_MS - performance.now())
    this.#again = setTimeout(() => {
      this.#again = null
      this.#againMs = performance.now()
      this.#options.onAgain()
    }, inMs)
  }

  #said(words: readonly Told[]): void {
    try {
      for (const { topic, word } of words) this.#options.hub.saidElsewhere(topic, word)
    } catch (error) {
      throw new Error(`what it says makes no sense (${(error as Error).message.slice(0, 100)})`)
    }
    this.#options.onHeard(words.length)
  }

  #answered({ id, json }: Extract<PeerMessage, { type: "answered" }>): void {
    try {
      this.#open.get(id)?.(json === null ? null : JSON.parse(json))
    } catch {
      this.#channel.giveUp("what it answers is no JSON")
    }
  }

  async #answer({ id, what, asked }: Extract<PeerMessage, { type: "ask" }>): Promise<void> {
    let json: string | null = null
    try {
      // As its clients will have it: MessagePack knows nothing that is left out.
      const answer = await this.#options.hub.answerElsewhere(what, asked)
      json = answer === null ? null : JSON.stringify(answer)
    } catch {
      // What it cannot be told it does without, as if it were not here.
    }
    if (json !== null && json.length > MOST_ANSWER) json = null
    if (!this.#ended) this.#channel.send({ type: "answered", id, json })
  }

  #end(why: string, moves = false): void {
    if (this.#ended) return
    this.#ended = true
    clearInterval(this.#look)
    if (this.#again !== null) clearTimeout(this.#again)
    for (const over of [...this.#open.values()]) over(null)
    this.#options.onEnd(why, moves)
  }
}
