/** Endpoints that fail again and again are left out for a while, longer each time, and then tried again. */
import type { Endpoint } from "./chooser.ts"

/** Failures in a row. */
const MOST_FAILURES = 3
const FIRST_US = 1_000_000
const LONGEST_US = 30_000_000

interface Record {
  failures: number
  outUntilUs: number
  outUs: number
}

export class Ejections {
  readonly #records = new Map<Endpoint, Record>()

  /** Those that are not out; all of them where none is left. */
  left(endpoints: readonly Endpoint[], nowUs: number): readonly Endpoint[] {
    if (this.#records.size === 0) return endpoints
    const left = endpoints.filter((endpoint) => (this.#records.get(endpoint)?.outUntilUs ?? 0) <= nowUs)
    return left.length === 0 ? endpoints : left
  }

  /** How many are out. */
  count(nowUs: number): number {
    let count = 0
    for (const { outUntilUs } of this.#records.values()) if (outUntilUs > nowUs) count++
    return count
  }

  succeeded(endpoint: Endpoint): void {
    this.#records.delete(endpoint)
  }

  failed(endpoint: Endpoint, nowUs: number): void {
    const record = this.#records.get(endpoint) ?? { failures: 0, outUntilUs: 0, outUs: 0 }
    this.#records.set(endpoint, record)
    record.failures++
    // Once out, one more failure is enough; those of requests that were on their way already count once.
    if (record.failures < MOST_FAILURES || record.outUntilUs > nowUs) return
    record.outUs = Math.min(LONGEST_US, record.outUs === 0 ? FIRST_US : 2 * record.outUs)
    record.outUntilUs = nowUs + record.outUs
  }

  /** Endpoints that are gone are forgotten. */
  keep(endpoints: ReadonlySet<Endpoint>): void {
    for (const endpoint of this.#records.keys()) if (!endpoints.has(endpoint)) this.#records.delete(endpoint)
  }
}
