/** The scaling signal of a server: every so often the arrivals of the last minutes are played with fewer and more replicas, and
 * what that says is kept for metrics. It serves nothing and must not keep what serves from a core. */
import type { Advice, AdviceOptions } from "./advice.ts"
import type { RingCopy } from "./arrival-ring.ts"
import type { FleetSetup } from "./play.ts"
import { type AdviceThread, WorkerThread } from "./thread.ts"
import { Wanted } from "./wanted.ts"

export interface AdvisorOptions
  extends Pick<AdviceOptions, "target" | "windowS" | "coldStartS" | "mostReplicas"> {
  /** From one forecast to the next, s, at least. */
  everyS: number
  /** Replicas are given up when no more was wanted for so long, s. */
  downAfterS: number
  /** Most of one core that forecasts take. */
  share: number
}

export const ADVISOR_DEFAULTS: AdvisorOptions = {
  ...{ target: 0.9, windowS: 300, coldStartS: 0, mostReplicas: 64, everyS: 30, downAfterS: 300, share: 0.1 },
}

export interface AdvisorSource {
  ring: { copy(): RingCopy | Promise<RingCopy> }
  /** What a replica is like now; null while none is known. */
  setup: () => FleetSetup | null
  /** Replicas that serve now. */
  replicas: () => number
  nowUs: () => number
  log?: (message: string) => void
  thread?: AdviceThread
}

export interface Signal {
  advice: Advice
  /** Replicas asked for. */
  wanted: number
  /** When it was made. */
  atUs: number
}

const MOST_PLAYED = 1000

export class Advisor {
  readonly #options: AdvisorOptions
  readonly #source: AdvisorSource
  readonly #thread: AdviceThread
  #wanted: Wanted | null = null
  #timer: NodeJS.Timeout | undefined
  #closed = false
  #forecasts = 0
  /** null before the first forecast. */
  latest: Signal | null = null
  /** Time spent on forecasts since the start, ms. */
  busyMs = 0

  constructor(source: AdvisorSource, options: Partial<AdvisorOptions> = {}) {
    this.#source = source
    this.#options = { ...ADVISOR_DEFAULTS, ...options }
    this.#thread = source.thread ?? new WorkerThread()
  }

  get replicas(): number {
    return this.#source.replicas()
  }
  get nowUs(): number {
    return this.#source.nowUs()
  }

  /** Forecasts from now on. */
  start(): void {
    const everyMs = this.#options.everyS * 1000
    const again = async () => {
      const started = performance.now()
      await this.forecast()
      if (this.#closed) return
      this.#timer = setTimeout(again, Math.max(1000, everyMs - (performance.now() - started))).unref()
    }
    this.#timer = setTimeout(again, everyMs).unref()
  }

  /** One forecast; the signal stays as it is where it fails. */
  async forecast(): Promise<void> {
    const { ring, replicas, nowUs, log } = this.#source
    const setup = this.#source.setup()
    const serving = replicas()
    if (setup === null || serving === 0) return
    const { target, windowS, coldStartS, mostReplicas, downAfterS, share } = this.#options
    const atUs = nowUs()
    this.#wanted ??= new Wanted(downAfterS * 1e6, serving, atUs)
    const options = {
      target,
      windowS,
      coldStartS,
      most: MOST_PLAYED,
      replicas: serving,
      seed: this.#forecasts++,
    }
    try {
      const { advice, busyMs } = await this.#thread.ask({
        ...{ setup, copy: await ring.copy(), nowUs: atUs, share },
        options: { ...options, mostReplicas: Math.max(mostReplicas, serving) },
      })
      this.busyMs += busyMs
      const wanted = Math.min(this.#wanted.take(advice.best, atUs), Math.max(mostReplicas, serving))
      this.latest = { advice, wanted, atUs }
    } catch (error) {
      if (!this.#closed) log?.(`no forecast of replicas: ${(error as Error).message}`)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#thread.close()
  }
}
