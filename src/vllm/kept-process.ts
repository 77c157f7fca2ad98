/** A program that is kept running: started, watched, started again when it ends by itself, and ended with all that it started. */
import { type ChildProcess, spawn } from "node:child_process"
import { setTimeout as sleep } from "node:timers/promises"
import { UserError } from "../errors.ts"
import { inWords, type RestartOptions, Restarts } from "../router/health.ts"
import type { ChildLog } from "./child-log.ts"
import type { OrphanGuard } from "./guard.ts"
import type { Launch } from "./launch.ts"

export interface KeptOptions {
  /** For people. */
  name: string
  launch: Launch
  guard: OrphanGuard
  log: ChildLog
  /** Whether it does what it is for by now. */
  isReady: () => Promise<boolean>
  /** Of its deaths and returns. */
  tell: (message: string, level: "info" | "error") => void
  restarts?: RestartOptions
  /** One that lives, but was not ready for so long, is ended, and so started again. Default: a minute. */
  stillMs?: number
}

const CHECK_MS = 200
const WATCH_MS = 1000
const STILL_MS = 60_000
/** Told to end, it gets so long. */
const CLOSE_MS = 4000
const LAST_WORDS_MS = 500
const SECRET = "--api-key"

/** Keys are not for a log. */
function shown(args: readonly string[]): string[] {
  return args.map((arg, at) => {
    if (args[at - 1] === SECRET) return "…"
    return arg.startsWith(`${SECRET}=`) ? `${SECRET}=…` : arg
  })
}

export class KeptProcess {
  readonly #options: KeptOptions
  readonly #restarts: Restarts
  #child: ChildProcess | null = null
  #exited: Promise<string> = Promise.resolve("")
  #closing = false
  #pause: NodeJS.Timeout | null = null
  /** Times it was started again. */
  restarted = 0

  constructor(options: KeptOptions) {
    this.#options = options
    this.#restarts = new Restarts(options.restarts)
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Resolves once it is ready; from then on it is started again when it ends. Rejects with UserError when it ends before. */
  async start(): Promise<void> {
    const exited = this.#begin()
    const end = await Promise.race([exited, this.#becomesReady()])
    if (end !== null) throw new UserError(`${this.#options.name} ${end} before it was ready`)
    void exited.then((detail) => this.#over(detail))
    void this.#watch()
  }

  /** It and all that it started; resolves when they are gone. */
  async close(): Promise<void> {
    this.#closing = true
    if (this.#pause !== null) clearTimeout(this.#pause)
    if (this.#child === null) return
    // Itself alone: it ends in order what it has started.
    this.#child.kill("SIGTERM")
    const late = setTimeout(() => this.#killAll(), CLOSE_MS)
    await this.#exited
    clearTimeout(late)
  }

  /** Resolves with how it ended. */
  #begin(): Promise<string> {
    const { launch, log, guard } = this.#options
    const { program, args, environment } = launch
    log.note(`$ ${[program, ...shown(args)].join(" ")}`)
    const child = spawn(program, args, {
      ...{ stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...environment } },
      // Of a group of its own: a terminal's Ctrl+C must not end it before its streams, and its end is that of the group.
      detached: true,
    })
    this.#child = child
    const { pid } = child
    if (pid !== undefined) guard.watch(pid)
    log.read(child.stdout!)
    log.read(child.stderr!)
    this.#exited = new Promise((resolve) => {
      child.on("error", (error) => {
        this.#child = null
        resolve(`could not be started (${error.message})`)
      })
      child.on("exit", (code, signal) => {
        // What it started holds its memory and its ports.
        this.#killAll()
        if (pid !== undefined) guard.forget(pid)
        this.#child = null
        const detail = signal === null ? `ended with exit code ${code}` : `died of ${signal}`
        // Its last words are still on their way.
        child.on("close", () => resolve(detail))
        setTimeout(() => resolve(detail), LAST_WORDS_MS)
      })
    })
    return this.#exited
  }

  /** null once it is. */
  async #becomesReady(): Promise<null> {
    const child = this.#child
    while (this.#child === child && !(await this.#isReady())) await sleep(CHECK_MS)
    return this.#child === child ? null : new Promise<never>(() => {})
  }

  /** Until it ends; ends it when it stands still. */
  async #watch(): Promise<void> {
    const child = this.#child
    const { name, tell, stillMs = STILL_MS } = this.#options
    let wellMs = performance.now()
    while (this.#child === child && !this.#closing) {
      await sleep(Math.min(WATCH_MS, stillMs), null, { ref: false })
      if (await this.#isReady()) wellMs = performance.now()
      if (performance.now() - wellMs < stillMs) continue
      tell(`${name} has not answered for ${stillMs / 1000} s`, "error")
      if (this.#child === child) this.#killAll()
      return
    }
  }

  #isReady(): Promise<boolean> {
    return this.#options.isReady().catch(() => false)
  }

  #over(detail: string): void {
    if (this.#closing) return
    const nowUs = performance.now() * 1000
    const pauseMs = (this.#restarts.died(nowUs, Math.random()) - nowUs) / 1000
    this.#options.tell(`${this.#options.name} ${detail}; it is started again ${inWords(pauseMs)}`, "error")
    this.#pause = setTimeout(() => this.#again(), pauseMs)
  }

  #again(): void {
    if (this.#closing) return
    this.restarted++
    void this.#begin().then((detail) => this.#over(detail))
    void this.#becomesReady().then(() => {
      this.#restarts.up(performance.now() * 1000)
      this.#options.tell(`${this.#options.name} is back`, "info")
      void this.#watch()
    })
  }

  #killAll(): void {
    const pid = this.#child?.pid
    if (pid === undefined) return
    try {
      process.kill(-pid, "SIGKILL")
    } catch {
      // All of it is gone.
    }
  }
}
