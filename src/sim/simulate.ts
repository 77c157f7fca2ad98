/** The simplest simulation: a fleet of one replica, for tests and for tuning policies. */

import type { Effect, Event, RequestId, StepFailure } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import { simulateFleet } from "./fleet.ts"
import type { SimRequest } from "./world.ts"

export type { SimRequest } from "./world.ts"

export interface SimOptions {
  config: ReplicaConfig
  requests: readonly SimRequest[]
  /** A factor for each step's time; 1 = the cost model is exact. Called once a step, in order. */
  noise?: () => number
  /** Of the luck of speculation. Default 0. */
  seed?: number
  /** Makes the step of this batch number fail. */
  fails?: (batch: number) => StepFailure | null
  /** Run the replica's invariants after every poll. */
  check?: boolean
  onEffect?: (effect: Effect, nowUs: number) => void
  onEvent?: (event: Event, nowUs: number) => void
  /** What an ended request brings about: the next round of its session, at some later time. */
  follow?: (id: RequestId, nowUs: number) => SimRequest | null
  /** Give up (throw) after so many decisions: a policy that runs in circles must not run for ever. */
  maxPolls?: number
}

/** Run to the end; returns the time of the last event, µs. Deterministic: same options, same effects. */
export function simulate({ config, seed = 0, ...options }: SimOptions): number {
  return simulateFleet({ ...options, replicas: [config], seed }).endUs
}
