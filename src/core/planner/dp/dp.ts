/** The paper's admission (arXiv 2504.08784 §4.1, Alg. 1): a dynamic program over requests by prefill deadline.
 * State: how many requests of each TPOT tier are accepted, and their memory; value: profit, the prefill budget
 * left over (more is better) and the time used (less is better). Unlike the published code it keeps the best final
 * state, the larger leftover, and one of equal states. Times in any one unit. */
import { Hope } from "./bound.ts"
import type { DpRequest } from "./request.ts"
import type { SegmentPlan } from "./segment.ts"

/** One accepted request, with how the segment up to its deadline is spent. */
export interface DpStep {
  request: number
  /** When the segment starts, and how long it may take. */
  from: number
  time: number
  /** Which of the segment plan's options. */
  option: number
}

export interface DpAnswer {
  /** In order of deadline. */
  steps: DpStep[]
  /** Of the accepted requests that were free to choose. */
  profit: number
  /** Decodes per tier at the end. */
  counts: number[]
}

/** States alive at once at most; beyond it the least promising go. */
const MOST_STATES = 512
/** A first pass with so few finds a good answer, which lets the second drop whatever cannot beat it. */
const SCOUTS = 24
/** Profits that differ by less are equal: sums of the same numbers in another order. */
const EQUAL = 1e-9

/** Reusable: one per planner, keeps its memory from one decision to the next. */
export class Dp {
  #size = 0
  #tiers = 0
  #profit = new Float64Array(256)
  #memory = new Float64Array(256)
  #leftover = new Float64Array(256)
  #at = new Float64Array(256)
  #key = new Float64Array(256)
  #parent = new Int32Array(256)
  #request = new Int32Array(256)
  #option = new Int32Array(256)
  #next = new Int32Array(256)
  #dead = new Uint8Array(256)
  #counts = new Uint16Array(256 * 4)
  #heads = new Map<number, number>()
  #alive: number[] = []
  #scratch = new Uint16Array(4)
  #hope = new Hope()
  #toBeat = -Infinity
  /** States were dropped that might have led to something better. */
  #cut = false
  /** Per state: the most profit that it may end with. */
  #most = new Float64Array(256)

  /** The most profitable set that holds every `must`, or null when not even those can be kept. `running`: decodes
   * per tier that go on. */
  solve(
    requests: readonly DpRequest[],
    now: number,
    freeMemory: number,
    plan: SegmentPlan,
    running: readonly number[],
  ): DpAnswer | null {
    if (!plan.sustains(running)) return null
    const order = requests.map((_, i) => i).sort((a, b) => requests[a]!.deadline - requests[b]!.deadline)
    this.#hope.reset(requests, order, freeMemory, plan)
    this.#toBeat = -Infinity
    const scouted = this.#pass(requests, order, now, freeMemory, plan, running, SCOUTS)
    if (!this.#cut) return scouted
    this.#toBeat = scouted?.profit ?? -Infinity
    const found = this.#pass(requests, order, now, freeMemory, plan, running, MOST_STATES)
    return scouted === null || (found !== null && found.profit > scouted.profit) ? found : scouted
  }

  #pass(
    requests: readonly DpRequest[],
    order: readonly number[],
    now: number,
    freeMemory: number,
    plan: SegmentPlan,
    running: readonly number[],
    mostStates: number,
  ): DpAnswer | null {
    this.#start(now, running)
    for (let j = 0; j < order.length; j++) {
      const index = order[j]!
      this.#extend(requests[index]!, index, requests.length, freeMemory, plan)
      this.#prune(j, order.length - 1, mostStates)
      if (this.#alive.length === 0) return null
    }
    let best = this.#alive[0]!
    for (const state of this.#alive) if (this.#better(state, best)) best = state
    return this.#answer(best, requests)
  }

  #start(now: number, running: readonly number[]): void {
    const tiers = running.length
    this.#size = 0
    this.#cut = false
    if (tiers !== this.#tiers) {
      this.#tiers = tiers
      this.#counts = new Uint16Array(this.#profit.length * tiers)
      this.#scratch = new Uint16Array(tiers)
    }
    this.#alive.length = 0
    this.#heads.clear()
    const root = this.#allocate()
    this.#profit[root] = this.#memory[root] = this.#leftover[root] = this.#key[root] = 0
    this.#at[root] = now
    this.#parent[root] = this.#request[root] = -1
    this.#counts.set(running)
    this.#enter(root)
  }

  /** Every state with `request` taken joins those without it (or replaces them, if it must be kept). */
  #extend(request: DpRequest, index: number, total: number, freeMemory: number, plan: SegmentPlan): void {
    const before = this.#alive
    if (request.must) {
      this.#alive = []
      this.#heads.clear()
    }
    const size = before.length
    const step = request.must ? 0 : (total + 1) ** request.tier
    for (let i = 0; i < size; i++) {
      const state = before[i]!
      const memory = this.#memory[state]! + request.memory
      if (memory > freeMemory) continue
      const counts = this.#scratch
      const row = state * this.#tiers
      for (let tier = 0; tier < counts.length; tier++) counts[tier] = this.#counts[row + tier]!
      const time = request.deadline - this.#at[state]!
      const options = plan.plan(time, counts)
      counts[request.tier]!++
      if (!plan.sustains(counts)) continue
      for (let option = 0; option < options; option++) {
        const leftover = this.#leftover[state]! + plan.tokens[option]! - request.owed
        if (leftover < 0) continue
        const taken = this.#allocate()
        this.#profit[taken] = this.#profit[state]! + (request.must ? 0 : request.profit)
        this.#memory[taken] = memory
        this.#leftover[taken] = leftover
        this.#at[taken] = this.#at[state]! + plan.elapsed[option]!
        this.#key[taken] = this.#key[state]! + step
        this.#parent[taken] = state
        this.#request[taken] = index
        this.#option[taken] = option
        this.#counts.set(counts, taken * this.#tiers)
        this.#enter(taken)
      }
    }
  }

