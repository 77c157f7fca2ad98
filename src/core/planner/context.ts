/** What planning knows and may do besides the batch itself: the engine's limits and speed, what was learnt, which
 * request holds what KV, and how a request's tier is changed. One for a replica's lifetime. */
import { type CostModel, type StepShape, stepUs } from "../cost.ts"
import type { KvAccount } from "../kv/account.ts"
import { KvNeed } from "../kv/need.ts"
import { Acceptance } from "../learn/acceptance.ts"
import { type Calibration, type StepKind, stepKind } from "../learn/calibration.ts"
import type { OutputLengths } from "../learn/output-lengths.ts"
import { Tenants } from "../learn/tenants.ts"
import type { DemoteBound, DemoteReason, Effect, EngineLimits } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { RunningShape } from "./shape.ts"

/** What planning needs done to requests; the replica turns it into effects. */
export interface PlanningActions {
  demoted(request: LiveRequest, reason: DemoteReason): void
  promoted(request: LiveRequest): void
  admitted(request: LiveRequest): void
  preempted(request: LiveRequest): void
}

export function asEffects(push: (effect: Effect) => void): PlanningActions {
  return {
    demoted: ({ id }, reason) => push({ type: "demoted", id, reason }),
    promoted: ({ id }) => push({ type: "promoted", id }),
    admitted: ({ id }) => push({ type: "admitted", id }),
    preempted: ({ id }) => push({ type: "preempted", id }),
  }
}

/** What a context is made of. */
export interface PlanningParts {
  limits: EngineLimits
  cost: CostModel
  kv: KvAccount
  outputLengths: OutputLengths
  calibration: Calibration
  /** Added to predicted times instead of what steps teach. */
  margin?: number | null
  actions: PlanningActions
  /** Most batches in flight while one is decided: default none. */
  ahead?: number
  /** Default: nothing was drafted yet, and 0.7 of what will be is accepted. */
  acceptance?: Acceptance
  /** Default: nothing was served yet, all weigh the same. */
  tenants?: Tenants
}

export class PlanningContext {
  readonly limits: EngineLimits
  /** Until `believe`. */
  cost: CostModel
  readonly kv: KvAccount
  readonly need: KvNeed
  readonly outputLengths: OutputLengths
  /** What drafting yields, per app. */
  readonly acceptance: Acceptance
  readonly tenants: Tenants
  readonly actions: PlanningActions
  /** Most batches that are still to be computed when one is decided: what arrives then waits for all of them. */
  readonly ahead: number
  /** The last of these is planned anew for what arrived meanwhile, where it should last so long, µs. */
  renewsFromUs = Infinity
  /** To ask how long some other batch than the one under construction would take. */
  scratchShape: RunningShape
  readonly #calibration: Calibration
  readonly #margin: number | null
  /** Times what is usual, of the step that is decided now. */
  #momentary = 1

  constructor(parts: PlanningParts) {
    const { limits, cost, kv, outputLengths, calibration, actions, acceptance } = parts
    this.limits = limits
    this.cost = cost
    this.kv = kv
    this.need = new KvNeed(kv)
    this.outputLengths = outputLengths
    this.acceptance = acceptance ?? new Acceptance(0.7)
    this.tenants = parts.tenants ?? new Tenants()
    this.actions = actions
    this.ahead = parts.ahead ?? 0
    this.scratchShape = new RunningShape(cost)
    this.#calibration = calibration
    this.#margin = parts.margin ?? null
  }

  /** Steps are timed by this model from now on. */
  believe(cost: CostModel): void {
    this.cost = cost
    this.scratchShape = new RunningShape(cost)
  }

  /** Time of some step, by the calibrated model, µs. */
  stepUs(shape: StepShape, withPrefill: boolean): number {
    return stepUs(this.cost, shape) * this.#calibration.ratio(stepKind(withPrefill, shape.specSteps > 0))
  }
  calibration(kind: StepKind): number {
    return this.#calibration.ratio(kind)
  }
  /** The same for the step that is decided now: what the last one says of the machine holds for the next. */
  nextCalibration(kind: StepKind): number {
    return this.#calibration.ratio(kind) * this.#momentary
  }
  /** A step is decided at `nowUs`. */
  begin(nowUs: number): void {
    this.#momentary = this.#calibration.momentary(nowUs)
  }
  /** Share to add to the predicted time of a step for it to be kept, as a rule. */
  margin(kind: StepKind): number {
    return this.#margin ?? this.#calibration.margin(kind)
  }

  /** See KvNeed. */
  startOf(request: LiveRequest): number {
    return this.need.startOf(request)
  }

  demote(request: LiveRequest, reason: DemoteReason, bound: DemoteBound = "time"): void {
    if (request.tier === "bestEffort") return
    request.tier = "bestEffort"
    request.admitted = false
    request.account?.demoted(reason, bound)
    this.actions.demoted(request, reason)
  }
  promote(request: LiveRequest): void {
    request.tier = "slo"
    request.account?.promoted()
    this.actions.promoted(request)
  }
  admit(request: LiveRequest): void {
    if (request.admitted) return
    request.admitted = true
    request.account?.promised()
    this.actions.admitted(request)
  }
}
