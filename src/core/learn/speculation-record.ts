/** What was drafted and accepted per app: for people to see, and for the planner's estimate. */

import type { AppSpeculation, StepResult } from "../protocol.ts"
import { Acceptance } from "./acceptance.ts"

/** Weight of a new decode step in the mean length. */
const WEIGHT = 0.02

export class SpeculationRecord {
  readonly acceptance: Acceptance
  readonly #apps: Omit<AppSpeculation, "acceptance" | "hitRate">[]
  /** Some request has drafted. */
  #any = false

  /** `prior`: acceptance assumed before any trial. */
  constructor(apps: number, prior: number) {
    this.acceptance = new Acceptance(prior)
    this.#apps = Array.from({ length: apps }, () => ({ length: 1, draftedTokens: 0, acceptedTokens: 0 }))
  }

  /** A step of `app` that sampled was asked to draft `asked` tokens. */
  observe(app: number, asked: number, result: StepResult): void {
    const drafted = result.drafted ?? asked
    if (!result.behind) this.acceptance.observe(app, asked, result.tokens, result.stopped, drafted)
    if (asked > 0) this.#any = true
    const counts = this.#any ? this.#apps[app] : undefined
    if (counts === undefined) return
    counts.length += WEIGHT * (1 + drafted - counts.length)
    counts.draftedTokens += drafted
    counts.acceptedTokens += result.tokens - 1
  }

  snapshot(): readonly AppSpeculation[] {
    if (!this.#any) return NONE
    const { acceptance } = this
    return this.#apps.map((counts, app) => ({
      acceptance: acceptance.of(app),
      hitRate: acceptance.hitRate(app),
      ...counts,
    }))
  }
}

const NONE: readonly AppSpeculation[] = []
