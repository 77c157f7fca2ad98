/** Tells what a starting server is doing: short lines on a terminal, log lines (JSON) elsewhere. */
import pc from "picocolors"
import { type Logger, pino } from "pino"
import { UserError } from "../errors.ts"

const LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"]

export interface Reporter {
  log: Logger
  /** Something that takes time has begun. */
  begin(what: string): void
  /** How far it is; at most a few times a second matters. */
  progress(what: string): void
  /** It is done. */
  done(what: string): void
  /** Must be seen. */
  warn(what: string): void
  /** Lines for people only; a log gets the values. */
  say(lines: readonly string[], values: Record<string, unknown>): void
}

export async function createReporter(level: string | undefined, terminal: boolean): Promise<Reporter> {
  if (level !== undefined && !LEVELS.includes(level))
    throw new UserError(`--log-level ${level} is not one of ${LEVELS.join(", ")}`)
  if (!terminal)
    return new LogReporter(pino({ level: level ?? "info" }, pino.destination({ fd: 1, sync: true })))
  const { default: pretty } = await import("pino-pretty")
  const stream = pretty({ destination: 2, sync: true, ignore: "pid,hostname", translateTime: "HH:MM:ss" })
  return new TerminalReporter(pino({ level: level ?? "warn" }, stream))
}

class LogReporter implements Reporter {
  readonly log: Logger
  #lastMs = 0
  #last = ""

  constructor(log: Logger) {
    this.log = log
  }
  begin(what: string): void {
    this.log.info(what)
  }
  progress(what: string): void {
    const now = performance.now()
    if (now - this.#lastMs < 2000 || what === this.#last) return
    this.#lastMs = now
    this.#last = what
    this.log.info(what)
  }
  done(what: string): void {
    this.log.info(what)
  }
  warn(what: string): void {
    this.log.warn(what)
  }
  say(_lines: readonly string[], values: Record<string, unknown>): void {
    this.log.info(values, "ready")
  }
}

const CLEAR = "\r\u001b[2K"

class TerminalReporter implements Reporter {
  readonly log: Logger

  constructor(log: Logger) {
    this.log = log
  }
  begin(what: string): void {
    process.stderr.write(`${CLEAR}${pc.dim("…")} ${what}`)
  }
  progress(what: string): void {
    const width = Math.max(20, (process.stderr.columns ?? 80) - 3)
    process.stderr.write(`${CLEAR}${pc.dim("…")} ${what.slice(0, width)}`)
  }
  done(what: string): void {
    process.stderr.write(`${CLEAR}${pc.green("✓")} ${what}\n`)
  }
  warn(what: string): void {
    process.stderr.write(`${CLEAR}${pc.yellow(what)}\n`)
  }
  say(lines: readonly string[]): void {
    process.stdout.write(`${lines.join("\n")}\n`)
  }
}
