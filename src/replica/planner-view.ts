/** What a replica's planner goes by, for forecasts of a fleet with more like it. */
import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineLimits } from "../core/protocol.ts"
import type { Replica } from "../core/replica.ts"

export interface PlannerView {
  limits: EngineLimits
  cost: CostModel
  policy: PolicyName
  options: Partial<PolicyOptions>
}

export function plannerOf({ limits, cost, options, policy }: Replica): PlannerView {
  return { limits, cost, options, policy: policy.name as PolicyName }
}
