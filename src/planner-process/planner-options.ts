/** What a planner process is made of. */
import type { SloClasses } from "../config/slo-classes.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineMessage } from "../wire/planner/messages.ts"
import type { PlannerTenants } from "./planner-tenants.ts"
import type { RecordingFile } from "./recording.ts"
import type { StepTimes } from "./step-times.ts"

export interface PlannerOptions {
  classes: SloClasses
  tenants: PlannerTenants
  policy: PolicyName
  /** Only what was set. */
  policyOptions: Partial<PolicyOptions>
  /** What an engine's steps take: as far as is known before it has made any, and learnt from then on. */
  stepTimesOf: (engine: EngineMessage) => StepTimes
  /** What engines are told to wait for a plan, µs. */
  maxLagUs: number
  /** Of SLOs-Serve. */
  version: string
  recording: RecordingFile | null
  log: (message: string, level: "info" | "warn" | "error") => void
}
