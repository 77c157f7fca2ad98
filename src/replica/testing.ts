/** For tests of what serves: virtual time, an engine that breaks, and what memory still lives. */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Batch, EngineLimits, RequestId } from "../core/protocol.ts"
import type { Engine, ModelInfo, Sampling, StepOutput, Tokenizer } from "../engine/port.ts"
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

/** Bytes still taken by each of the requests between the measurements, an odd number of them `requests` apart: the first is
 * warming up, and of those before and after the middle the least counts, since recompiling shows for a while. */
export function keptBytes(measured: readonly number[], requests: number): number {
  const [_warming, ...warm] = measured
  const half = warm.length / 2
  return (Math.min(...warm.slice(half)) - Math.min(...warm.slice(0, half))) / (half * requests)
}

/** An engine whose steps can be held back, or made to fail. */
export class BreakableEngine implements Engine {
  readonly model: ModelInfo
  readonly limits: EngineLimits
  readonly tokenizer: Tokenizer
  readonly constraints: Engine["constraints"]
  /** Why a step fails; null: it does not. */
  fails: (batch: Batch) => string | null = () => null
  /** Steps begun. */
  steps = 0
  readonly #inner: Engine
  #held: Promise<void> | null = null
  #letGo: () => void = () => {}

  constructor(inner: Engine) {
    this.#inner = inner
    this.model = inner.model
    this.limits = inner.limits
    this.tokenizer = inner.tokenizer
    this.constraints = inner.constraints
  }

  /** Steps do not end until `letGo`: they are computed, and nothing is told. */
  hold(): void {
    this.#held = new Promise((resolve) => {
      this.#letGo = resolve
    })
  }
  letGo(): void {
    this.#held = null
    this.#letGo()
  }

  open(id: RequestId, prompt: Int32Array, sampling: Sampling, output?: Int32Array): void {
    this.#inner.open(id, prompt, sampling, output)
  }
  async execute(batch: Batch): Promise<StepOutput> {
    this.steps++
    const message = this.fails(batch)
    const output = await this.#inner.execute(message === null ? batch : { ...batch, items: [] })
    await this.#held
    return message === null ? output : { ok: false, reason: "engineError", message, durationUs: 1 }
  }
  async close(): Promise<void> {
    await this.#inner.close()
  }
}

/** An engine that after so many steps computes no request any more, only probes of one token. */
export function failingAfter(steps: number, inner: Engine): Engine {
  const engine = new BreakableEngine(inner)
  engine.fails = ({ items }) =>
    engine.steps > steps && items.some(({ position, tokens }) => position + tokens > 1) ? "too hard" : null
  return engine
}
