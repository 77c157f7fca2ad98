/** What a server makes of signals: two stop it, the first orderly, a second at once; others must not kill it. */
import { setTimeout as sleep } from "node:timers/promises"
import type { FastifyInstance } from "fastify"
import type { ServiceHost } from "../serve/service.ts"
import type { Reporter } from "./reporter.ts"

const STOPPING = ["SIGTERM", "SIGINT"] as const
/** A process dies of it unless it listens. (SIGUSR1 is Node's own, SIGPIPE is ignored by it.) */
const IGNORED = ["SIGUSR2"] as const
/** A step that runs when everything has ended gets this long, one that is known to hang less: its end would only free
 * what the process's end frees anyway. */
const STEP_MS = 5000
const HUNG_STEP_MS = 500
/** Answers that were written get this long to reach their clients. */
const FLUSH_MS = 1000
/** npm passes on what its terminal has sent to this process as well: two signals within so long are one. */
const ECHO_MS = 500
/** npm's shell dies of a signal and keeps it: that its process has another parent then is all that a server sees of it. */
const ORPHAN_MS = 1000

/** A process, or what is told of its parent's signals. */
export interface SignalSource {
  on(signal: NodeJS.Signals, hear: (signal: NodeJS.Signals, more?: unknown) => void): unknown
}

export interface SignalActions {
  drainSec: () => number
  /** `config`: what its file says, where another process has read it. */
  reload: (signal: string, config?: string) => void
  /** Told once, when it begins to stop. */
  stopping?: (text: string) => void
  /** Default: this process. */
  source?: SignalSource
}

export function onSignals(
  app: FastifyInstance,
  host: ServiceHost,
  { drainSec, reload, stopping = () => {}, source = process }: SignalActions,
  reporter: Reporter,
): void {
  const stop = async (signal: NodeJS.Signals) => {
    if (host.service === null) return dieOf(signal)
    stopping(`${signal}: running answers are finished first`)
    const ended = await drained(signal, host, drainSec(), reporter)
    app.server.closeIdleConnections()
    setTimeout(() => app.server.closeAllConnections(), FLUSH_MS).unref()
    await app.close()
    if (!ended) {
      reporter.warn(
        `the engine's step has not ended: stopping without it, by ${signal} and not with exit code 0`,
      )
      return dieOf(signal)
    }
    reporter.done("stopped")
    process.exit(0)
  }
  onStops(source, { stop: (signal) => void stop(signal), atOnce: dieOf }, reporter)
  onOthers(source, (signal, config) => reload(signal, config), reporter)
}

/** `stop` is called once, `atOnce` for what comes after that. */
export function onStops(
  source: SignalSource,
  { stop, atOnce }: Record<"stop" | "atOnce", (signal: NodeJS.Signals) => void>,
  reporter: Reporter,
): void {
  let requested = false
  let echoesUntilMs = 0
  const heard = (signal: NodeJS.Signals) => {
    const nowMs = performance.now()
    if (nowMs < echoesUntilMs) return
    if (process.env.npm_lifecycle_event !== undefined) echoesUntilMs = nowMs + ECHO_MS
    if (requested) {
      reporter.warn("stopping at once")
      return atOnce(signal)
    }
    requested = true
    stop(signal)
  }
  for (const signal of STOPPING) source.on(signal, heard)
  const parent = process.ppid
  if (process.env.npm_lifecycle_event !== undefined)
    setInterval(() => process.ppid !== parent && !requested && heard("SIGTERM"), ORPHAN_MS).unref()
}

export function onOthers(
  source: SignalSource,
  reload: (signal: string, config?: string) => void,
  reporter: Reporter,
): void {
  // It comes from what reads its configuration anew, and when a terminal goes.
  source.on("SIGHUP", (signal, config) => reload(signal, typeof config === "string" ? config : undefined))
  for (const signal of IGNORED)
    source.on(signal, () =>
      reporter.warn(`${signal} is ignored: nothing is read anew; SIGTERM stops the server`),
    )
}

/** Everything accepted ends, or is cancelled when the time is over; then the engine is closed. False when it is not:
 * its step hangs. */
async function drained(
  signal: string,
  host: ServiceHost,
  drainSec: number,
  reporter: Reporter,
): Promise<boolean> {
  const service = host.service!
  const overMs = performance.now() + drainSec * 1000
  const { running, waiting } = service.front.snapshot()
  reporter.warn(`${signal}: finishing ${running + waiting} requests (${drainSec} s at most)`)
  await Promise.race([host.drain(), sleep(drainSec * 1000, null, { ref: false })])
  const closed = service.close().then(() => true)
  const restMs =
    service.front.watch.state === "hung" ? HUNG_STEP_MS : Math.max(STEP_MS, overMs - performance.now())
  return Promise.race([closed, sleep(restMs, false, { ref: false })])
}

/** An orderly exit would wait for the library's threads, one that loads a model for the event loop to take its log
 * lines, one in a step that hangs for its end: for ever. */
export function dieOf(signal: NodeJS.Signals): void {
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
  // The first process of a container is spared its own signals.
  if (process.pid === 1) process.abort()
}