  /** Join the living unless one with equal counts is as good in everything; those that it beats so die. */
  #enter(state: number): void {
    this.#dead[state] = 0
    const key = this.#key[state]!
    const head = this.#heads.get(key) ?? -1
    let last = -1
    for (let other = head; other >= 0; other = this.#next[other]!) {
      if (this.#dominates(other, state)) {
        // The newest state is the only one that nothing refers to.
        this.#size--
        return
      }
      if (this.#dominates(state, other)) {
        this.#dead[other] = 1
        if (last >= 0) this.#next[last] = this.#next[other]!
        else this.#heads.set(key, this.#next[other]!)
      } else last = other
    }
    this.#next[state] = this.#heads.get(key) ?? -1
    this.#heads.set(key, state)
    this.#alive.push(state)
  }

  #dominates(a: number, b: number): boolean {
    return (
      this.#profit[a]! >= this.#profit[b]! &&
      this.#leftover[a]! >= this.#leftover[b]! &&
      this.#at[a]! <= this.#at[b]! &&
      this.#memory[a]! <= this.#memory[b]!
    )
  }

  /** Forget the dead, those that cannot beat the best so far, and, beyond the limit, the least promising. */
  #prune(place: number, last: number, mostStates: number): void {
    const living = this.#alive.filter((state) => this.#dead[state] === 0)
    const tooMany = living.length > mostStates + 1 && place < last
    let kept = living
    if (living.length > 1 && (tooMany || this.#toBeat > -Infinity)) {
      for (const state of living) this.#most[state] = this.#mostOf(state, place)
      kept = living.filter((state) => this.#most[state]! > this.#toBeat + EQUAL)
      if (tooMany && kept.length > mostStates + 1) kept = this.#mostPromising(kept, mostStates)
    }
    if (kept.length === this.#alive.length) return
    this.#alive = kept
    this.#heads.clear()
    for (const state of kept) {
      this.#next[state] = this.#heads.get(this.#key[state]!) ?? -1
      this.#heads.set(this.#key[state]!, state)
    }
  }

  /** The most profit that a state which has decided up to `place` may end with. */
  #mostOf(state: number, place: number): number {
    const row = state * this.#tiers
    const counts = this.#scratch
    for (let tier = 0; tier < counts.length; tier++) counts[tier] = this.#counts[row + tier]!
    const [at, leftover, memory] = [this.#at[state]!, this.#leftover[state]!, this.#memory[state]!]
    return this.#profit[state]! + this.#hope.after(place, at, leftover, memory, counts)
  }

  /** The first `mostStates` by hope, and the one that took least on: it can keep what must be kept when all of great
   * hopes fail. */
  #mostPromising(states: number[], mostStates: number): number[] {
    this.#cut = true
    const most = this.#most
    let safe = states[0]!
    for (const state of states) if (this.#profit[state]! < this.#profit[safe]!) safe = state
    states.sort((a, b) => most[b]! - most[a]! || this.#leftover[b]! - this.#leftover[a]!)
    const kept = states.slice(0, mostStates)
    kept.push(kept.includes(safe) ? states[mostStates]! : safe)
    return kept
  }

  #better(a: number, b: number): boolean {
    if (this.#profit[a] !== this.#profit[b]) return this.#profit[a]! > this.#profit[b]!
    return this.#leftover[a]! > this.#leftover[b]!
  }

  #answer(best: number, requests: readonly DpRequest[]): DpAnswer {
    const steps: DpStep[] = []
    for (let state = best; this.#request[state]! >= 0; state = this.#parent[state]!) {
      const request = this.#request[state]!
      const from = this.#at[this.#parent[state]!]!
      const time = requests[request]!.deadline - from
      steps.push({ request, from, time, option: this.#option[state]! })
    }
    steps.reverse()
    const row = best * this.#tiers
    const counts = [...this.#counts.subarray(row, row + this.#tiers)]
    return { steps, profit: this.#profit[best]!, counts }
  }

  #allocate(): number {
    if (this.#size === this.#profit.length) this.#enlarge()
    return this.#size++
  }

  #enlarge(): void {
    const size = this.#profit.length * 2
    const floats = (old: Float64Array<ArrayBuffer>) => {
      const larger = new Float64Array(size)
      larger.set(old)
      return larger
    }
    const integers = (old: Int32Array<ArrayBuffer>) => {
      const larger = new Int32Array(size)
      larger.set(old)
      return larger
    }
    this.#profit = floats(this.#profit)
    this.#memory = floats(this.#memory)
    this.#leftover = floats(this.#leftover)
    this.#at = floats(this.#at)
    this.#most = floats(this.#most)
    this.#key = floats(this.#key)
    this.#parent = integers(this.#parent)
    this.#request = integers(this.#request)
    this.#option = integers(this.#option)
    this.#next = integers(this.#next)
    const dead = new Uint8Array(size)
    dead.set(this.#dead)
    this.#dead = dead
    const counts = new Uint16Array(size * this.#tiers)
    counts.set(this.#counts)
    this.#counts = counts
  }
}
