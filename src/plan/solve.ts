/** One answer per instance, whichever policy: the paper's planner at once, others run forward. */
import { Dp } from "../core/planner/dp.ts"
import { POLICIES, type PolicyName } from "../core/policy/index.ts"
import { type Forward, planForward } from "./forward.ts"
import type { Instance } from "./instance.ts"
import { type Decided, planPaper } from "./paper.ts"

export interface SolveOptions {
  policy: PolicyName
  speculate: boolean
  /** Added to every predicted batch time. */
  margin: number
}

/** Nobody arrives while an instance is planned for, so a batch without decodes may be long. */
const MAX_BATCH_US = 1_000_000
/** Rounds of leaving requests out until memory and promises hold. */
const MOST_ROUNDS = 12

/** Reusable; `clockUs` is any clock in microseconds. */
export class Solver {
  #dp = new Dp()
  #options: SolveOptions
  #clockUs: () => number

  constructor(options: SolveOptions, clockUs: () => number) {
    this.#options = options
    this.#clockUs = clockUs
  }

  solve(instance: Instance): Decided {
    const { policy, speculate, margin } = this.#options
    if (policy === "slos-serve-paper") return planPaper(instance, speculate, margin, this.#dp, this.#clockUs)
    const plain = this.#forward(instance, false)
    if (!speculate) return plain
    // Who may draft need not: where drafts do not pay, the plan is one without.
    const drafting = this.#forward(instance, true)
    const better = isBetter(plain, drafting) ? plain : drafting
    return { ...better, us: plain.us + drafting.us }
  }

  /** Run forward; whoever breaks a promise, or does not fit the instance's sum of memory, is left out the next
   * time. Running requests that are late cost the least worthy new one. */
  #forward(instance: Instance, speculate: boolean): Forward {
    const { policy, margin } = this.#options
    // Whose service costs more than it is worth is not asked for.
    const without = new Set(instance.requests.filter((r) => r.new && r.profit < 0).map((r) => r.id))
    let us = 0
    for (let round = 0; ; round++) {
      const options = { speculate, margin, without, options: { maxBatchUs: MAX_BATCH_US } }
      const found = planForward(instance, POLICIES[policy], options, this.#clockUs)
      us += found.us
      const out = round < MOST_ROUNDS ? toLeaveOut(instance, found, without) : everyone(instance, found)
      if (out.length === 0) return { ...found, us }
      for (const id of out) without.add(id)
    }
  }
}

function isBetter(a: Forward, b: Forward): boolean {
  return a.feasible !== b.feasible ? a.feasible : a.profit > b.profit
}

function toLeaveOut(instance: Instance, found: Forward, without: ReadonlySet<number>): number[] {
  const fresh = instance.requests.filter((request) => request.new && !without.has(request.id))
  if (!found.feasible) {
    const worth = fresh.sort((a, b) => a.profit / (a.remaining + 1) - b.profit / (b.remaining + 1))
    return worth.slice(0, Math.ceil(worth.length / 4)).map((request) => request.id)
  }
  if (found.broken.length > 0) return found.broken
  const accepted = fresh.filter((request) => found.accepted.includes(request.id))
  let over = accepted.reduce((sum, request) => sum + request.mem, 0) - instance.mem_free
  const out: number[] = []
  for (const request of accepted.sort((a, b) => a.profit * b.mem - b.profit * a.mem)) {
    if (over <= 0) break
    over -= request.mem
    out.push(request.id)
  }
  return out
}

/** Out of rounds: only a plan that holds may stand. */
function everyone(instance: Instance, found: Forward): number[] {
  const blocks = instance.requests
    .filter((request) => found.accepted.includes(request.id))
    .reduce((sum, request) => sum + request.mem, 0)
  if (found.feasible && blocks <= instance.mem_free) return []
  return found.accepted
}
