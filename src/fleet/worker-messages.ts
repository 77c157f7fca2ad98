/** What a worker process and its parent say to each other beside the wire: how it is made, and what it does until then. */

/** From the worker. */
export type FromWorker =
  /** What it is doing, for people. */
  | { type: "doing"; what: string }
  | { type: "log"; level: "fatal" | "error" | "warn" | "info" | "debug" | "trace"; message: string }
  /** The wire is open. */
  | { type: "ready" }
  /** It cannot start. `user`: for a reason that its operator can put right. */
  | { type: "failed"; message: string; user: boolean }

/** To the worker, after what it is told first. */
export interface ToWorker {
  type: "renew"
  maxQueue: number
  tenants: readonly { name: string; weight: number }[]
}

export function isToWorker(message: unknown): message is ToWorker {
  return isFromWorker(message) && (message as { type: string }).type === "renew"
}

/** The file descriptor of a worker's end of the wire. */
export const WIRE_FD = 4

export function isFromWorker(message: unknown): message is FromWorker {
  return typeof message === "object" && message !== null && "type" in message
}
