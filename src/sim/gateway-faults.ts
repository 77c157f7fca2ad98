/** What goes wrong between a gateway and its replicas, and when. */
import type { RequestId } from "../core/protocol.ts"

/** Times are µs of virtual time; `replica` is an index into the fleet. */
export type GatewayFault =
  /** Its process dies; it is started again. */
  | { kind: "death"; replica: number; atUs: number }
  /** It does nothing for so long, and then goes on (SIGSTOP, SIGCONT). */
  | { kind: "freeze"; replica: number; atUs: number; forUs: number }
  /** Steps begun then take `factor` times as long. */
  | { kind: "slowSteps"; replica: number; fromUs: number; untilUs: number; factor: number }
  /** The connection breaks, and comes back. */
  | { kind: "cut"; replica: number; atUs: number; forUs: number }
  /** It takes nothing new for so long. */
  | { kind: "drain"; replica: number; atUs: number; forUs: number }
  /** It answers nonsense about one of its jobs. */
  | { kind: "nonsense"; replica: number; atUs: number }
  /** The gateway is killed; another one takes its place, which knows nothing. */
  | { kind: "gatewayLoss"; atUs: number }
  /** Every replica dies that computes this request's next token after so many. */
  | { kind: "poison"; request: RequestId; after: number }

/** Of messages, both ways. */
export interface Network {
  /** On the way, at least, and up to so much more, µs. */
  latencyUs: number
  jitterUs: number
  /** Chance that an answer to an offer or a withdrawal never comes, comes twice, or comes late by `lateUs`. */
  lost: number
  twice: number
  late: number
  lateUs: number
}

export const PERFECT: Network = { latencyUs: 0, jitterUs: 0, lost: 0, twice: 0, late: 0, lateUs: 0 }
