/** A fluid upper bound on capacity: no policy can hold a higher rate for long, whatever it knows. Tokens are computed in
 * batches as long as the requests' windows allow, KV is held while decoding, the costliest tenth is not served at all;
 * bursts, chunking and rounding are left out. It is one of means: a run that begins and ends empty may lie above it. */
import type { CostModel, CostPiece } from "../core/cost.ts"
import type { Hardware } from "../sim/presets.ts"
import { TARGET } from "./capacity.ts"
import type { RunSpec } from "./spec.ts"
import { type Job, Workload } from "./workload.ts"

export interface Bound {
  ratePerSec: number
  /** What stops a higher rate. */
  limit: "compute" | "memory" | "sequences"
  /** Drafted tokens a step at which it was reached. */
  draft: number
  stepMs: number
}

/** Step times tried, from the shortest to the longest in equal ratios. */
const STEPS = 400
const SHORTEST_S = 1e-4
const MOST_DRAFT = 8

export function boundOf(spec: RunSpec): Bound {
  return fluidBound(jobsOf(spec), spec.hardware, spec.replicas, spec.speculate ? spec.acceptance : null)
}

/** The requests of a run's plan with their windows. */
export function jobsOf(spec: RunSpec): Job[] {
  // Lengths are drawn apart from times, which do not matter here and may need a longer trace than there is.
  return new Workload({ ...spec, arrivals: "poisson" }).jobs()
}

/** Highest rate over step times and draft lengths. `acceptance` null: no speculation. */
export function fluidBound(
  jobs: readonly Job[],
  hardware: Hardware,
  replicas: number,
  acceptance: number | null,
): Bound {
  let best: Bound = { ratePerSec: 0, limit: "compute", draft: 0, stepMs: 0 }
  const cost = acceptance === null ? hardware.cost : (hardware.draftCost ?? hardware.cost)
  for (let draft = 0; draft <= (acceptance === null ? 0 : MOST_DRAFT); draft++) {
    const accepted = acceptance === null ? 1 : acceptedOf(acceptance, draft + 1)
    const longestS =
      (sum(jobs, (job) => job.windowS) /
        Math.max(
          1,
          sum(jobs, (job) => job.output),
        )) *
      accepted
    const computed = cheapest(jobs, (job) => job.prefill + ((job.output - 1) * (draft + 1)) / accepted)
    const held = cheapest(jobs, (job) => job.heldTokens / accepted)
    const steps = cheapest(jobs, (job) => job.output / accepted)
    for (let i = 1; i <= STEPS; i++) {
      const stepS = SHORTEST_S * (longestS / SHORTEST_S) ** (i / STEPS)
      const tokens = Math.min(hardware.maxBatchTokens, tokensWithin(cost, stepS * 1e6, draft))
      const limits = {
        compute: tokens / stepS / computed,
        memory: hardware.kvTokens / (held * stepS),
        sequences: hardware.maxSequences / (steps * stepS),
      }
      const limit = (Object.keys(limits) as Bound["limit"][]).reduce((a, b) =>
        limits[b] < limits[a] ? b : a,
      )
      const ratePerSec = replicas * limits[limit]
      if (ratePerSec > best.ratePerSec) best = { ratePerSec, limit, draft, stepMs: stepS * 1000 }
    }
  }
  return best
}

/** Expected tokens of a step that verifies `s` of them, the sure one included (paper: Acc). */
function acceptedOf(alpha: number, s: number): number {
  return alpha >= 1 ? s : (1 - alpha ** s) / (1 - alpha)
}

/** Most tokens of one step of this length, µs. Attention is left out: the bound stays one. */
function tokensWithin(cost: CostModel, stepUs: number, draft: number): number {
  const of = (piece: CostPiece) => {
    const left = stepUs - (piece.step ?? 0) - (piece.passes ?? 0) - (piece.specSteps ?? 0) * draft
    if (left < 0) return 0
    return piece.tokens ? left / piece.tokens : Infinity
  }
  return Math.min(...cost.pieces.map(of))
}

/** Mean per request, of which the costliest tenth costs nothing: it is dropped. */
function cheapest(jobs: readonly Job[], of: (job: Job) => number): number {
  const sorted = jobs.map(of).sort((a, b) => a - b)
  const kept = Math.ceil(TARGET * sorted.length)
  let total = 0
  for (let i = 0; i < kept; i++) total += sorted[i]!
  return Math.max(1e-9, total / Math.max(1, sorted.length))
}

function sum(jobs: readonly Job[], of: (job: Job) => number): number {
  return jobs.reduce((total, job) => total + of(job), 0)
}
