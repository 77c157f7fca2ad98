/** What each tenant was served, against the others: a virtual counter of tokens over its weight. Counters stay within a
 * bound of the highest one. So a tenant that was away comes back with a bounded credit, however long it was away, and one
 * that had the engine to itself owes a bounded debt for it. */
import type { BatchItem } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"

/** Counters at the bound say no more than one that is not there: past so many they are looked through. */
const MOST_COUNTERS = 1000

/** Counters that differ by fewer requests are even: so much is chance where all behave, and to go by it would turn down
 * what is not the largest. */
const EVEN_REQUESTS = 16
/** Counters are far apart from so many such differences on: only then is a promise of one tenant broken for another, whose work so
 * far is lost, or its work held back, which may be late for it. */
const FAR_EVENS = 4
/** Bound of what is remembered, in such differences. */
const BOUND_EVENS = 8
/** A request weighs so much in the mean of their sizes, once there are some. */
const LEARNING_RATE = 0.01

export class Tenants {
  #weights: readonly number[] = []
  #allWeights = 0
  #served = new Map<number, number>()
  #highest = 0
  /** Live requests of each tenant that has any. */
  #live = new Map<number, number>()
  /** What a request is served, as a mean. */
  #usualTokens: number
  #endedCount = 0

  /** `weights` by tenant, others 1. `usualTokens`: what a request is served, until it is learnt. */
  constructor(weights: readonly number[] = [], usualTokens = 0) {
    this.reweigh(weights)
    this.#usualTokens = usualTokens
  }

  /** Other weights from now on. What each was served stays. */
  reweigh(weights: readonly number[]): void {
    this.#weights = [...weights]
    this.#allWeights = weights.reduce((sum, weight) => sum + weight, 0)
  }

  /** Requests of more than one tenant are live. */
  get several(): boolean {
    return this.#live.size > 1
  }

  weightOf(tenant: number): number {
    return this.#weights[tenant] ?? 1
  }

  /** Its counter: tokens over weight. Only differences mean anything. */
  level(tenant: number): number {
    return Math.max(this.#served.get(tenant) ?? 0, this.#highest - this.boundTokens)
  }

  /** It was served clearly more than `other`, for their weights. */
  isAhead(tenant: number, other: number): boolean {
    return this.level(tenant) > this.level(other) + this.evenTokens
  }

  /** Counters that differ by less are even, tokens over weight. */
  get evenTokens(): number {
    return EVEN_REQUESTS * this.#usualTokens
  }

  /** Counters that differ by more are far from each other, tokens over weight. */
  get farTokens(): number {
    return FAR_EVENS * this.evenTokens
  }

  /** No counter is further behind the highest one, tokens over weight. */
  get boundTokens(): number {
    return BOUND_EVENS * this.evenTokens
  }

  /** One that has live requests was served far less than the most. */
  get someIsFarBehind(): boolean {
    for (const tenant of this.#live.keys())
      if (this.level(tenant) + this.farTokens < this.#highest) return true
    return false
  }

  /** Tenants that have live requests. */
  get liveCount(): number {
    return this.#live.size
  }

  liveOf(tenant: number): number {
    return this.#live.get(tenant) ?? 0
  }

  arrived({ tenant }: Pick<LiveRequest, "tenant">): void {
    this.#live.set(tenant, this.liveOf(tenant) + 1)
  }

  left({ tenant }: Pick<LiveRequest, "tenant">): void {
    const count = this.liveOf(tenant) - 1
    if (count > 0) this.#live.set(tenant, count)
    else this.#live.delete(tenant)
  }

  /** A request's item was computed and yielded `tokens`. What is computed again, because its KV was taken, it does not owe
   * again; what it shares it never owes. */
  served(request: LiveRequest, { position, tokens: computed }: BatchItem, tokens: number): void {
    const reach = position + computed
    const fresh = Math.max(0, reach - Math.max(position, request.paidTokens))
    request.paidTokens = Math.max(request.paidTokens, reach)
    const { tenant } = request
    const level = this.level(tenant) + (fresh + tokens) / this.weightOf(tenant)
    this.#served.set(tenant, level)
    this.#highest = Math.max(this.#highest, level)
    if (this.#served.size > MOST_COUNTERS) this.#forget()
  }

  /** A queue of `length` takes `count` more requests. One that others have filled still takes what a tenant's share of it
   * holds, up to twice its length in all; and its share among all that have a weight even then. */
  hasPlace(tenant: number, length: number, most: number, count = 1): boolean {
    if (length + count <= most) return true
    const beforeLast = this.liveOf(tenant) + count - 1
    if (length + count <= 2 * most && beforeLast < this.queueShare(tenant, most)) return true
    const weight = this.#weights[tenant] ?? 0
    return beforeLast * this.#allWeights < most * weight
  }

  /** Of a queue of `most` requests, what `tenant` may fill where others wait as well. */
  queueShare(tenant: number, most: number): number {
    let weights = this.#live.has(tenant) ? 0 : this.weightOf(tenant)
    for (const other of this.#live.keys()) weights += this.weightOf(other)
    return (most * this.weightOf(tenant)) / weights
  }

  /** A request has ended that was served so many tokens. */
  ended(tokens: number): void {
    const rate = Math.max(LEARNING_RATE, 1 / ++this.#endedCount)
    this.#usualTokens += rate * (tokens - this.#usualTokens)
  }

  #forget(): void {
    const least = this.#highest - this.boundTokens
    for (const [tenant, level] of this.#served) if (level <= least) this.#served.delete(tenant)
  }
}
