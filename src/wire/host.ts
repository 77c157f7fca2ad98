/** A replica at the other end of a byte stream, behind the port that all replicas have. Once the stream ends, or says
 * nothing for too long, all that it had is lost; a new stream is a new `WireHost`. */
import type { Duplex } from "node:stream"
import {
  DECLINED,
  type Digest,
  type HostInfo,
  type Job,
  type JobId,
  type JobLost,
  type JobSink,
  type Offer,
  type ReplicaHost,
  refuse,
} from "../replica/host.ts"
import { WatchedHost } from "../replica/watched-host.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { Channel } from "./channel.ts"
import { eachDelta } from "./deltas.ts"
import { endFromWire, observedFromWire, readToGateway, type ToGateway, type ToReplica } from "./messages.ts"

export interface WireHostOptions {
  name: string
  /** A replica that says nothing for so long is lost, ms. It says how it is many times in this time. */
  silenceMs?: number
}

const SILENCE_MS = 3_000
const CHECKS_PER_SILENCE = 4

interface Submitted {
  sink: JobSink
  /** Choices that have not ended. */
  live: Set<number>
  /** Of a choice, the text that comes with its end: without that, another replica would say it again. */
  rest: Map<number, AnswerDelta>
}

export class WireHost extends WatchedHost implements ReplicaHost {
  readonly #channel: Channel<ToReplica, ToGateway>
  readonly #submitted = new Map<JobId, Submitted>()
  readonly #offers = new Map<JobId, (offer: Offer) => void>()
  readonly #withdrawals = new Map<JobId, (gone: boolean) => void>()
  readonly #silence: NodeJS.Timeout
  #digest: { digest: Digest; heardMs: number } | null = null
  #onDrained: (() => void)[] = []
  #draining = false
  #closing = false
  #listenedMs = performance.now()

