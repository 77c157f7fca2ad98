/** Puts a replica behind a byte stream: what a gateway says is done to it, what it answers goes back. */
import type { Duplex } from "node:stream"
import type { SloClasses } from "../config/slo-classes.ts"
import type { Job, JobId, ReplicaHost } from "../replica/host.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { Channel } from "./channel.ts"
import { addDelta, type Deltas, isPlain, noDeltas } from "./deltas.ts"
import {
  endToWire,
  jobOf,
  observedToWire,
  readToReplica,
  type ToGateway,
  type ToReplica,
} from "./messages.ts"

export interface WireServerOptions {
  /** Jobs name their class; its app is this replica's own. Left out: both ends have the same classes. */
  classes?: SloClasses
  /** How often it says how it is, ms. */
  digestMs?: number
  /** Whether a gateway may close it: only its own may. */
  owned?: boolean
  /** The stream has ended; its jobs were cancelled. */
  onEnd?: (detail: string) => void
}

const DIGEST_MS = 50
/** Ids of one gateway's jobs must not be another's. */
const IDS_PER_GATEWAY = 2 ** 40
let gateways = 0

export class WireServer {
  readonly #host: ReplicaHost
  readonly #options: WireServerOptions
  readonly #channel: Channel<ToGateway, ToReplica>
  readonly #live = new Set<JobId>()
  readonly #base = ++gateways * IDS_PER_GATEWAY
  readonly #stops: (() => void)[] = []
  /** Of this moment; null: none yet. */
  #deltas: Deltas | null = null

  constructor(stream: Duplex, host: ReplicaHost, options: WireServerOptions = {}) {
    this.#host = host
    this.#options = options
    this.#channel = new Channel<ToGateway, ToReplica>(stream, {
      read: readToReplica,
      onMessage: (message) => this.#handle(message),
      onEnd: (_reason, detail) => this.#ended(detail),
    })
    this.#stops.push(
      host.onState(() => this.#sayState()),
      host.onObserved((observed) => this.#say(observedToWire(observed))),
    )
    const timer = setInterval(() => this.#sayDigest(), options.digestMs ?? DIGEST_MS)
    this.#stops.push(() => clearInterval(timer))
  }

  #handle(message: ToReplica): void {
    if (message.type === "hello") this.#greet()
    else if (message.type === "offer") void this.#offer(this.#job(message.job), message.deadlineMs)
    else if (message.type === "submit") this.#submit(this.#job(message.job))
    else if (message.type === "cancel") this.#host.cancel(this.#base + message.id)
    else if (message.type === "withdraw") void this.#withdraw(message.id)
    else void this.#close()
  }

  async #close(): Promise<void> {
    if (this.#options.owned) await this.#host.close()
    this.#channel.close(() => this.#ended("it was closed"))
  }

  #greet(): void {
    this.#sayState()
    this.#sayDigest()
  }

  async #offer(job: Job, deadlineMs: number): Promise<void> {
    const offer = await this.#host.offer(job, deadlineMs)
    this.#say({ type: "offered", id: job.id - this.#base, ...offer })
  }

  #submit(job: Job): void {
    const id = job.id - this.#base
    let left = job.choices.length
    this.#live.add(job.id)
    this.#host.submit(job, {
      started: (choice, start) => this.#say({ type: "started", id, choice, start }),
      tokens: (choice, tokens, delta) => this.#sayTokens(id, choice, tokens, delta),
      turnedDown: (choice) => this.#say({ type: "turnedDown", id, choice }),
      end: (choice, end) => {
        if (--left === 0) this.#live.delete(job.id)
        this.#say({ type: "end", id, choice, end: endToWire(end) })
      },
    })
  }

  async #withdraw(id: JobId): Promise<void> {
    const gone = await this.#host.withdraw(this.#base + id)
    if (gone) this.#live.delete(this.#base + id)
    this.#say({ type: "withdrawn", id, gone })
  }

  #job(sent: Extract<ToReplica, { type: "submit" | "offer" }>["job"]): Job {
    const job = jobOf(sent)
    const { classes } = this.#options
    const id = this.#base + job.id
    if (classes === undefined) return { ...job, id }
    const { slo } = job.generation
    const own = classes.byName.get(slo.class.name) ?? classes.default
    return { ...job, id, generation: { ...job.generation, slo: { ...slo, class: own } } }
  }

  #sayState(): void {
    const { state, detail, info } = this.#host
    if (info !== null && state === "ready") this.#say({ type: "info", info } as ToGateway)
    this.#say({ type: "state", state, detail })
  }

  #sayDigest(): void {
    const digest = this.#host.digest()
    if (digest !== null) this.#say({ type: "digest", ...digest } as ToGateway)
  }

  /** Tokens of one moment go together: no other message overtakes them. */
  #sayTokens(id: JobId, choice: number, tokens: readonly number[], delta: AnswerDelta | null): void {
    if (!isPlain(delta)) {
      this.#say({ type: "tokens", id, choice, tokens: [...tokens], delta } as ToGateway)
      return
    }
    if (this.#deltas === null) {
      this.#deltas = noDeltas()
      queueMicrotask(() => this.#sayDeltas())
    }
    addDelta(this.#deltas, id, choice, tokens, delta)
  }

  #sayDeltas(): void {
    const deltas = this.#deltas
    this.#deltas = null
    if (deltas !== null) this.#channel.send(deltas)
  }

  #say(message: ToGateway): void {
    this.#sayDeltas()
    this.#channel.send(message)
  }

  #ended(detail: string): void {
    for (const stop of this.#stops) stop()
    for (const id of this.#live) this.#host.cancel(id)
    this.#options.onEnd?.(detail)
  }
}
