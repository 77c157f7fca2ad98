/** All that a replica learns while serving. */
import { type CostModel, stepUs } from "../cost.ts"
import type { FinishReason, Outcome, RequestSpec, StepResult } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { Calibration } from "./calibration.ts"
import { type LastStep, LastSteps } from "./last-steps.ts"
import { MissedSessions } from "./missed-sessions.ts"
import { OutputLengths } from "./output-lengths.ts"
import { Returns } from "./returns.ts"
import { SpeculationRecord } from "./speculation-record.ts"
import { Tenants } from "./tenants.ts"
import { ZeroLoad } from "./zero-load.ts"

/** What it is learnt about, and what is believed until then. */
export interface Prior {
  /** Number of apps (SLO classes). */
  apps: number
  /** Scatter of actual over predicted step times that the profile found. */
  residualSigma: number
  /** Probability that a drafted token is accepted. */
  acceptance: number
  tenantWeights: readonly number[] | undefined
  /** What a request of a tenant is served, tokens. */
  usualTokens: number
}

export class Learnt {
  readonly outputLengths: OutputLengths
  readonly calibration: Calibration
  readonly speculation: SpeculationRecord
  readonly tenants: Tenants
  readonly zeroLoad = new ZeroLoad()
  #lastSteps = new LastSteps()
  #missedSessions = new MissedSessions()
  #returns = new Returns()

  constructor({ apps, residualSigma, acceptance, tenantWeights, usualTokens }: Prior) {
    this.outputLengths = new OutputLengths(apps)
    this.calibration = new Calibration(residualSigma)
    this.speculation = new SpeculationRecord(apps, acceptance)
    this.tenants = new Tenants(tenantWeights, usualTokens)
  }

  /** What planning goes by. */
  forPlanning() {
    const { outputLengths, calibration, speculation, tenants } = this
    return { outputLengths, calibration, acceptance: speculation.acceptance, tenants }
  }

  /** A round of a session came: answers whether an earlier one has missed. */
  sessionMissed({ session }: RequestSpec): boolean {
    this.#returns.arrived(session)
    return this.#missedSessions.has(session)
  }

  /** A step of such a shape took `tookUs` until `endedUs`. */
  stepTook(step: LastStep, results: readonly StepResult[], cost: CostModel): void {
    const undrafted = step.kind === "drafted" && results.every(({ drafted }) => drafted === 0)
    const seen: LastStep = undrafted ? { ...step, kind: "decode" } : step
    this.#lastSteps.add(seen)
    this.#calibrate(seen, cost)
  }

  /** Predictions are those of `cost` from now on: the last steps teach what they do against it. */
  believe(cost: CostModel): void {
    this.calibration.restart(cost.residualSigma)
    for (const step of this.#lastSteps) this.#calibrate(step, cost)
  }

  #calibrate({ kind, shape, tookUs, endedUs }: LastStep, cost: CostModel): void {
    this.calibration.observe(kind, stepUs(cost, shape), tookUs, endedUs)
  }

  /** A request ended. Answers whether its session is likely to come back. */
  ended({ spec, output }: LiveRequest, reason: FinishReason, outcome: Outcome): boolean {
    // Cut at its limit, an output says only that it came so far.
    if (reason === "stop") this.outputLengths.ended(spec.app, output)
    this.#missedSessions.ended(spec, reason, outcome)
    return this.#returns.ended(spec)
  }
}
