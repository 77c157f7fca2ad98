/** One process of an address, kept running by its parent: started, watched, started again when it dies or stands still. */
import type { Worker } from "node:cluster"
import { UserError } from "../errors.ts"
import { inWords, Restarts } from "../router/health.ts"
import type { Hub } from "./hub.ts"
import type { FromSibling, ToSibling } from "./messages.ts"

export interface SiblingOptions {
  index: number
  fork: () => Worker
  hub: Hub
  /** All that it is told first, each time that it starts. */
  setup: () => readonly object[]
  log: (message: string, level: "error" | "info") => void
  restarts?: Restarts
  /** Between two looks at whether it still answers, ms. */
  lookMs?: number
}

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

const NOTHING: Exit = { code: 0, signal: null }
const LOOK_MS = 1000
/** Looks in a row that it did not answer: it stands still. Looks, and not time: the parent may have stood still as well. */
const MOST_MISSED = 10

export class SiblingProcess {
  readonly index: number
  readonly #options: SiblingOptions
  readonly #restarts: Restarts
  #worker: Worker | null = null
  #exited: Promise<Exit> = Promise.resolve(NOTHING)
  #pause: NodeJS.Timeout | null = null
  #look: NodeJS.Timeout | null = null
  #stopping = false
  #isReady = false
  #failure: Error | null = null
  #waiting: { ready: () => void; failed: (error: Error) => void }[] = []
  /** What its last start said. */
  said: Pick<Extract<FromSibling, { type: "ready" }>, "lines" | "values"> | null = null
  /** Called when a process of it has ended, whatever comes then. */
  onExit: () => void = () => {}

  constructor(options: SiblingOptions) {
    this.index = options.index
    this.#options = options
    this.#restarts = options.restarts ?? new Restarts()
    this.#begin()
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#worker?.process.pid
  }
  get isReady(): boolean {
    return this.#isReady
  }

  /** Resolves once it serves; rejects when its first process ends before. */
  ready(): Promise<void> {
    return new Promise((ready, failed) => {
      if (this.#isReady) ready()
      else if (this.#failure !== null) failed(this.#failure)
      else this.#waiting.push({ ready, failed })
    })
  }

  tell(message: ToSibling): void {
    this.#send(this.#worker, message)
  }

  /** As the signal has it, which it may be sent again; resolves when its process has ended. It is not started again. What does not serve
   * just now has nothing to end. */
  async stop(signal: NodeJS.Signals): Promise<Exit> {
    const served = this.#isReady || this.#stopping
    this.#stopping = true
    if (this.#pause !== null) clearTimeout(this.#pause)
    if (served && this.#worker !== null) {
      this.tell({ type: "signal", signal })
      return this.#exited
    }
    this.#worker?.process.kill("SIGKILL")
    return NOTHING
  }

  kill(): void {
    this.#stopping = true
    if (this.#pause !== null) clearTimeout(this.#pause)
    this.#worker?.process.kill("SIGKILL")
  }

  #begin(): void {
    const { fork, setup } = this.#options
    const worker = fork()
    this.#worker = worker
    this.#exited = new Promise((resolve) => {
      worker.on("error", (error) => this.#options.log(`process ${this.index}: ${error.message}`, "error"))
      worker.on("exit", (code: number | null, signal: string | null) => {
        // Node says "" where there was none.
        const exit = { code, signal: (signal || null) as NodeJS.Signals | null }
        this.#over(worker, exit)
        resolve(exit)
      })
    })
    worker.on("message", (message) => this.#heard(worker, message as FromSibling))
    for (const message of setup()) this.#send(worker, message)
  }

  #heard(worker: Worker, message: FromSibling): void {
    if (this.#worker !== worker) return
    if (message.type === "ready") this.#ready(worker, message)
    else if (message.type === "failed")
      this.#failure = message.user ? new UserError(message.message) : new Error(message.message)
    else this.#options.hub.heard(this.index, message, (answer) => this.#send(worker, answer))
  }

  #ready(worker: Worker, { lines, values }: Extract<FromSibling, { type: "ready" }>): void {
    const { hub, lookMs = LOOK_MS, log } = this.#options
    if (this.said !== null) log(`process ${this.index} is back (pid ${worker.process.pid})`, "info")
    this.said = { lines, values }
    this.#isReady = true
    this.#failure = null
    hub.joined(this.index, (message) => this.#send(worker, message))
    this.#restarts.up(performance.now() * 1000)
    let missed = 0
    this.#look = setInterval(() => {
      if (++missed > MOST_MISSED) {
        log(`process ${this.index} does not answer: it is ended`, "error")
        worker.process.kill("SIGKILL")
      }
      void hub.answersStill(this.index).then((does) => {
        if (does) missed = 0
      })
    }, lookMs)
    for (const { ready } of this.#waiting.splice(0)) ready()
  }

  #over(worker: Worker, { code, signal }: Exit): void {
    if (this.#worker !== worker) return
    this.#worker = null
    this.#isReady = false
    if (this.#look !== null) clearInterval(this.#look)
    this.#options.hub.left(this.index)
    this.onExit()
    if (this.#stopping) return
    const how = signal === null ? `ended with exit code ${code}` : `died of ${signal}`
    const detail = this.#failure === null ? how : `${how}: ${this.#failure.message}`
    if (this.said === null) {
      const failure =
        this.#failure ?? new Error(`process ${this.index} of the gateway ${how} before it served`)
      this.#failure = failure
      for (const { failed } of this.#waiting.splice(0)) failed(failure)
      return
    }
    this.#failure = null
    const nowUs = performance.now() * 1000
    const pauseMs = (this.#restarts.died(nowUs, Math.random()) - nowUs) / 1000
    this.#options.log(`process ${this.index} ${detail}; it is started again ${inWords(pauseMs)}`, "error")
    this.#pause = setTimeout(() => this.#begin(), pauseMs)
  }

  /** Its end is seen by its exit, whatever a message to it says. */
  #send(worker: Worker | null, message: object): void {
    if (worker?.isConnected()) worker.send(message, () => {})
  }
}
