/** How long one decision of the planner takes on this machine: the only figures of a study that no seed repeats. */
import { POLICIES } from "../core/policy/index.ts"
import type { PolicyFactory } from "../core/policy/policy.ts"
import { type Quantiles, quantiles } from "../load/statistics.ts"
import { simulateFleet } from "../sim/fleet.ts"
import { replicaConfig } from "./run.ts"
import type { RunSpec } from "./spec.ts"
import { Workload } from "./workload.ts"

export interface PlannerLatency {
  scenario: string
  policy: string
  speculate: boolean
  /** Live requests at the decision: at most so many; the last bucket is open. */
  upTo: number
  us: Quantiles
}

const BUCKETS = [16, 64, 256, 1024, Infinity]
/** Decisions before the compiler has warmed up. */
const WARM_UP = 500

/** Plays the run on one replica and times every decision. */
export function plannerLatency(spec: RunSpec): PlannerLatency[] {
  const times = BUCKETS.map((): number[] => [])
  let decisions = 0
  const timed: PolicyFactory = (options) => {
    const policy = POLICIES[spec.policy](options)
    return {
      ...policy,
      decide(requests, draft, nowUs) {
        const startMs = performance.now()
        policy.decide(requests, draft, nowUs)
        const us = (performance.now() - startMs) * 1000
        if (++decisions > WARM_UP) times[BUCKETS.findIndex((most) => requests.length <= most)]!.push(us)
      },
    }
  }
  const workload = new Workload(spec)
  simulateFleet({
    replicas: [{ ...replicaConfig(spec), policy: timed }],
    requests: workload.first,
    noiseSigma: spec.noiseSigma,
    seed: spec.seed,
    follow: (id, nowUs) => workload.follow(id, nowUs),
  })
  return BUCKETS.flatMap((upTo, i) => {
    const us = quantiles(times[i]!)
    const { scenario, policy, speculate } = spec
    return us === null ? [] : [{ scenario, policy, speculate, upTo, us }]
  })
}
