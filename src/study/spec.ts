/** What one simulated experiment is: plain data, so that it can be sent to a worker, hashed and written down. */

import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { ArrivalName } from "../load/arrivals.ts"
import type { SloClasses, ZeroLoad } from "../load/classes.ts"
import type { RouterOptions } from "../router/router.ts"
import type { Hardware } from "../sim/presets.ts"

/** A prefill/decode split of the fleet (DistServe): how many replicas do which. */
export interface Split {
  prefill: number
  decode: number
  /** Offers on both sides (sim/fleet.ts). */
  offers?: boolean
}

/** Everything that decides the outcome of one run. The same spec gives the same report, byte for byte. */
export interface RunSpec {
  scenario: string
  policy: PolicyName
  options: Partial<PolicyOptions>
  hardware: Hardware
  replicas: number
  ratePerSec: number
  /** Span of the arrivals, s: lead-in and counted part together. */
  durationS: number
  /** Requests that arrive in this first share of the span warm the system up and are not counted. */
  leadIn: number
  seed: number
  arrivals: ArrivalName
  burstiness: number
  /** Step times are multiplied by exp(sigma·normal). */
  noiseSigma: number
  /** Step times are multiplied by this, which the planner does not know. */
  bias: number
  /** What steps really take, where the planner's cost model is another; default: what the planner believes. */
  truth?: CostModel
  /** The planner is not told what steps take: it begins with a guess of a GPU, and learns. */
  learnCost?: boolean
  /** Most batches in flight at a replica (ReplicaConfig.depth). Default 1. */
  depth?: number
  speculate: boolean
  /** Probability that a drafted token is accepted. */
  acceptance: number
  /** Paths of trace files by app. */
  traces: Record<string, string>
  /** All lengths are divided by this. */
  scale: number
  classes: SloClasses
  /** Zero-load prefill time that TTFT slowdowns multiply; default: the hardware's cost model, no draft. */
  zeroLoad?: ZeroLoad
  /** The planner is told each output's length (an oracle): only for comparisons that say so. */
  knownLengths: boolean
  maxSequenceTokens: number
  /** null: what suits the policy (`routerFor`). */
  router: RouterOptions | null
  split: Split | null
  /** Step times of the replicas against the hardware's, in turn: each planner knows its own. Default: all alike. */
  paces?: readonly number[]
  /** The router sees replicas as they were at least so long ago, ms. Default 0. */
  staleMs?: number
  /** A saved plan instead of a scenario. */
  plan?: string
}

/** Arguments that most runs share. */
export const RUN_DEFAULTS = {
  options: {},
  replicas: 1,
  leadIn: 0.1,
  seed: 1,
  arrivals: "gamma",
  burstiness: 0.5,
  noiseSigma: 0.05,
  bias: 1,
  speculate: false,
  acceptance: 0.7,
  traces: {},
  scale: 1,
  knownLengths: false,
  router: null,
  split: null,
} as const satisfies Partial<RunSpec>

/** A policy that makes promises is asked for one, at first and again when it turns a request down; the others' requests
 * go to the least loaded replica. Rounds of a session go where its KV is, whatever the policy: else most of a tool
 * session would be computed again each round. */
export function routerFor(policy: PolicyName): RouterOptions {
  return policy === "slos-serve"
    ? { kind: "offer", affinity: true, reoffers: 3 }
    : { kind: "least-loaded", affinity: true }
}
