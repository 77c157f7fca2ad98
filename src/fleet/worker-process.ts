/** A replica in a process of its own, behind the port that all replicas have: started, watched, and started again when it
 * dies. A crash of native code, a hang or nonsense takes this one process. */
import type { ChildProcess } from "node:child_process"
import type { Duplex } from "node:stream"
import { UserError } from "../errors.ts"
import {
  DECLINED,
  type Digest,
  type HostInfo,
  type HostState,
  type Job,
  type JobId,
  type JobSink,
  type Offer,
  type ReplicaHost,
} from "../replica/host.ts"
import type { Observed } from "../replica/observed.ts"
import { Restarts } from "../router/health.ts"
import { CONNECTION_ENDED } from "../wire/channel.ts"
import { WireHost } from "../wire/host.ts"
import { isFromWorker, WIRE_FD } from "./worker-messages.ts"

export interface WorkerOptions {
  name: string
  /** A process with an IPC channel and a pipe at WIRE_FD, which runs the worker. */
  spawn: () => ChildProcess
  /** What it is told first. */
  setup: object
  log?: (message: string, level: "error" | "warn" | "info" | "debug") => void
  /** See WireHost. */
  silenceMs?: number
  /** An engine that is down for so long does not come back by itself, ms. */
  engineDownMs?: number
  /** When it is started again. */
  restarts?: Restarts
}

const ENGINE_DOWN_MS = 2_000
const CHECK_MS = 250
/** A worker that is told to close gets so long. */
const CLOSE_MS = 10_000

export class WorkerProcess implements ReplicaHost {
  readonly name: string
  readonly #options: WorkerOptions
  readonly #restarts: Restarts
  readonly #stateListeners = new Set<(state: HostState) => void>()
  readonly #observedListeners = new Set<(observed: Observed) => void>()
  readonly #check: NodeJS.Timeout
  #child: ChildProcess | null = null
  #host: WireHost | null = null
  #state: HostState = "starting"
  #detail = "it is being started"
  #info: HostInfo | null = null
  #deaths = 0
  #engineDownSinceMs: number | null = null
  #pause: NodeJS.Timeout | null = null
  #closing = false
  #exited: Promise<void> = Promise.resolve()
  /** What it was ended for; null: it ended by itself. */
  #endedFor: string | null = null
  #failure: UserError | null = null

  constructor(options: WorkerOptions) {
    this.name = options.name
    this.#options = options
    this.#restarts = options.restarts ?? new Restarts()
    this.#check = setInterval(() => this.#checkEngine(), CHECK_MS)
    this.#check.unref()
    this.#start()
  }

