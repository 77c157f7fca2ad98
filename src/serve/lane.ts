/** A queue of work of one kind, one piece at a time: what is short first, but nothing for ever. */

export interface Job<T> {
  /** How much work it is, in characters. */
  size: number
  /** Aborted: it is not begun any more. */
  signal: AbortSignal
  work: () => Promise<T>
}

export interface LaneOptions {
  /** Most work that may wait, in characters. */
  mostSize: number
  /** Between two pieces, so that others have their turn. */
  pause?: () => Promise<unknown>
  nowMs?: () => number
}

interface Waiting {
  dueMs: number
  size: number
  begin: (turn: boolean) => void
}

/** A piece may be overtaken by those that come so much later: ten times what it takes about. */
const MS_PER_CHARACTER = 0.01

export class Lane {
  readonly #options: LaneOptions
  /** By the time they are due. */
  readonly #waiting: Waiting[] = []
  #waitingSize = 0
  #busy = false

  constructor(options: LaneOptions) {
    this.#options = options
  }

  /** Characters that wait. */
  get waitingSize(): number {
    return this.#waitingSize
  }

  /** What the work answers; null when it was aborted before its turn, "full" when too much waits already. */
  async run<T extends object>(job: Job<T>): Promise<T | null | "full"> {
    if (job.signal.aborted) return null
    if (this.#busy) {
      if (this.#waitingSize + job.size > this.#options.mostSize) return "full"
      if (!(await this.#turn(job))) return null
    }
    this.#busy = true
    try {
      return await job.work()
    } finally {
      void this.#next()
    }
  }

  #turn({ size, signal }: Job<object>): Promise<boolean> {
    return new Promise((resolve) => {
      const nowMs = (this.#options.nowMs ?? performance.now.bind(performance))()
      const waiting: Waiting = {
        dueMs: nowMs + size * MS_PER_CHARACTER,
        size,
        begin: (turn) => {
          signal.removeEventListener("abort", leave)
          this.#waitingSize -= size
          resolve(turn)
        },
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
        waiting.begin(false)
      }
      signal.addEventListener("abort", leave)
      const after = this.#waiting.findIndex(({ dueMs }) => dueMs > waiting.dueMs)
      this.#waiting.splice(after < 0 ? this.#waiting.length : after, 0, waiting)
      this.#waitingSize += size
    })
  }

  async #next(): Promise<void> {
    await this.#options.pause?.()
    const next = this.#waiting.shift()
    if (next === undefined) this.#busy = false
    else next.begin(true)
  }
}
