/** The kept candidates that may be turned down, and which is the first to go: one of the tenant that would have been
 * served most for its weight, what is kept of it included, and of its candidates the one that `goesBefore` the others.
 * Tenants that are about even count as one. What a tenant asks for counts from the start, up to a clear difference: else a
 * flood would be even with a single request until enough of it is kept. */
import type { Tenants } from "../learn/tenants.ts"
import type { LiveRequest } from "../request.ts"
import { type Candidate, goesBefore } from "./candidate.ts"

/** A promised request that decodes, and its row of the demand. */
export interface Promised {
  request: LiveRequest
  row: number
}

interface Line {
  tenant: number
  /** What its tenant was served, and how that grows with each token. */
  servedTokens: number
  perToken: number
  /** Tokens over weight of what is kept, and, as far as it counts, of what is asked for. */
  kept: number
  asked: number
  /** Some of it was turned down. */
  refused: boolean
  /** Candidates, the first to go on top. */
  heap: Candidate[]
  /** What runs of it and may be revoked, by due time. */
  promised: Promised[]
}

/** What is asked for counts up to so many times what is even. */
const CLEARLY = 2

export class Victims {
  #lines = new Map<number, Line>()
  #evenTokens = 0
  #farTokens = 0

  clear(): void {
    this.#lines.clear()
  }

  /** A candidate of `tenant` will be added that asks for so many tokens. */
  ask(tenant: number, tokens: number, tenants: Tenants): void {
    const line = this.#lineOf(tenant, tenants)
    line.asked = Math.min(CLEARLY * this.#evenTokens, line.asked + tokens * line.perToken)
  }

  /** `stays`: it may not be turned down. */
  add(candidate: Candidate, stays: boolean, tenants: Tenants): void {
    const line = this.#lineOf(candidate.request.tenant, tenants)
    line.kept += candidate.tokens * line.perToken
    if (!stays) push(line.heap, candidate)
  }

  addPromised(promised: Promised, tenants: Tenants): void {
    this.#lineOf(promised.request.tenant, tenants).promised.push(promised)
  }

  /** Takes the first to go; null when none may. */
  take(): Candidate | null {
    const line = this.#next()
    const victim = line === undefined ? null : pop(line.heap)
    if (victim === null) return null
    line!.kept -= victim.tokens * line!.perToken
    line!.refused = true
    return victim
  }

  /** Tenants of which some was turned down, though another was served clearly less. */
  tenantsAhead(): ReadonlySet<number> {
    let least = Infinity
    for (const line of this.#lines.values()) least = Math.min(least, levelOf(line))
    const ahead = new Set<number>()
    for (const line of this.#lines.values())
      if (line.refused && levelOf(line) > least + this.#evenTokens) ahead.add(line.tenant)
    return ahead
  }

  /** Tenants that another was served clearly more than. */
  tenantsBehind(): ReadonlySet<number> {
    const levels = Array.from(this.#lines.values(), levelOf)
    const highest = Math.max(...levels)
    const behind = new Set<number>()
    for (const line of this.#lines.values())
      if (levelOf(line) < highest - this.#evenTokens) behind.add(line.tenant)
    return behind
  }

  /** Promises of tenants that were served far more than the one whose candidate goes next: those of the most served
   * first, the last come first. */
  aheadOfNext(): Promised[] {
    const next = this.#next()
    if (next === undefined || this.#lines.size === 1) return []
    const ahead = [...this.#lines.values()].filter((line) => levelOf(line) > levelOf(next) + this.#farTokens)
    ahead.sort((a, b) => levelOf(b) - levelOf(a))
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
      this.#farTokens = tenants.farTokens
      line = {
        ...{ tenant, servedTokens: tenants.level(tenant), perToken: 1 / tenants.weightOf(tenant) },
        ...{ kept: 0, asked: 0, refused: false, heap: [], promised: [] },
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
    for (const line of this.#lines.values())
      if (line.heap.length > 0) highest = Math.max(highest, levelOf(line))
    let chosen: Line | undefined
    for (const line of this.#lines.values()) {
      const [top] = line.heap
      if (top === undefined || levelOf(line) < highest - this.#evenTokens) continue
      if (chosen === undefined || goesBefore(top, chosen.heap[0]!)) chosen = line
    }
    return chosen
  }
}

function levelOf({ servedTokens, kept, asked }: Line): number {
  return servedTokens + Math.max(kept, asked)
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
