/** The driver's clock: microseconds from an arbitrary start, and timers on the same scale. Tests and simulations
 * bring their own. */
import { setImmediate } from "node:timers"

export interface Clock {
  nowUs(): number
  /** Call `fn` once at `atUs` or soon after; the answer cancels it. */
  wakeAt(atUs: number, fn: () => void): () => void
  /** Call `fn` once when everything that happens at this moment has been posted. */
  soon(fn: () => void): void
}

export const realClock: Clock = {
  nowUs: () => Math.round(performance.now() * 1000),
  wakeAt(atUs, fn) {
    const timer = setTimeout(fn, Math.max(0, (atUs - performance.now() * 1000) / 1000))
    return () => clearTimeout(timer)
  },
  soon: (fn) => void setImmediate(fn),
}
