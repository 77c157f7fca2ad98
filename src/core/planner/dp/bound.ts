/** How much profit a partial set of the dynamic program may still gain: the requests to come as a fractional
 * knapsack, once by memory and once by the tokens that can be computed until the last deadline. */
import type { DpRequest } from "./request.ts"
import { type SegmentPlan, usedTiers } from "./segment.ts"

/** Reusable. Bounds are optimistic: a state is dropped only if even its bound beats nothing. */
export class Hope {
  #plan: SegmentPlan | null = null
  #freeMemory = 0
  #until = 0
  /** Free requests by profit per memory, and by profit per token. Parallel: place in the order, cost, profit. */
  #byMemory = new Knapsack()
  #byTokens = new Knapsack()

  reset(
    requests: readonly DpRequest[],
    order: readonly number[],
    freeMemory: number,
    plan: SegmentPlan,
  ): void {
    this.#plan = plan
    this.#freeMemory = freeMemory
    this.#until = order.length > 0 ? requests[order.at(-1)!]!.deadline : 0
    const free: number[] = []
    for (let place = 0; place < order.length; place++) if (!requests[order[place]!]!.must) free.push(place)
    const at = (place: number) => requests[order[place]!]!
    this.#byMemory.reset(
      free,
      (place) => at(place).memory,
      (place) => at(place).profit,
    )
    this.#byTokens.reset(
      free,
      (place) => at(place).owed + Math.max(0, this.#until - at(place).deadline) / plan.tpots[at(place).tier]!,
      (place) => at(place).profit,
    )
  }

  /** Most profit to come for a state that has decided up to `place`. */
  after(place: number, at: number, leftover: number, memory: number, counts: ArrayLike<number>): number {
    const plan = this.#plan!
    let rate = plan.rate(usedTiers(counts))
    for (let tier = 0; tier < counts.length; tier++) rate -= counts[tier]! / plan.tpots[tier]!
    const tokens = leftover + 1 + Math.max(0, rate * (this.#until - at))
    // Requests that must be kept may lie ahead: what they need is not subtracted, which is only more optimistic.
    return Math.min(this.#byMemory.most(place, this.#freeMemory - memory), this.#byTokens.most(place, tokens))
  }
}

class Knapsack {
  #size = 0
  #place = new Int32Array(0)
  #cost = new Float64Array(0)
  #profit = new Float64Array(0)
  /** Sums over the first so many of the items after `#after`. */
  #after = Number.NaN
  #items = 0
  #costs = new Float64Array(1)
  #profits = new Float64Array(1)

  reset(places: readonly number[], cost: (place: number) => number, profit: (place: number) => number): void {
    const sorted = places
      .filter((place) => profit(place) > 0)
      .sort((a, b) => profit(b) * cost(a) - profit(a) * cost(b))
    this.#size = sorted.length
    this.#after = Number.NaN
    if (this.#place.length < sorted.length) {
      this.#place = new Int32Array(sorted.length)
      this.#cost = new Float64Array(sorted.length)
      this.#profit = new Float64Array(sorted.length)
      this.#costs = new Float64Array(sorted.length + 1)
      this.#profits = new Float64Array(sorted.length + 1)
    }
    for (let i = 0; i < sorted.length; i++) {
      this.#place[i] = sorted[i]!
      this.#cost[i] = cost(sorted[i]!)
      this.#profit[i] = profit(sorted[i]!)
    }
  }

  /** Most profit of the items after `place` within `capacity`, the last one taken in part. */
  most(place: number, capacity: number): number {
    // All states of a place are asked about in a row.
    if (place !== this.#after) this.#sum(place)
    const costs = this.#costs
    let whole = 0
    for (let high = this.#items + 1; high - whole > 1; ) {
      const middle = (whole + high) >> 1
      if (costs[middle]! <= capacity) whole = middle
      else high = middle
    }
    const total = this.#profits[whole]!
    if (whole === this.#items) return total
    const part = (capacity - costs[whole]!) / (costs[whole + 1]! - costs[whole]!)
    return total + part * (this.#profits[whole + 1]! - total)
  }

  #sum(place: number): void {
    let items = 0
    for (let i = 0; i < this.#size; i++) {
      if (this.#place[i]! <= place) continue
      this.#costs[items + 1] = this.#costs[items]! + this.#cost[i]!
      this.#profits[items + 1] = this.#profits[items]! + this.#profit[i]!
      items++
    }
    this.#items = items
    this.#after = place
  }
}
