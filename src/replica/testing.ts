/** For tests of what serves: virtual time, and what memory still lives. */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Clock } from "./clock.ts"

/** Time that moves only when everything at the present moment is done. */
export class VirtualClock implements Clock {
  #nowUs = 0
  #timers: { atUs: number; order: number; fn: () => void }[] = []
  #soon: (() => void)[] = []
  #order = 0

  nowUs(): number {
    return this.#nowUs
  }
  wakeAt(atUs: number, fn: () => void): () => void {
    const timer = { atUs: Math.max(atUs, this.#nowUs), order: this.#order++, fn }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }
  soon(fn: () => void): void {
    this.#soon.push(fn)
  }

  /** Run until nothing is left to happen. */
  async run(): Promise<void> {
    for (;;) {
      await settled()
      const soon = this.#soon.splice(0)
      for (const fn of soon) fn()
      if (soon.length > 0) continue
      const atUs = Math.min(...this.#timers.map((timer) => timer.atUs))
      if (atUs === Infinity) return
      this.#nowUs = atUs
      const due = this.#timers.filter((timer) => timer.atUs === atUs).sort((a, b) => a.order - b.order)
      this.#timers = this.#timers.filter((timer) => timer.atUs !== atUs)
      for (const timer of due) timer.fn()
    }
  }
}

/** Promise chains of the present moment have run (an engine step resolves through several). */
async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve()
}

/** Bytes of live objects and their buffers, compiled code left out. */
export function liveBytes(): number {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc") as () => void
  for (let i = 0; i < 2; i++) collect()
  const spaces = getHeapSpaceStatistics().filter(({ space_name }) => /^(old|large_object)/.test(space_name))
  return spaces.reduce((sum, space) => sum + space.space_used_size, process.memoryUsage().arrayBuffers)
}

/** Bytes still taken by each of the requests between the measurements, five of them `requests` apart: the first is
 * warming up, and of two at either end the lesser counts, since recompiling shows for a moment. */
export function keptBytes(measured: readonly number[], requests: number): number {
  const [_warming, a, b, c, d] = measured as [number, number, number, number, number]
  return (Math.min(c, d) - Math.min(a, b)) / (2 * requests)
}
