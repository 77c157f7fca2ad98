/** What a router is given to choose with: replicas as last heard of, and luck. */
import type { RequestSpec, Snapshot } from "../core/protocol.ts"

/** A replica as the router sees it, without asking it anything. */
export interface ReplicaView {
  /** False once it is known to be lost. */
  readonly alive: boolean
  /** How busy it was when last heard of; maybe a while ago. `nowUs` says when, on the router's clock. The same object
   * until something else was heard. */
  snapshot(): Snapshot
}

/** A replica that answers at once. */
export interface Target extends ReplicaView {
  /** Ask its planner whether it could keep the request's SLOs; a replica that does not answer declines. */
  offer(request: RequestSpec, nowUs: number): boolean
}

/** What a router must know of a request. `prefix`: chain keys of what the prompt begins with, each over so many tokens as
 * the router was told (`keyTokens`): block hashes, or hashes of text where there is no tokenizer. */
export type Routed = Pick<RequestSpec, "session" | "promptTokens" | "prefix">

/** Uniform numbers in [0, 1): a kind that draws uses these, in order. */
export type Chances = readonly [number, number]
