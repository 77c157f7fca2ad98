/** The last steps, so that what they teach can be told again against another cost model. */
import type { StepShape } from "../cost.ts"
import type { StepKind } from "./calibration.ts"

/** A ratio has found its place after as many (calibration.ts). */
const KEPT = 64

export interface LastStep {
  kind: StepKind
  shape: StepShape
  tookUs: number
  endedUs: number
}

export class LastSteps {
  #steps: LastStep[] = []
  #next = 0

  add(step: LastStep): void {
    this.#steps[this.#next] = step
    this.#next = (this.#next + 1) % KEPT
  }

  /** In their order. */
  *[Symbol.iterator](): Generator<LastStep> {
    yield* this.#steps.slice(this.#next)
    yield* this.#steps.slice(0, this.#next)
  }
}
