/** A replica played by hand in tests: what it is told, and what it wants done. */
import type { PlanningContext } from "./planner/context.ts"
import { vllm } from "./policy/vllm.ts"
import type { Batch, Effect, Progress, RequestId, RequestSpec, StepFailure, StepResult } from "./protocol.ts"
import { Replica, type ReplicaConfig } from "./replica.ts"
import { COST, LIMITS, specOf } from "./testing.ts"

export class Played {
  readonly replica: Replica
  nowUs = 0
  /** All effects so far, in order. */
  readonly effects: Effect[] = []
  /** What planning knows: set with the first decision, where the policy is not another one. */
  context: PlanningContext | null = null

  /** First come, first served, unless the config names another policy. */
  constructor(config: Partial<ReplicaConfig> = {}) {
    const policy: ReplicaConfig["policy"] = (options) => ({
      ...vllm(options),
      decide: (requests, batch, nowUs) => {
        this.context = batch.context
        vllm(options).decide(requests, batch, nowUs)
      },
    })
    this.replica = new Replica({ limits: LIMITS, cost: COST, policy, apps: 2, ...config })
  }

  arrives(id: RequestId, changes: Partial<RequestSpec> = {}, progress?: Progress): void {
    const request = specOf(id, changes)
    this.replica.handle({ type: "arrived", request, ...(progress && { progress }) }, this.nowUs)
  }
  cancels(id: RequestId): void {
    this.replica.handle({ type: "cancelled", id }, this.nowUs)
  }

  poll(): Effect[] {
    const effects = this.replica.poll(this.nowUs)
    this.effects.push(...effects)
    this.replica.check()
    return effects
  }

  /** The batch that it wants computed now. */
  runs(): Batch {
    const run = this.poll().find((effect) => effect.type === "run")
    if (run === undefined) throw new Error("nothing runs")
    return run.batch
  }

  /** A batch was computed: a token of each request that samples, but for these changes. */
  done(
    batch: Batch,
    changes: Record<RequestId, Partial<StepResult>> = {},
    durationUs = batch.predictedUs,
  ): void {
    this.nowUs += durationUs
    const results = batch.items.map(
      ({ id, sample }): StepResult => ({
        ...{ id, tokens: sample ? 1 : 0, stopped: false, answeringFrom: -1 },
        ...changes[id],
      }),
    )
    this.replica.handle({ type: "stepDone", batch: batch.number, durationUs, results }, this.nowUs)
  }

  /** Decide and compute one batch. */
  step(changes: Record<RequestId, Partial<StepResult>> = {}, durationUs?: number): Batch {
    const batch = this.runs()
    this.done(batch, changes, durationUs)
    return batch
  }

  fails(batch: Batch, reason: StepFailure): void {
    this.replica.handle({ type: "stepFailed", batch: batch.number, reason }, this.nowUs)
  }

  /** All effects of a type so far, those of the last event included. */
  of<T extends Effect["type"]>(type: T): Extract<Effect, { type: T }>[] {
    return this.effects.filter((effect): effect is Extract<Effect, { type: T }> => effect.type === type)
  }
}

/** Which requests a batch computes. */
export const aboard = (batch: Batch): RequestId[] => batch.items.map(({ id }) => id)
