/** How a fleet's requests end without an answer, and why a job ended at a replica, each in the other side's words. */
import { userError } from "../errors.ts"
import { type JobEnd, type JobLost, QUEUE_FULL, type ReplicaHost } from "../replica/host.ts"
import type { FailReason, LossReason } from "../router/dispatch.ts"

/** What a client is told of a request that the dispatcher has given up. */
export function endFor(
  reason: FailReason,
  hosts: readonly Pick<ReplicaHost, "name" | "state" | "detail">[],
): JobEnd {
  if (reason === "poison") {
    const detail = "each replica that had it died of it, so it is not handed on"
    return { kind: "failed", error: userError("engine_failed", { detail }) }
  }
  if (reason === "full") return { kind: "lost", reason: "refused", detail: QUEUE_FULL }
  const states = hosts.map(({ name, state, detail }) => `${name}: ${detail === "" ? state : detail}`)
  const detail = {
    unserved: "each that had it lost it",
    noReplica: `none is up (${states.join("; ")})`,
  }[reason]
  return { kind: "lost", reason: "refused", detail }
}

/** A replica that ends a job as cancelled, unasked, is about to stop. */
export function lossOf(end: { kind: "cancelled" } | JobLost): LossReason {
  if (end.kind === "cancelled") return "refused"
  return end.reason === "refused" && end.detail === QUEUE_FULL ? "full" : end.reason
}
