/** A replica in a process of its own: started, watched, and started again when it dies. A crash of native code, a hang or
 * nonsense takes this one process. */
import type { ChildProcess } from "node:child_process"
import type { Duplex } from "node:stream"
import { UserError } from "../errors.ts"
import { CONNECTION_ENDED } from "../wire/channel.ts"
import type { WireHost } from "../wire/host.ts"
import { RenewedHost, type RenewedOptions } from "./renewed-host.ts"
import { isFromWorker, type ToWorker, WIRE_FD } from "./worker-messages.ts"

export interface WorkerOptions extends RenewedOptions {
  /** A process with an IPC channel and a pipe at WIRE_FD, which runs the worker. */
  spawn: () => ChildProcess
  /** What it is told first. */
  setup: object
  /** An engine that is down for so long does not come back by itself, ms. */
  engineDownMs?: number
}

const ENGINE_DOWN_MS = 2_000
const CHECK_MS = 250
/** A worker that is told to close gets so long. */
const CLOSE_MS = 10_000

export class WorkerProcess extends RenewedHost {
  readonly #options: WorkerOptions
  readonly #check: NodeJS.Timeout
  #child: ChildProcess | null = null
  #exited: Promise<void> = Promise.resolve()
  #engineDownSinceMs: number | null = null
  /** What it was ended for; null: it ended by itself. */
  #endedFor: string | null = null
  #failure: UserError | null = null
  #renewed: ToWorker | null = null

  constructor(options: WorkerOptions) {
    super(options)
    this.#options = options
    this.#check = setInterval(() => this.#checkEngine(), CHECK_MS)
    this.#check.unref()
    this.begin()
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Requests wait for it: its start takes seconds, and its parent sees to it. */
  get comesBack(): boolean {
    return this.expected
  }

  get backInUs(): number | null {
    return this.backWithinUs
  }

  /** Resolves once it is ready; rejects when its operator must put something right first. */
  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (this.state === "ready") resolve()
        else if (this.#failure !== null) reject(this.#failure)
        else return false
        return true
      }
      if (look()) return
      const stop = this.onState(() => look() && stop())
    })
  }

  /** One that is started again is told as well: it was made with what held at first. */
  renew({ maxQueue, tenants }: Omit<ToWorker, "type">): void {
    this.#renewed = { type: "renew", maxQueue, tenants }
    this.#child?.send(this.#renewed, () => {})
  }

  giveUp(detail: string): void {
    this.#endedFor ??= detail
    this.#kill()
  }

  protected begin(): void {
    this.#endedFor = null
    this.#engineDownSinceMs = null
    const child = this.#options.spawn()
    this.#child = child
    this.#exited = new Promise((resolve) => {
      const over = (exit: string) => {
        if (this.#child !== child) return
        this.#child = null
        this.over(this.#endedFor ?? exit, this.#failure !== null)
        resolve()
      }
      child.on("exit", (code, signal) =>
        over(signal === null ? `its process ended with exit code ${code}` : `its process died of ${signal}`),
      )
      child.on("error", (error) => over(`its process could not be started: ${error.message}`))
    })
    child.on("message", (message) => this.#heard(child, message))
    child.send(this.#options.setup, () => {})
    if (this.#renewed !== null) child.send(this.#renewed, () => {})
  }

  protected async finish(wire: WireHost | null): Promise<void> {
    clearInterval(this.#check)
    const late = setTimeout(() => this.#kill(), CLOSE_MS)
    if (wire === null) this.#kill()
    else void wire.close()
    await this.#exited
    clearTimeout(late)
  }

  protected disconnected(detail: string): void {
    // How its process ended says more.
    if (detail !== CONNECTION_ENDED) this.#endedFor ??= detail
    this.#kill()
  }

  #heard(child: ChildProcess, message: unknown): void {
    if (!isFromWorker(message) || this.#child !== child) return
    if (message.type === "doing") this.doing(message.what)
    else if (message.type === "ready") this.connect(child.stdio[WIRE_FD] as unknown as Duplex)
    else if (message.type === "log") this.log(message.message, levelOf(message.level))
    else {
      this.#endedFor = message.message
      if (message.user) this.#failure = new UserError(message.message)
    }
  }

  #checkEngine(): void {
    const engine = this.wire?.digest()?.engine
    if (engine === undefined || engine.state === "ok") {
      this.#engineDownSinceMs = null
      return
    }
    const nowMs = performance.now()
    this.#engineDownSinceMs ??= nowMs
    const { engineDownMs = ENGINE_DOWN_MS } = this.#options
    if (nowMs - this.#engineDownSinceMs >= engineDownMs) this.giveUp(`its engine is down: ${engine.detail}`)
  }

  /** Also one that is stopped. */
  #kill(): void {
    this.#child?.kill("SIGKILL")
  }
}

function levelOf(level: string): "error" | "warn" | "info" | "debug" {
  if (level === "fatal") return "error"
  return level === "error" || level === "warn" || level === "info" ? level : "debug"
}
