/** What planning knows and may do besides the batch itself: the engine's limits and speed, what was learnt, who holds
 * which KV, and how a request's tier is changed. One for a replica's lifetime. */
import { type CostModel, type StepShape, stepUs } from "../cost.ts"
import type { KvAccount } from "../kv/account.ts"
import { Acceptance } from "../learn/acceptance.ts"
import type { Calibration } from "../learn/calibration.ts"
import type { OutputLengths } from "../learn/output-lengths.ts"
import type { DemoteReason, EngineLimits } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { RunningShape } from "./shape.ts"

/** What planning needs done to requests; the replica turns it into effects. */
export interface PlanningActions {
  demoted(request: LiveRequest, reason: DemoteReason): void
  promoted(request: LiveRequest): void
  admitted(request: LiveRequest): void
  preempted(request: LiveRequest): void
}

/** What a context is made of. */
export interface PlanningParts {
  limits: EngineLimits
  cost: CostModel
  kv: KvAccount
  outputLengths: OutputLengths
  calibration: Calibration
  actions: PlanningActions
  /** Default: nothing was drafted yet, and 0.7 of what will be is accepted. */
  acceptance?: Acceptance
}

export class PlanningContext {
  readonly limits: EngineLimits
  readonly cost: CostModel
  readonly kv: KvAccount
  readonly outputLengths: OutputLengths
  /** What drafting yields, per app. */
  readonly acceptance: Acceptance
  readonly actions: PlanningActions
  /** To ask how long some other batch than the one under construction would take. */
  readonly scratchShape: RunningShape
  readonly #calibration: Calibration

  constructor({ limits, cost, kv, outputLengths, calibration, actions, acceptance }: PlanningParts) {
    this.limits = limits
    this.cost = cost
    this.kv = kv
    this.outputLengths = outputLengths
    this.acceptance = acceptance ?? new Acceptance(0.7)
    this.actions = actions
    this.scratchShape = new RunningShape(cost)
    this.#calibration = calibration
  }

  /** Time of some step, by the calibrated model, µs. */
  stepUs(shape: StepShape, withPrefill: boolean): number {
    return stepUs(this.cost, shape) * this.#calibration.ratio(withPrefill)
  }
  calibration(withPrefill: boolean): number {
    return this.#calibration.ratio(withPrefill)
  }

  /** Where computing `request` would start: after what it holds, or after what it can share. */
  startOf(request: LiveRequest): number {
    if (request.computed > 0 || request.prefix.length === 0 || this.kv.holds(request.id))
      return request.computed
    return this.kv.match(request.prefix, request.spec.promptTokens)?.tokens ?? 0
  }

  demote(request: LiveRequest, reason: DemoteReason): void {
    if (request.tier === "bestEffort") return
    request.tier = "bestEffort"
    request.admitted = false
    this.actions.demoted(request, reason)
  }
  promote(request: LiveRequest): void {
    request.tier = "slo"
    this.actions.promoted(request)
  }
  admit(request: LiveRequest): void {
    if (request.admitted) return
    request.admitted = true
    this.actions.admitted(request)
  }
}