  get state(): HostState {
    return this.#state
  }
  get detail(): string {
    return this.#detail
  }
  get info(): HostInfo | null {
    return this.#info
  }
  /** Times it was started anew. */
  get restarts(): number {
    return this.#deaths
  }
  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Resolves once it is ready; rejects when its operator must put something right first. */
  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (this.#state === "ready") resolve()
        else if (this.#failure !== null) reject(this.#failure)
        else return false
        return true
      }
      if (look()) return
      const stop = this.onState(() => look() && stop())
    })
  }

  onState(listener: (state: HostState) => void): () => void {
    this.#stateListeners.add(listener)
    return () => this.#stateListeners.delete(listener)
  }

  onObserved(listener: (observed: Observed) => void): () => void {
    this.#observedListeners.add(listener)
    return () => this.#observedListeners.delete(listener)
  }

  offer(job: Job, deadlineMs: number): Promise<Offer> {
    return this.#host?.offer(job, deadlineMs) ?? Promise.resolve(DECLINED)
  }

  submit(job: Job, sink: JobSink): void {
    if (this.#host !== null) {
      this.#host.submit(job, sink)
      return
    }
    for (const { index } of job.choices)
      sink.end(index, { kind: "lost", reason: "refused", detail: this.#detail })
  }

  cancel(id: JobId): void {
    this.#host?.cancel(id)
  }

  withdraw(id: JobId): Promise<boolean> {
    return this.#host?.withdraw(id) ?? Promise.resolve(false)
  }

  digest(): Digest | null {
    return this.#host?.digest() ?? null
  }

  drain(): Promise<void> {
    return this.#host?.drain() ?? Promise.resolve()
  }

  giveUp(detail: string): void {
    this.#endedFor ??= detail
    this.#kill()
  }

  async close(): Promise<void> {
    if (this.#closing) return this.#exited
    this.#closing = true
    clearInterval(this.#check)
    if (this.#pause !== null) clearTimeout(this.#pause)
    if (this.#child === null) return this.#become("closed", "it was closed")
    const late = setTimeout(() => this.#kill(), CLOSE_MS)
    if (this.#host === null) this.#kill()
    else void this.#host.close()
    await this.#exited
    clearTimeout(late)
  }

  #start(): void {
    this.#pause = null
    this.#endedFor = null
    const child = this.#options.spawn()
    this.#child = child
    this.#exited = new Promise((resolve) => {
      const over = (detail: string) => {
        if (this.#child !== child) return
        this.#child = null
        this.#over(detail)
        resolve()
      }
      child.on("exit", (code, signal) =>
        over(signal === null ? `its process ended with exit code ${code}` : `its process died of ${signal}`),
      )
      child.on("error", (error) => over(`its process could not be started: ${error.message}`))
    })
    child.on("message", (message) => this.#heard(child, message))
    child.send(this.#options.setup, () => {})
  }

  #heard(child: ChildProcess, message: unknown): void {
    if (!isFromWorker(message) || this.#child !== child) return
    if (message.type === "doing") this.#become("starting", message.what)
    else if (message.type === "ready") this.#connect(child)
    else if (message.type === "log") this.#log(message.message, levelOf(message.level))
    else {
      this.#endedFor = message.message
      if (message.user) this.#failure = new UserError(message.message)
    }
  }

  #connect(child: ChildProcess): void {
    const { silenceMs } = this.#options
    const stream = child.stdio[WIRE_FD] as unknown as Duplex
    const host = new WireHost(stream, { name: this.name, ...(silenceMs !== undefined && { silenceMs }) })
    this.#host = host
    host.onObserved((observed) => {
      for (const listener of this.#observedListeners) listener(observed)
    })
    host.onState((state) => {
      if (this.#host !== host) return
      if (state === "ready") {
        this.#info = host.info
        this.#restarts.up(performance.now() * 1000)
        this.#become("ready", "")
      } else if (state === "draining") this.#become("draining", host.detail)
      else if (state === "down" && !this.#closing) this.#disconnected(host.detail)
    })
  }

  /** Before its jobs are told: where they go on must not be here. */
  #disconnected(detail: string): void {
    this.#become("down", detail)
    // How its process ended says more.
    if (detail !== CONNECTION_ENDED) this.#endedFor ??= detail
    this.#kill()
  }

  #checkEngine(): void {
    const engine = this.#host?.digest()?.engine
    if (engine === undefined || engine.state === "ok") {
      this.#engineDownSinceMs = null
      return
    }
    const nowMs = performance.now()
    this.#engineDownSinceMs ??= nowMs
    const { engineDownMs = ENGINE_DOWN_MS } = this.#options
    if (nowMs - this.#engineDownSinceMs >= engineDownMs) this.giveUp(`its engine is down: ${engine.detail}`)
  }

  #kill(): void {
    // Also one that is stopped.
    this.#child?.kill("SIGKILL")
  }

  /** The process is gone. */
  #over(exit: string): void {
    const detail = this.#endedFor ?? exit
    const host = this.#host
    this.#host = null
    this.#engineDownSinceMs = null
    if (this.#closing) this.#become("closed", "it was closed")
    else this.#become("down", detail)
    host?.giveUp(detail)
    if (this.#closing || this.#failure !== null) return
    const nowUs = performance.now() * 1000
    const pauseMs = (this.#restarts.died(nowUs, Math.random()) - nowUs) / 1000
    this.#deaths++
    this.#log(
      `${detail}; it is started again${pauseMs < 1 ? "" : ` in ${(pauseMs / 1000).toFixed(1)} s`}`,
      "error",
    )
    this.#pause = setTimeout(() => this.#start(), pauseMs)
  }

  #log(message: string, level: "error" | "warn" | "info" | "debug"): void {
    this.#options.log?.(`replica ${this.name}: ${message}`, level)
  }

  #become(state: HostState, detail: string): void {
    if (this.#state === state && this.#detail === detail) return
    this.#state = state
    this.#detail = detail
    for (const listener of [...this.#stateListeners]) listener(state)
  }
}

function levelOf(level: string): "error" | "warn" | "info" | "debug" {
  if (level === "fatal") return "error"
  return level === "error" || level === "warn" || level === "info" ? level : "debug"
}
