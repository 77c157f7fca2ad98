/** What a driver does, gathered by moments, as it is told outside. */
import type { Effect } from "../core/protocol.ts"
import type { ReplicaDriver, StepReport } from "./driver.ts"
import { fromArrival, isObserved, type Observed, type ObservedEffect, type ObservedStep } from "./observed.ts"

export class DriverObserver {
  readonly #listeners = new Set<(observed: Observed) => void>()
  #effects: ObservedEffect[] = []
  #steps: ObservedStep[] = []

  constructor(driver: ReplicaDriver) {
    driver.observe((effect) => this.#effect(effect))
    driver.observeSteps((report) => {
      this.#note()
      this.#steps.push(stepOf(report))
    })
  }

  /** The answer ends that. */
  on(listener: (observed: Observed) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #effect(effect: Effect): void {
    if (!isObserved(effect)) return
    this.#note()
    this.#effects.push(
      effect.type === "finished" ? { ...effect, outcome: fromArrival(effect.outcome) } : effect,
    )
  }

  /** Told at the end of this moment. */
  #note(): void {
    if (this.#effects.length + this.#steps.length === 0) queueMicrotask(() => this.#tell())
  }

  #tell(): void {
    const observed = { effects: this.#effects, steps: this.#steps }
    this.#effects = []
    this.#steps = []
    for (const listener of this.#listeners) listener(observed)
  }
}

function stepOf({ batch, planUs, durationUs, failure, rows }: StepReport): ObservedStep {
  let tokens = 0
  for (const item of batch.items) tokens += item.tokens + item.draft
  return {
    ...{ requests: batch.items.length, tokens, planUs, predictedUs: batch.predictedUs, durationUs },
    failed: failure !== null,
    drafts: rows
      .filter(({ drafted }) => drafted > 0)
      .map((row) => ({ drafted: row.drafted, accepted: row.tokens.length - 1 })),
  }
}
