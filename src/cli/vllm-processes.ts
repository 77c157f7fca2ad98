/** The planner and the vLLM that `slos-serve vllm` starts: each a process of its own, both ended with this one. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { moduleBeside } from "../beside.ts"
import { UserError, userError } from "../errors.ts"
import { freePort } from "../free-port.ts"
import { cacheFolder } from "../models/cache.ts"
import { ChildLog, saidBy } from "../vllm/child-log.ts"
import { Failure } from "../vllm/failure.ts"
import { OrphanGuard } from "../vllm/guard.ts"
import { KeptProcess } from "../vllm/kept-process.ts"
import type { Launch } from "../vllm/launch.ts"
import { noOptions } from "./option-sources.ts"
import type { Reporter } from "./reporter.ts"
import type { VllmOptions } from "./vllm-options.ts"

const MAIN = fileURLToPath(moduleBeside(import.meta.url, "main"))
const HEALTH_TIMEOUT_MS = 2000
/** As pino numbers levels. */
const WARN = 40

export class VllmProcesses {
  /** Of the socket; for this user alone. */
  readonly folder = mkdtempSync(join(tmpdir(), "slos-serve-"))
  readonly #options: VllmOptions
  readonly #reporter: Reporter
  readonly #doing: (detail: string) => void
  readonly #guard = new OrphanGuard()
  readonly #logs: { vllm: ChildLog; planner: ChildLog }
  readonly #failures = { vllm: new Failure(), planner: new Failure() }
  readonly #kept: KeptProcess[] = []
  /** What comes up for the first time. */
  #loading: "planner" | "vllm" | null = null

  /** `doing`: what is being waited for, for those that ask meanwhile. Throws UserError where no log can be written. */
  constructor(options: VllmOptions, reporter: Reporter, doing: (detail: string) => void) {
    this.#options = options
    this.#reporter = reporter
    this.#doing = doing
    const file = options.vllmLog ?? join(cacheFolder(), "logs", `vllm-${options.port}.log`)
    this.#logs = {
      vllm: new ChildLog({ file, onLine: (line) => this.#heard(line) }),
      planner: new ChildLog({ file: `${file}.planner`, onLine: (line) => this.#heardPlanner(line) }),
    }
  }

  /** Resolves once it listens: for engines at its socket, for gateways and people at its URL. */
  async startPlanner(config: string | null): Promise<{ socket: string; url: string }> {
    const socket = join(this.folder, "planner.sock")
    const { policy, set, metricsPort } = this.#options
    const port = await portOf(metricsPort)
    const args = [
      ...[MAIN, "planner", "--socket", socket, "--metrics-port", String(port), "--policy", policy],
      ...set.flatMap((entry) => ["--set", entry]),
      ...(config === null ? [] : ["--config", config]),
    ]
    this.#reporter.begin("the planner is starting")
    const launch = { program: process.execPath, args, environment: noOptions(process.env) }
    const isReady = async () => (await answers({ path: socket })) && (await answers({ port }))
    await this.#keep("the planner", launch, "planner", isReady)
    const url = `http://127.0.0.1:${port}`
    this.#reporter.done(`the planner is ready (${url})`)
    return { socket, url }
  }

  async startVllm(launch: Launch, port: number): Promise<void> {
    this.#reporter.begin("vLLM is starting")
    await this.#keep("vLLM", launch, "vllm", () => isHealthy(port))
    this.#reporter.done(`vLLM is ready (its log: ${this.#logs.vllm.file})`)
  }

  async close(): Promise<void> {
    await Promise.all(this.#kept.map((kept) => kept.close()))
    this.#guard.close()
    for (const log of Object.values(this.#logs)) log.close()
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #keep(
    name: string,
    launch: Launch,
    which: "vllm" | "planner",
    isReady: () => Promise<boolean>,
  ): Promise<void> {
    const log = this.#logs[which]
    this.#loading = which
    const tell = (message: string, level: "info" | "error") => this.#reporter.log[level](message)
    const kept = new KeptProcess({ name, launch, guard: this.#guard, log, isReady, tell })
    this.#kept.push(kept)
    try {
      await kept.start()
      this.#loading = null
    } catch (error) {
      const { message } = error as Error
      const { reason } = this.#failures[which]
      if (reason !== null) throw new UserError(`${message}: ${reason} (all that it said is in ${log.file})`)
      for (const line of log.last) this.#reporter.warn(`  ${line}`)
      throw new UserError(`${message}; above are its last lines, all of them are in ${log.file}`)
    }
  }

  /** Log lines of ours: what it warns of is said here as well. */
  #heardPlanner(line: string): void {
    const said = loggedIn(line)
    // Its last words are said once, as the reason.
    if (this.#loading === "planner" && said === null && this.#failures.planner.take(line)) return
    if (this.#options.verbose || said === null) this.#reporter.warn(`planner: ${said?.msg ?? line}`)
    else if (said.level >= WARN) this.#reporter.log.warn(`planner: ${said.msg}`)
  }

  #heard(line: string): void {
    if (this.#options.verbose) this.#reporter.warn(line)
    if (this.#loading !== "vllm") return
    this.#failures.vllm.take(line)
    const said = saidBy(line)
    if (said === null) return
    this.#doing(`vLLM is loading: ${said}`)
    if (!this.#options.verbose) this.#reporter.progress(`vLLM: ${said}`)
  }
}

/** null: no line of a log. */
function loggedIn(line: string): { level: number; msg: string } | null {
  try {
    const { level, msg } = JSON.parse(line) as { level: unknown; msg: unknown }
    return typeof level === "number" && typeof msg === "string" ? { level, msg } : null
  } catch {
    return null
  }
}

/** Something listens there, on this machine. */
function answers(where: { path: string } | { port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect("path" in where ? where : { ...where, host: "127.0.0.1" })
    const over = (ok: boolean) => {
      probe.destroy()
      resolve(ok)
    }
    probe.on("connect", () => over(true))
    probe.on("error", () => over(false))
  })
}

async function isHealthy(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/health`, {
    signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS),
  })
  await response.body?.cancel()
  return response.status === 200
}

/** That of `--metrics-port`, which is free, or one that is. */
function portOf(asked: number | undefined): Promise<number> {
  if (!asked) return freePort()
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.on("error", (error: NodeJS.ErrnoException) => {
      const where = {
        port: asked,
        host: "127.0.0.1",
        option: "--metrics-port",
        detail: error.code ?? error.message,
      }
      reject(userError(error.code === "EADDRINUSE" ? "port_in_use" : "cannot_listen", where))
    })
    probe.listen(asked, "127.0.0.1", () => probe.close(() => resolve(asked)))
  })
}
