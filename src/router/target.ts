/** What a router is given to choose with: replicas as seen from outside, and luck. */
import type { RequestSpec, Snapshot } from "../core/protocol.ts"

/** A replica as the router sees it. */
export interface Target {
  /** False once it is known to be lost. */
  readonly alive: boolean
  /** How busy it was when last heard of; maybe a while ago. */
  snapshot(): Snapshot
  /** Ask its planner whether it could keep the request's SLOs; a replica that does not answer declines. */
  offer(request: RequestSpec, nowUs: number): boolean
}

/** Uniform numbers in [0, 1): a kind that draws uses these, in order. */
export type Chances = readonly [number, number]
