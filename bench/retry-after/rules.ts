/** What refused requests may be told: the server's own word, the rule before it, and constants. */

import { backlogMs } from "../../src/replica/backlog.ts"
import type { ReplicaDriver } from "../../src/replica/driver.ts"
import { queueRefusal } from "../../src/serve/refusal.ts"

/** What a rule may know. */
export interface Seen {
  driver: ReplicaDriver
  /** Of what was refused: the refusal's own code is used only where this asks it. */
  told: () => number
  nowUs: number
  /** Uniform in [0, 1). */
  chance: () => number
}

export interface Rule {
  name: string
  /** A request left the queue, having been served. */
  left?(nowUs: number): void
  /** In how long to come back, ms. */
  tell(seen: Seen): number
}

const TENANT = { name: "default", number: 0 } as Parameters<typeof queueRefusal>[1]["tenant"]

/** As the server does it. */
export function toldByServer(driver: ReplicaDriver): number {
  const backlog = backlogMs(driver.snapshot())
  const refused = { queue: driver.queue, tenant: TENANT, choices: 1, backlogMs: backlog, detail: "" }
  return queueRefusal("queueFull", refused).retryMs!
}

export const RULES: readonly (() => Rule)[] = [
  () => ({ name: "its turn (the server's)", tell: ({ told }) => told() }),
  () => ({ name: "its turn, read in seconds", tell: ({ told }) => 1000 * Math.ceil(told() / 1000) }),
  () => new Turnover(),
  ...[1, 10].map((seconds) => () => ({ name: `always ${seconds} s`, tell: () => seconds * 1000 })),
]

const WINDOW_US = 10_000_000
const BUCKET_US = 250_000
const [LEAST_MS, MOST_MS] = [500, 60_000]

/** The rule until now: the time in which as many as are live left of late, or the planner's backlog, and up to half as much again. */
class Turnover implements Rule {
  readonly name = "turnover (before)"
  readonly #buckets = new Map<number, number>()
  #firstUs = Number.POSITIVE_INFINITY

  left(nowUs: number): void {
    const number = Math.floor(nowUs / BUCKET_US)
    this.#firstUs = Math.min(this.#firstUs, nowUs)
    this.#buckets.set(number, (this.#buckets.get(number) ?? 0) + 1)
  }

  tell({ driver, nowUs, chance }: Seen): number {
    const waitMs = Math.max(this.#waitMs(driver.queue.taken, nowUs), backlogMs(driver.snapshot()))
    return waitMs * (1 + chance() / 2)
  }

  #waitMs(ahead: number, nowUs: number): number {
    const oldest = Math.floor((nowUs - WINDOW_US) / BUCKET_US)
    let left = 0
    for (const [number, count] of this.#buckets) if (number > oldest) left += count
    const spanUs = Math.min(WINDOW_US, Math.max(BUCKET_US, nowUs - this.#firstUs))
    if (left === 0) return this.#firstUs === Number.POSITIVE_INFINITY ? LEAST_MS : WINDOW_US / 1000
    return Math.min(MOST_MS, Math.max(LEAST_MS, (ahead * spanUs) / left / 1000))
  }
}
