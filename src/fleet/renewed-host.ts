/** A replica that comes back: what stands behind the port that all replicas have while one connection to it after another
 * is made, lives and ends. How connections are made is its kinds' own. */
import type { Duplex } from "node:stream"
import {
  DECLINED,
  type Digest,
  type Job,
  type JobId,
  type JobSink,
  type Offer,
  type ReplicaHost,
  refuse,
} from "../replica/host.ts"
import { WatchedHost } from "../replica/watched-host.ts"
import { inWords, Restarts } from "../router/health.ts"
import { WireHost } from "../wire/host.ts"
import { Comeback } from "./comeback.ts"
import { otherModel, type Serving } from "./one-model.ts"

export interface RenewedOptions {
  name: string
  log?: (message: string, level: "error" | "warn" | "info" | "debug") => void
  /** See WireHost. */
  silenceMs?: number
  /** Another one that is ready, where all are to serve one model. */
  beside?: () => Serving | null
  /** When it is tried again. */
  restarts?: Restarts
}

export abstract class RenewedHost extends WatchedHost implements ReplicaHost {
  readonly #options: RenewedOptions
  readonly #restarts: Restarts
  readonly #comeback = new Comeback(performance.now())
  #wire: WireHost | null = null
  #lives = 0
  #pause: NodeJS.Timeout | null = null
  #closing: Promise<void> | null = null

  constructor(options: RenewedOptions) {
    super(options.name, "it is being started")
    this.#options = options
    this.#restarts = options.restarts ?? new Restarts()
  }

  /** Times it came back. */
  get restarts(): number {
    return Math.max(0, this.#lives - 1)
  }

  offer(job: Job, deadlineMs: number): Promise<Offer> {
    return this.#wire?.offer(job, deadlineMs) ?? Promise.resolve(DECLINED)
  }

  submit(job: Job, sink: JobSink): void {
    if (this.#wire !== null) this.#wire.submit(job, sink)
    else refuse(job, sink, this.detail)
  }

  cancel(id: JobId): void {
    this.#wire?.cancel(id)
  }

  withdraw(id: JobId): Promise<boolean> {
    return this.#wire?.withdraw(id) ?? Promise.resolve(false)
  }

  digest(): Digest | null {
    return this.#wire?.digest() ?? null
  }

  drain(): Promise<void> {
    return this.#wire?.drain() ?? Promise.resolve()
  }

  abstract giveUp(detail: string): void

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** Makes the next connection, and sees to its end. */
  protected abstract begin(): void

  /** Ends what is there, in order; `wire` is null where no connection is. */
  protected abstract finish(wire: WireHost | null): Promise<void>

  /** The stream of this life's connection ended, or said nonsense, or nothing. Its jobs are told afterwards. */
  protected abstract disconnected(detail: string): void

  protected get wire(): WireHost | null {
    return this.#wire
  }
  /** It is up, or will be about as soon as its start takes. */
  protected get expected(): boolean {
    return this.#comeback.isSoon(performance.now())
  }
  /** Until it is up, at the latest; see ReplicaHost.backInUs. */
  protected get backWithinUs(): number | null {
    const ms = this.#comeback.withinMs(performance.now())
    return ms === null ? null : ms * 1000
  }
  protected get closing(): boolean {
    return this.#closing !== null
  }

  /** It does this, on its way to being ready. */
  protected doing(what: string): void {
    this.become("starting", what)
  }

  protected connect(stream: Duplex): void {
    const { silenceMs } = this.#options
    const wire = new WireHost(stream, { name: this.name, ...(silenceMs !== undefined && { silenceMs }) })
    this.#wire = wire
    wire.onObserved((observed) => this.observed(observed))
    wire.onState((state) => {
      if (this.#wire !== wire) return
      if (state === "ready") this.#ready(wire)
      else if (state === "draining" || state === "starting") this.become(state, wire.detail)
      else if ((state === "down" || state === "closed") && !this.closing) {
        // Before its jobs are told: where they go on must not be here.
        this.become("down", wire.detail)
        this.disconnected(wire.detail)
      }
    })
  }

  /** This life is over; the next one begins after a pause, unless it is `last`. */
  protected over(detail: string, last = false): void {
    const wire = this.#wire
    this.#wire = null
    this.#comeback.down(Infinity)
    if (this.closing) this.become("closed", "it was closed")
    else this.become("down", detail)
    wire?.giveUp(detail)
    if (this.closing || last) return
    const nowUs = performance.now() * 1000
    const pauseMs = (this.#restarts.died(nowUs, Math.random()) - nowUs) / 1000
    this.#comeback.down(nowUs / 1000 + pauseMs)
    this.log(`${detail}; next try ${inWords(pauseMs)}`, "error")
    this.#pause = setTimeout(() => this.begin(), pauseMs)
  }

  protected log(message: string, level: "error" | "warn" | "info" | "debug"): void {
    this.#options.log?.(`replica ${this.name}: ${message}`, level)
  }

  #ready(wire: WireHost): void {
    const wrong = otherModel(wire.info!.model.name, this.#options.beside?.() ?? null)
    if (wrong !== null) {
      this.over(wrong)
      return
    }
    this.serves(wire.info)
    this.#lives++
    this.#comeback.ready(performance.now())
    this.#restarts.up(performance.now() * 1000)
    this.become("ready", "")
  }

  async #close(): Promise<void> {
    if (this.#pause !== null) clearTimeout(this.#pause)
    await this.finish(this.#wire)
    this.become("closed", "it was closed")
  }
}
