/** What a backend is like, for forecasts of a fleet with more of its kind: its own rules on the step times that its twin learnt. */
import type { CostModel } from "../../core/cost.ts"
import type { PolicyName } from "../../core/policy/index.ts"
import type { EngineLimits } from "../../core/protocol.ts"
import type { PlannerView } from "../../replica/planner-view.ts"
import type { EngineRules } from "../engine-rules.ts"

/** A simulated pool has memory for each block. */
const MOST_KV_TOKENS = 2 ** 22

/** `planned`: a planner of ours chooses its batches. */
export function forecastView(
  limits: EngineLimits,
  rules: EngineRules,
  cost: CostModel,
  planned: boolean,
): PlannerView {
  const { contextTokens, maxSequences } = limits
  const kvTokens = Math.min(limits.kvTokens, maxSequences * contextTokens, MOST_KV_TOKENS)
  return {
    limits: { ...limits, kvTokens, contextTokens: Math.min(contextTokens, kvTokens) },
    cost,
    policy: planned ? "slos-serve" : policyOf(rules),
    options: { tokenBudget: rules.tokenBudget },
  }
}

function policyOf({ mixed, order }: EngineRules): PolicyName {
  if (!mixed) return "vllm-prefill-first"
  return order === "deadline" ? "vllm-priority" : "vllm"
}
