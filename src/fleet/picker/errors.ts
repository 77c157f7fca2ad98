/** What a client is told whose request goes nowhere. */
import { UserError } from "../../errors.ts"
import type { DropReason } from "./messages.ts"

export function outOfOrder(what: string): UserError {
  return new UserError(`The data plane sent ${what} out of order.`, { status: 500 })
}

export function droppedError(reason: DropReason): UserError {
  const { status, message } = DROPPED[reason]
  return new UserError(message, { status, code: reason.replace(/-/g, "_") })
}

/** Room comes back; an endpoint is another matter. */
const DROPPED: Record<DropReason, { status: number; message: string }> = {
  "rejected-saturated": {
    status: 429,
    message:
      "The fleet is overloaded, and as many requests wait as may. Retry after the time in the Retry-After header.",
  },
  "rejected-ttl-expired": {
    status: 429,
    message: "No endpoint had room for this request in time. Retry after the time in the Retry-After header.",
  },
  "rejected-no-endpoints": {
    status: 503,
    message: "No endpoint is there for this request. Retry after the time in the Retry-After header.",
  },
  "rejected-shutting-down": {
    status: 503,
    message: "The endpoint picker is shutting down. Send the request again.",
  },
}
