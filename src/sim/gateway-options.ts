/** What a simulated gateway is given, and what came of it. */
import type { Effect, RequestId } from "../core/protocol.ts"
import type { DispatchEffect, DispatchEvent } from "../router/dispatch.ts"
import type { DispatcherOptions } from "../router/dispatcher.ts"
import type { Clients } from "./clients.ts"
import type { FleetOptions } from "./fleet.ts"
import type { Network } from "./gateway-faults.ts"
import type { LivesOptions } from "./lives.ts"
import type { SimRequest } from "./world.ts"

export interface GatewayOptions
  extends Pick<
      FleetOptions,
      "replicas" | "truth" | "noiseSigma" | "bias" | "seed" | "requests" | "follow" | "router" | "check"
    >,
    LivesOptions {
  /** Also the replicas' own invariants; `check` is of the dispatcher, and cheap. */
  checkCores?: boolean
  network?: Network
  /** Replicas say so often how busy they are, µs. Default: after each change. */
  digestUs?: number
  dispatch?: Omit<DispatcherOptions, "chances" | "router">
  /** Replicas say when a job's first step begins. Default true. */
  tellsStarts?: boolean
  /** How long a request waits for any replica, µs. Default: a minute. */
  patienceUs?: (request: SimRequest) => number
  /** Whether it is accepted only if a replica promises it. Default: none is. */
  onPromise?: (request: SimRequest) => boolean
  onEffect?: (effect: Effect, nowUs: number, replica: number, request: RequestId) => void
  /** Each time that a replica gets a request. */
  onGiven?: (request: RequestId, replica: number, nowUs: number) => void
  onDecision?: (event: DispatchEvent | null, effects: readonly DispatchEffect[], nowUs: number) => void
  /** Give up (throw) after so many events, or so long: something hangs. */
  mostEvents?: number
  mostUs?: number
}

export interface GatewayResult {
  endUs: number
  clients: Clients
  events: number
  /** Faults that did something. */
  faults: number
  /** Replicas that died, poisoned ones among them. */
  deaths: number
  resumed: number
}
