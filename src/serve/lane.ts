/** A queue of work of one kind, one piece at a time: of each tenant what is short first, but nothing for ever; and tenants
 * in turns, by what has been done for each. */
import type { SharedBound } from "./shared-bound.ts"

export interface Job<T> {
  /** How much work it is, in characters. */
  size: number
  /** Number of its tenant. */
  tenant?: number
  /** Aborted: it is not begun any more. */
  signal: AbortSignal
  work: () => Promise<T>
}

export interface LaneOptions {
  /** Most work that may wait, in characters. */
  waiting: SharedBound
  /** Its turns, against others' 1. */
  weightOf?: (tenant: number) => number
  /** Between two pieces, so that others have their turn. */
  pause?: () => Promise<unknown>
  nowMs?: () => number
}

interface Waiting {
  dueMs: number
  size: number
  tenant: number
  begin: (turn: boolean) => void
}

/** A piece may be overtaken by its tenant's others that come so much later: ten times what it takes about. */
const MS_PER_CHARACTER = 0.01

export class Lane {
  readonly #options: LaneOptions
  /** By the time they are due. */
  readonly #waiting: Waiting[] = []
  /** Characters over weight, by tenant: what was begun for it. */
  readonly #served = new Map<number, number>()
  /** What had been done for the tenant whose piece was begun last: one that comes has no credit for its absence. */
  #level = 0
  #busy = false

  constructor(options: LaneOptions) {
    this.#options = options
  }

  /** What the work answers; null when it was aborted before its turn, "full" when too much waits already. */
  async run<T extends object>(job: Job<T>): Promise<T | null | "full"> {
    if (job.signal.aborted) return null
    const { size, tenant = 0 } = job
    if (this.#busy) {
      if (!this.#options.waiting.take(size, tenant)) return "full"
      if (!(await this.#turn(job, tenant))) return null
    } else this.#begun(tenant, size)
    this.#busy = true
    try {
      return await job.work()
    } finally {
      void this.#next()
    }
  }

  #turn({ size, signal }: Job<object>, tenant: number): Promise<boolean> {
    return new Promise((resolve) => {
      const nowMs = (this.#options.nowMs ?? performance.now.bind(performance))()
      const waiting: Waiting = {
        dueMs: nowMs + size * MS_PER_CHARACTER,
        size,
        tenant,
        begin: (turn) => {
          signal.removeEventListener("abort", leave)
          this.#options.waiting.give(size, tenant)
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
    })
  }

  async #next(): Promise<void> {
    await this.#options.pause?.()
    const next = this.#first()
    if (next === undefined) {
      this.#busy = false
      this.#served.clear()
      return
    }
    this.#waiting.splice(this.#waiting.indexOf(next), 1)
    this.#begun(next.tenant, next.size)
    next.begin(true)
  }

  /** Of the tenant that has had the least, what is due first. */
  #first(): Waiting | undefined {
    let first = this.#waiting[0]
    for (const one of this.#waiting) if (this.#levelOf(one.tenant) < this.#levelOf(first!.tenant)) first = one
    return first
  }

  #levelOf(tenant: number): number {
    return Math.max(this.#served.get(tenant) ?? 0, this.#level)
  }

  #begun(tenant: number, size: number): void {
    this.#level = this.#levelOf(tenant)
    this.#served.set(tenant, this.#level + size / (this.#options.weightOf?.(tenant) ?? 1))
  }
}