  constructor(stream: Duplex, { name, silenceMs = SILENCE_MS }: WireHostOptions) {
    super(name, "it is being reached")
    this.#channel = new Channel<ToReplica, ToGateway>(stream, {
      read: readToGateway,
      onMessage: (message) => this.#handle(message),
      onEnd: (reason, detail) => this.#lost(reason, detail),
    })
    this.#silence = setInterval(() => this.#listen(silenceMs), silenceMs / CHECKS_PER_SILENCE)
    this.#silence.unref()
  }

  offer(job: Job, deadlineMs: number): Promise<Offer> {
    if (this.state !== "ready") return Promise.resolve(DECLINED)
    return new Promise((resolve) => {
      const timer = setTimeout(() => answer(DECLINED), deadlineMs)
      const answer = (offer: Offer) => {
        clearTimeout(timer)
        this.#offers.delete(job.id)
        resolve(offer)
      }
      this.#offers.set(job.id, answer)
      this.#channel.send({ type: "offer", job, deadlineMs } as unknown as ToReplica)
    })
  }

  submit(job: Job, sink: JobSink): void {
    if (this.#over || this.#draining) {
      refuse(job, sink, this.detail)
      return
    }
    const live = new Set(job.choices.map(({ index }) => index))
    this.#submitted.set(job.id, { sink, live, rest: new Map() })
    this.#channel.send({ type: "submit", job } as unknown as ToReplica)
  }

  cancel(id: JobId): void {
    this.#channel.send({ type: "cancel", id })
  }

  withdraw(id: JobId): Promise<boolean> {
    if (this.#over) return Promise.resolve(false)
    return new Promise((resolve) => {
      this.#withdrawals.set(id, resolve)
      this.#channel.send({ type: "withdraw", id })
    })
  }

  digest(): Digest | null {
    if (this.#digest === null) return null
    const { digest, heardMs } = this.#digest
    return { ...digest, ageUs: digest.ageUs + (performance.now() - heardMs) * 1000 }
  }

  /** Others may use the replica as well: it is this end that sends nothing new. */
  drain(): Promise<void> {
    if (this.#over) return Promise.resolve()
    this.#draining = true
    this.become("draining", "it is shutting down")
    return new Promise((resolve) => {
      this.#onDrained.push(resolve)
      this.#checkDrained()
    })
  }

  async close(): Promise<void> {
    if (this.#over) return
    this.#closing = true
    const closed = new Promise<void>((resolve) => {
      this.onState(() => this.#over && resolve())
    })
    this.#channel.send({ type: "close" })
    await closed
  }

  giveUp(detail: string): void {
    this.#channel.giveUp(detail)
  }

  get #over(): boolean {
    return this.state === "down" || this.state === "closed"
  }

  #handle(message: ToGateway): void {
    if (message.type === "deltas") eachDelta(message, this.#tokens)
    else if (message.type === "observed") this.observed(observedFromWire(message))
    else if (message.type === "tokens")
      this.#tokens(message.id, message.choice, message.tokens, message.delta as AnswerDelta | null)
    else if (message.type === "digest") {
      const { type: _, ...digest } = message
      this.#digest = { digest, heardMs: performance.now() }
    } else if (message.type === "end") this.#end(message)
    else if (message.type === "offered") {
      const { takes, promptTokens } = message
      this.#offers.get(message.id)?.({ takes, promptTokens })
    } else if (message.type === "started") this.#started(message)
    else if (message.type === "turnedDown") this.#submitted.get(message.id)?.sink.turnedDown?.(message.choice)
    else if (message.type === "withdrawn") this.#withdrawn(message.id, message.gone)
    else if (message.type === "info") this.serves(message.info as HostInfo)
    else if (message.type === "state") this.#told(message)
  }

  #started({ id, choice, start }: Extract<ToGateway, { type: "started" }>): void {
    const submitted = this.#submitted.get(id)
    if (submitted?.live.has(choice)) submitted.sink.started?.(choice, start)
  }

  readonly #tokens = (id: JobId, choice: number, tokens: number[], delta: AnswerDelta | null): void => {
    const submitted = this.#submitted.get(id)
    // Late words of a job that was withdrawn or has ended.
    if (!submitted?.live.has(choice)) return
    if (tokens.length === 0 && delta !== null) submitted.rest.set(choice, delta)
    else submitted.sink.tokens(choice, tokens, delta)
  }

  #end({ id, choice, end }: Extract<ToGateway, { type: "end" }>): void {
    const submitted = this.#submitted.get(id)
    if (submitted?.live.delete(choice) !== true) return
    if (submitted.live.size === 0) this.#submitted.delete(id)
    const rest = submitted.rest.get(choice)
    if (rest !== undefined) submitted.sink.tokens(choice, [], rest)
    submitted.sink.end(choice, endFromWire(end))
    this.#checkDrained()
  }

  #withdrawn(id: JobId, gone: boolean): void {
    if (gone) this.#submitted.delete(id)
    this.#withdrawals.get(id)?.(gone)
    this.#withdrawals.delete(id)
    this.#checkDrained()
  }

  #told({ state, detail }: Extract<ToGateway, { type: "state" }>): void {
    if (state === "closed") this.#closing = true
    // What this end drains stays so.
    else if (!(this.#draining && state === "ready")) this.become(state, detail)
  }

  #checkDrained(): void {
    if (this.#draining && this.#submitted.size === 0)
      for (const resolve of this.#onDrained.splice(0)) resolve()
  }

  #listen(silenceMs: number): void {
    const nowMs = performance.now()
    const sinceMs = nowMs - this.#listenedMs
    this.#listenedMs = nowMs
    // It was this process that stood still: what was said meanwhile is yet to be read.
    if (sinceMs > (2 * silenceMs) / CHECKS_PER_SILENCE) return
    const silentMs = nowMs - this.#channel.heardMs
    if (silentMs > silenceMs) this.#channel.giveUp(`it has said nothing for ${Math.round(silentMs)} ms`)
  }

  #lost(reason: "died" | "broken", detail: string): void {
    clearInterval(this.#silence)
    const lost: JobLost = { kind: "lost", reason, detail }
    const submitted = [...this.#submitted.values()]
    this.#submitted.clear()
    this.become(this.#closing ? "closed" : "down", detail)
    for (const answer of [...this.#offers.values()]) answer(DECLINED)
    for (const resolve of this.#withdrawals.values()) resolve(false)
    this.#withdrawals.clear()
    this.#checkDrained()
    for (const { sink, live } of submitted) for (const index of live) sink.end(index, lost)
  }
}
