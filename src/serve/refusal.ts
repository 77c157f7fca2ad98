/** Why requests find no place. */
import type { RejectReason } from "../core/protocol.ts"
import { type UserError, userError } from "../errors.ts"
import type { Places } from "../replica/places.ts"
import type { Tenant } from "./tenants.ts"

export interface Refused {
  queue: Pick<Places, "limit" | "taken" | "takenBy" | "shareOf" | "shared" | "turnMs">
  tenant: Tenant
  choices: number
  /** How long the planner is busy with what it has undertaken, ms. */
  backlogMs: number
  /** Why the engine is down, where it is. */
  detail: string
}

export function queueRefusal(
  reason: RejectReason,
  { queue, tenant, choices, backlogMs, detail }: Refused,
): UserError {
  const { limit, taken } = queue
  if (reason === "shuttingDown") return userError("shutting_down")
  if (reason === "engineDown") return userError("engine_down", { detail })
  if (choices > limit) return userError("queue_too_small", { limit, choices }, { param: "n" })
  const { name, number } = tenant
  const share = `; of its places tenant ${name} has ${queue.takenBy(number)}, and its share is ${queue.shareOf(number)}`
  const values = { limit, taken, choices, share: queue.shared ? share : "" }
  // There is room for it once others have left, and time once what was promised is done.
  return userError("queue_full", values, { retryMs: Math.max(queue.turnMs(choices), backlogMs) })
}
