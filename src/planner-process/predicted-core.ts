/** A core that keeps one batch in flight, planned one step ahead: each batch is taken to have landed, as predicted, before the
 * next is decided. What really landed corrects it where a request has stopped. */
import type { Batch, Effect, Event } from "../core/protocol.ts"
import type { Core } from "./recording.ts"

export class PredictedCore {
  readonly #replica: Core
  #batch: Batch | null = null
  /** It was scheduled. */
  #ran = true
  #planUs = 0

  constructor(replica: Core) {
    this.#replica = replica
  }

  handle(event: Event, atUs: number): void {
    if (event.type === "ran") {
      if (event.batch === this.#batch?.number) this.#ran = event.items.length > 0
    } else if (event.type !== "stepDone") this.#replica.handle(event, Math.max(atUs, this.#planUs))
    else
      for (const { id, stopped } of event.results)
        if (stopped) this.#replica.handle({ type: "cancelled", id }, Math.max(atUs, this.#planUs))
  }

  poll(nowUs: number): Effect[] {
    const batch = this.#batch
    if (batch !== null && !this.#ran) {
      this.#ran = true
      return [{ type: "run", batch }]
    }
    this.#planUs = Math.max(this.#planUs, nowUs)
    if (batch !== null) this.#landAsPredicted(batch)
    const effects = this.#replica.poll(this.#planUs)
    const last = effects.at(-1)
    this.#batch = last?.type === "run" ? last.batch : null
    return effects
  }

  #landAsPredicted({ number, items, predictedUs }: Batch): void {
    this.#planUs += Math.round(predictedUs)
    const results = items.map(({ id, sample }) => ({
      ...{ id, tokens: sample ? 1 : 0, stopped: false, answeringFrom: -1 },
    }))
    this.#replica.handle({ type: "stepDone", batch: number, durationUs: predictedUs, results }, this.#planUs)
  }
}
