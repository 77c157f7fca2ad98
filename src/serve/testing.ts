/** Virtual time for tests of the real-time driver. */
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
