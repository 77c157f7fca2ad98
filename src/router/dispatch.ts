/** The vocabulary of a fleet's dispatcher: what it is told (events), and what it wants done (effects). Times are µs on the
 * driver's clock. */
import type { RequestId, Snapshot } from "../core/protocol.ts"
import type { Routed } from "./target.ts"

/** One try of a request at one replica, from being asked to its end there. A number is not used again, so what a replica
 * says late, or twice, is told from what it says of a later try. */
export type JobId = number

/** Why a replica does not go on with a job. `full`: its queue is; `refused`: it never began for another reason; `died`: its
 * engine or the whole replica is gone; `broken`: it answered nonsense. */
export type LossReason = "full" | "refused" | "died" | "broken"

/** How a replica went down. `died`: its process ended, was killed, or cannot be reached; `closed`: it was stopped on purpose. */
export type DownCause = "died" | "closed"

export type DispatchEvent =
  /** A request came. `choices`: answers wanted of it, numbered from 0. `patienceUs`: waiting longer than this for any
   * replica is of no use to it. `onPromise`: where none promises to keep its SLOs it is not served: the queue is full. */
  | {
      type: "arrived"
      id: RequestId
      request: Routed
      choices: number
      patienceUs: number
      onPromise?: boolean
    }
  /** Its client has gone. */
  | { type: "cancelled"; id: RequestId }
  /** The answer to `ask`. */
  | { type: "offered"; job: JobId; replica: number; takes: boolean }
  /** Its first step has begun. A replica that says so of its jobs has the others known as waiting. */
  | { type: "started"; job: JobId }
  | { type: "progressed"; job: JobId; choice: number; tokens: number }
  | { type: "choiceEnded"; job: JobId; choice: number }
  /** Its SLOs will not be kept there. */
  | { type: "turnedDown"; job: JobId }
  /** The answer to `withdraw`: whether it is gone from there. */
  | { type: "withdrawn"; job: JobId; ok: boolean }
  | { type: "lost"; job: JobId; reason: LossReason }
  /** It is there, empty, and takes requests; also one that was not known before. */
  | { type: "replicaUp"; replica: number }
  | { type: "replicaDown"; replica: number; cause: DownCause }
  /** It is down, and takes requests again by then at the latest, as far as can be told; Infinity: it is not to be expected.
   * null: that is not known (any more). */
  | { type: "expected"; replica: number; byUs: number | null }
  /** It finishes what it has, and takes nothing new. */
  | { type: "replicaDraining"; replica: number }
  /** How busy it was then, on the driver's clock, and whether its engine computes. */
  | { type: "digest"; replica: number; snapshot: Snapshot; takenAtUs: number; computes: boolean }
  /** Any other sign of life. */
  | { type: "heard"; replica: number }
  /** The answer to `probe`. */
  | { type: "probed"; replica: number; ok: boolean }
  | { type: "woke" }

/** `noReplica`: none was there, or to be expected, while it could wait. `full`: every replica's queue is, or it was
 * to be served on promise only and none promised. `poison`: replicas die of it.
 * `unserved`: it was tried so often, and each time lost. */
export type FailReason = "noReplica" | "full" | "poison" | "unserved"

export type DispatchEffect =
  /** Ask whether it could keep the request's SLOs; no answer by `deadlineUs` is a no. */
  | { type: "ask"; job: JobId; id: RequestId; replica: number; deadlineUs: number }
  /** Give it the job. `resumed`: tokens of it are out, and it goes on after them. */
  | { type: "submit"; job: JobId; id: RequestId; replica: number; resumed: boolean }
  /** Have the job given up there, or what was prepared for an offer of it. Asked again until it is answered. */
  | { type: "withdraw"; job: JobId; replica: number }
  /** Nothing more of it is wanted. */
  | { type: "cancel"; job: JobId; replica: number }
  /** It ends without an answer; what is live of it is over. */
  | { type: "fail"; id: RequestId; reason: FailReason }
  /** It does not live any more (health.ts): end it, so that nothing goes on there. What it had is elsewhere from now on. */
  | { type: "giveUp"; replica: number; reason: "silent" | "stuck" }
  /** See whether it works. */
  | { type: "probe"; replica: number }
  /** Post `woke` at this time if nothing else happened before. */
  | { type: "wake"; atUs: number }
