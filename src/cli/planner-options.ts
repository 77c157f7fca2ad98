/** What `slos-serve planner` was told on its command line. */
import type { PolicyName } from "../core/policy/index.ts"

export interface PlannerCommand {
  socket?: string
  config?: string
  policy: PolicyName
  set: string[]
  metricsPort?: number
  host: string
  maxLag: number
  record?: string
  exitWhenIdle: number
  logLevel?: string
}
