/** One answer per instance, whichever policy: the paper's planner at once, others run forward. */
import { Dp } from "../core/planner/dp/dp.ts"
import { POLICIES, type PolicyName } from "../core/policy/index.ts"
import { type Forward, planForward } from "./forward.ts"
import type { Instance, InstanceRequest } from "./instance.ts"
import { type Decided, planPaper } from "./paper.ts"

export interface SolveOptions {
  policy: PolicyName
  speculate: boolean
  /** Added to every predicted batch time. */
  margin: number
}

/** Nothing arrives while an instance is planned for, so a batch without decodes may be long. */
const MAX_BATCH_US = 1_000_000
/** Rounds of leaving requests out until the promises hold. */
const MOST_ROUNDS = 3

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
    // A plan that may draft need not: where drafts do not pay, the plan is one without.
    const drafting = this.#forward(instance, true)
    const better = isBetter(plain, drafting) ? plain : drafting
    return { ...better, us: plain.us + drafting.us }
  }

  /** The live policy with firm admission, since an instance asks which requests to promise an SLO for good. An answer
   * is checked by its own run, which serving cannot do: where running requests would be late, the least worthy
   * quarter of the new ones is left out, and those whose promise is broken as well. */
  #forward(instance: Instance, speculate: boolean): Forward {
    const { policy, margin } = this.#options
    const policyOptions = { maxBatchUs: MAX_BATCH_US, admission: "firm" as const }
    const fresh = instance.requests.filter((request) => request.new)
    // Whose service costs more than it is worth is not asked for.
    const without = new Set(fresh.filter(({ profit }) => profit < 0).map(({ id }) => id))
    let us = 0
    for (let round = 0; ; round++) {
      const options = { speculate, margin, without, options: policyOptions }
      const found = planForward(instance, POLICIES[policy], options, this.#clockUs)
      us += found.us
      const asked = fresh.filter(({ id }) => !without.has(id))
      if (asked.length === 0 || (found.feasible && found.broken.length === 0)) return { ...found, us }
      const out = round < MOST_ROUNDS ? toLeaveOut(asked, found) : asked.map(({ id }) => id)
      for (const id of out) without.add(id)
    }
  }
}

function isBetter(a: Forward, b: Forward): boolean {
  return a.feasible !== b.feasible ? a.feasible : a.profit > b.profit
}

function toLeaveOut(asked: readonly InstanceRequest[], found: Forward): number[] {
  if (found.feasible) return found.broken
  const worth = asked.toSorted((a, b) => a.profit / (a.remaining + 1) - b.profit / (b.remaining + 1))
  return worth.slice(0, Math.ceil(worth.length / 4)).map(({ id }) => id)
}
