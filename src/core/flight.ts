/** The batch that the engine is computing: whose its items are, how long it should take, and which requests left
 * meanwhile. */
import { assert } from "./assert.ts"
import type { StepShape } from "./cost.ts"
import type { StepKind } from "./learn/calibration.ts"
import type { BatchBuilder } from "./planner/batch-builder.ts"
import type { Batch, RequestId } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

const NO_SHAPE: StepShape = {
  ...{ tokens: 0, sequences: 0, passes: 0, fastPairs: 0, slowPairs: 0, outputs: 0, specSteps: 0 },
}

export class Flight {
  #batch: Batch | null = null
  /** Whose the items are, in their order; those of the last batch once it has landed. */
  requests: readonly LiveRequest[] = []
  /** What its time depends on. */
  shape: StepShape = NO_SHAPE
  kind: StepKind = "decode"
  /** When it should land, absolute µs. */
  endsUs = 0
  /** Requests that ended in the air: the engine may be computing them, so their KV is free when it lands. */
  #left: RequestId[] = []

  /** The engine is computing. */
  get up(): boolean {
    return this.#batch !== null
  }

  takeOff(batch: Batch, built: BatchBuilder, nowUs: number): void {
    this.#batch = batch
    this.requests = built.requests
    this.shape = built.shape()
    this.kind = built.kind
    this.endsUs = nowUs + batch.predictedUs
  }

  /** The engine is done with batch `number`. */
  land(number: number): Batch {
    const batch = this.#batch
    assert(batch !== null && batch.number === number, `batch ${number} is not the one in flight`)
    this.#batch = null
    return batch
  }

  carries(id: RequestId): boolean {
    return this.#batch?.items.some((item) => item.id === id) ?? false
  }

  left(id: RequestId): void {
    this.#left.push(id)
  }
  cameBack(id: RequestId): void {
    this.#left = this.#left.filter((other) => other !== id)
  }
  /** The requests that left since it was asked last. */
  takeLeft(): readonly RequestId[] {
    if (this.#left.length === 0) return this.#left
    const left = this.#left
    this.#left = []
    return left
  }
}
