/** The kept candidates that may be turned down, and which is the first to go: one of the tenant that would have been
 * served most for its weight, what is kept of it included, and of its candidates the one that `goesBefore` the others.
 * Tenants that are about even count as one. */
import type { Tenants } from "../learn/tenants.ts"
import type { LiveRequest } from "../request.ts"
import { type Candidate, goesBefore } from "./candidate.ts"

/** A promised request that decodes, and its row of the demand. */
export interface Promised {
  request: LiveRequest
  row: number
}

interface Line {
  level: number
  perToken: number
  /** Candidates, the first to go on top. */
  heap: Candidate[]
  /** What runs of it and may be revoked, by due time. */
  promised: Promised[]
}

export class Victims {
  #lines = new Map<number, Line>()
  #evenTokens = 0

  clear(): void {
    this.#lines.clear()
  }

  /** `stays`: it may not be turned down. */
  add(candidate: Candidate, stays: boolean, tenants: Tenants): void {
    const line = this.#lineOf(candidate.request.tenant, tenants)
    line.level += candidate.tokens * line.perToken
    if (!stays) push(line.heap, candidate)
  }

  addPromised(promised: Promised, tenants: Tenants): void {
    this.#lineOf(promised.request.tenant, tenants).promised.push(promised)
  }

  /** Takes the first to go; null when none may. */
  take(): Candidate | null {
    const line = this.#next()
    const victim = line === undefined ? null : pop(line.heap)
    if (victim !== null) line!.level -= victim.tokens * line!.perToken
    return victim
  }

  /** Promises of tenants that were served clearly more than the one whose candidate goes next: those of the most served
   * first, the last come first. */
  aheadOfNext(): Promised[] {
    const next = this.#next()
    if (next === undefined || this.#lines.size === 1) return []
    const ahead = [...this.#lines.values()].filter(({ level }) => level > next.level + this.#evenTokens)
    ahead.sort((a, b) => b.level - a.level)
    return ahead.flatMap(({ promised }) => promised.sort((a, b) => b.request.order - a.request.order))
  }

  /** `promised` is none any more. */
  revoke({ request }: Promised): void {
    const line = this.#lines.get(request.tenant)!
    line.promised = line.promised.filter((other) => other.request !== request)
  }

  #lineOf(tenant: number, tenants: Tenants): Line {
    let line = this.#lines.get(tenant)
    if (line === undefined) {
      this.#evenTokens = tenants.evenTokens
      line = {
        ...{ level: tenants.level(tenant), perToken: 1 / tenants.weightOf(tenant) },
        ...{ heap: [], promised: [] },
      }
      this.#lines.set(tenant, line)
    }
    return line
  }

  #next(): Line | undefined {
    return this.#lines.size === 1 ? this.#lines.values().next().value : this.#mostServed()
  }

  #mostServed(): Line | undefined {
    let highest = -Infinity
    for (const { heap, level } of this.#lines.values())
      if (heap.length > 0 && level > highest) highest = level
    let chosen: Line | undefined
    for (const line of this.#lines.values()) {
      const [top] = line.heap
      if (top === undefined || line.level < highest - this.#evenTokens) continue
      if (chosen === undefined || goesBefore(top, chosen.heap[0]!)) chosen = line
    }
    return chosen
  }
}

function push(heap: Candidate[], candidate: Candidate): void {
  let at = heap.length
  heap.push(candidate)
  for (; at > 0; at = (at - 1) >> 1) {
    const parent = (at - 1) >> 1
    if (!goesBefore(candidate, heap[parent]!)) break
    heap[at] = heap[parent]!
  }
  heap[at] = candidate
}

function pop(heap: Candidate[]): Candidate | null {
  const top = heap[0]
  const last = heap.pop()
  if (top === undefined || last === undefined) return null
  if (heap.length === 0) return top
  let at = 0
  for (let child = 1; child < heap.length; child = 2 * at + 1) {
    if (child + 1 < heap.length && goesBefore(heap[child + 1]!, heap[child]!)) child++
    if (!goesBefore(heap[child]!, last)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = last
  return top
}
