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
    let timer: NodeJS.Timeout
    // Node cuts delays to whole milliseconds, counts them from the beginning of this round of the event loop, and so calls
    // early: the state machines do nothing before a time that they named, and named no other.
    const wait = () => {
      const leftUs = atUs - realClock.nowUs()
      timer = setTimeout(
        () => (realClock.nowUs() < atUs ? wait() : fn()),
        Math.max(0, Math.ceil(leftUs / 1000)),
      )
    }
    wait()
    return () => clearTimeout(timer)
  },
  soon: (fn) => void setImmediate(fn),
}
