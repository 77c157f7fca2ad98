/** What happens in a replica, for metrics: the core's effects, and what its steps took, as plain data. */
import type { Effect, Outcome } from "../core/protocol.ts"

/** Effects that are of interest outside: not those that only the driver carries out. */
export type ObservedEffect = Extract<
  Effect,
  { type: "token" | "finished" | "admitted" | "demoted" | "promoted" | "preempted" | "rejected" }
>

/** A decision and its step. */
export interface ObservedStep {
  requests: number
  /** Computed and drafted. */
  tokens: number
  /** Time of the decision, µs. */
  planUs: number
  /** Calibrated, without margin. */
  predictedUs: number
  durationUs: number
  failed: boolean
  /** Of each request that drafted: tokens drafted, and how many of them were accepted. */
  drafts: readonly { drafted: number; accepted: number }[]
}

/** All of one moment, in order. Ids are the replica's own. */
export interface Observed {
  effects: readonly ObservedEffect[]
  steps: readonly ObservedStep[]
}

const OBSERVED = ["token", "finished", "admitted", "demoted", "promoted", "preempted", "rejected"]

export function isObserved(effect: Effect): effect is ObservedEffect {
  return OBSERVED.includes(effect.type)
}

/** The same with times from arrival: another process has another clock. */
export function fromArrival(outcome: Outcome): Outcome {
  const { arrivalUs, startedUs, firstTokenUs, finishedUs } = outcome
  const since = (us: number) => (us < 0 ? -1 : us - arrivalUs)
  return {
    ...outcome,
    arrivalUs: 0,
    startedUs: since(startedUs),
    firstTokenUs: since(firstTokenUs),
    finishedUs: since(finishedUs),
  }
}
