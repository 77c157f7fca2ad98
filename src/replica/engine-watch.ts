/** Whether the engine computes. A step that takes many times its prediction hangs; after one that fails a probe, one
 * token by itself, tells a broken engine from broken requests. While the engine is down nothing is given to it but
 * probes, ever less often; a hung step that ends late, or a probe that is computed, ends that. */
import type { Clock } from "./clock.ts"

export type EngineState = "ok" | "hung" | "failing"

export interface WatchOptions {
  /** No step hangs before this time, µs; Infinity: none ever does. */
  leastUs: number
  /** Nor before so many times its predicted time. */
  factor: number
}

export const WATCH_DEFAULTS: WatchOptions = { leastUs: 10_000_000, factor: 20 }

/** What the watch wants done. */
export interface WatchCallbacks {
  /** The engine is down: what is live can not be served. */
  down(): void
  /** Have one token computed, and say how that went (`probed`). */
  probe(): void
  log(message: string, level: "error" | "info"): void
}

/** A timer that fires so much too late says that this process stood still, and the step with it. */
const LATE_US = 1_000_000
/** Steps in a row that had no room in the KV: running less at once heals that, as a rule. */
const MOST_FULL = 5
/** An engine whose probes fail for so long is down: many a device is back before. */
const PATIENCE_US = 1_000_000
const FIRST_PAUSE_US = 1_000_000
const LONGEST_PAUSE_US = 30_000_000

export class EngineWatch {
  readonly #clock: Clock
  readonly #options: WatchOptions
  readonly #callbacks: WatchCallbacks
  #state: EngineState = "ok"
  #detail = ""
  #sinceUs = 0
  #downUs = { hung: 0, failing: 0 }
  #trips = 0
  #startedUs = 0
  #stopTimer: (() => void) | null = null
  #stopPause: (() => void) | null = null
  #pauseUs = FIRST_PAUSE_US
  #fullInRow = 0
  #probing = false
  /** When a probe failed first since a step was computed last, absolute µs. */
  #failingSinceUs: number | null = null

  constructor(clock: Clock, options: WatchOptions, callbacks: WatchCallbacks) {
    this.#clock = clock
    this.#options = options
    this.#callbacks = callbacks
  }

  get state(): EngineState {
    return this.#state
  }
  /** Why it is down; empty while it is not. */
  get detail(): string {
    return this.#detail
  }
  /** Steps that hung. */
  get trips(): number {
    return this.#trips
  }
  /** Time in each state since the start, µs. */
  get downUs(): { hung: number; failing: number } {
    const total = { ...this.#downUs }
    if (this.#state !== "ok") total[this.#state] += this.#clock.nowUs() - this.#sinceUs
    return total
  }

  /** A step with so many requests has begun. */
  began(requests: number, predictedUs: number): void {
    this.#startedUs = this.#clock.nowUs()
    const boundUs = Math.max(this.#options.leastUs, this.#options.factor * predictedUs)
    if (boundUs < Infinity) this.#arm(requests, predictedUs, boundUs)
  }

  /** The step has ended. False when it had been given up: its results come too late. `full`: it failed for want of KV. */
  landed(failure: string | null, full = false): boolean {
    this.#stopTimer?.()
    if (this.#state === "hung") {
      const seconds = secondsOf(this.#clock.nowUs() - this.#startedUs)
      if (failure === null) this.#isBack(`the hung step ended after ${seconds}`)
      else {
        this.#become("failing", `a step that hung for ${seconds} failed (${failure})`)
        this.#probeLater()
      }
      return false
    }
    if (failure === null) this.#failingSinceUs = null
    this.#fullInRow = full ? this.#fullInRow + 1 : 0
    const suspect = failure !== null && (!full || this.#fullInRow >= MOST_FULL)
    if (suspect && this.#state === "ok" && !this.#probing) this.#probe()
    return true
  }

  /** The probe was computed, or failed. */
  probed(failure: string | null): void {
    this.#probing = false
    // It was given up with all others: the step's end will tell.
    if (this.#state === "hung") return
    if (failure === null) {
      if (this.#state === "failing") this.#isBack("a step was computed")
      return
    }
    const nowUs = this.#clock.nowUs()
    this.#failingSinceUs ??= nowUs
    if (this.#state === "ok") {
      if (nowUs - this.#failingSinceUs < PATIENCE_US) {
        this.#probe()
        return
      }
      this.#become("failing", `every step fails (${failure})`)
      this.#callbacks.down()
    }
    this.#probeLater()
  }

  close(): void {
    this.#stopTimer?.()
    this.#stopPause?.()
  }

  #arm(requests: number, predictedUs: number, boundUs: number): void {
    const dueUs = this.#clock.nowUs() + boundUs
    this.#stopTimer = this.#clock.wakeAt(dueUs, () => {
      if (this.#clock.nowUs() > dueUs + LATE_US) this.#arm(requests, predictedUs, boundUs)
      else this.#hangs(requests, predictedUs)
    })
  }

  #hangs(requests: number, predictedUs: number): void {
    this.#trips++
    const took = secondsOf(this.#clock.nowUs() - this.#startedUs)
    const many = requests === 1 ? "1 request" : `${requests} requests`
    const predicted = `${secondsOf(predictedUs)} predicted`
    this.#become("hung", `a step with ${many} has not ended within ${took} (${predicted})`)
    this.#callbacks.down()
  }

  #become(state: EngineState, detail: string): void {
    const nowUs = this.#clock.nowUs()
    if (this.#state !== "ok") this.#downUs[this.#state] += nowUs - this.#sinceUs
    this.#state = state
    this.#detail = detail
    this.#sinceUs = nowUs
    if (state !== "ok") this.#callbacks.log(`the engine is down: ${detail}`, "error")
  }

  #isBack(why: string): void {
    this.#become("ok", "")
    this.#pauseUs = FIRST_PAUSE_US
    this.#callbacks.log(`the engine is back: ${why}`, "info")
  }

  #probe(): void {
    this.#probing = true
    this.#callbacks.probe()
  }

  #probeLater(): void {
    this.#stopPause = this.#clock.wakeAt(this.#clock.nowUs() + this.#pauseUs, () => this.#probe())
    this.#pauseUs = Math.min(LONGEST_PAUSE_US, 2 * this.#pauseUs)
  }
}

function secondsOf(us: number): string {
  return `${(us / 1e6).toPrecision(3)} s`
}
