/** What a replica is made of, and the options that follow from it. */
import type { CostModel } from "./cost.ts"
import type { Prior } from "./learn/learnt.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "./options.ts"
import { prefillUs } from "./planner/prefill-time.ts"
import type { PolicyName } from "./policy/index.ts"
import type { PolicyFactory } from "./policy/policy.ts"
import type { EngineLimits } from "./protocol.ts"

export const DEFAULT_MAX_QUEUE = 10_000

export interface ReplicaConfig {
  limits: EngineLimits
  cost: CostModel
  /** A name of the table, or a policy of one's own. */
  policy: PolicyName | PolicyFactory
  /** Number of apps (SLO classes). */
  apps: number
  options?: Partial<PolicyOptions>
  /** By tenant: its share where not all fit, against 1 for tenants without one. */
  tenantWeights?: readonly number[]
  /** Most live requests; further ones are rejected (`queueFull`). Default 10,000. */
  maxQueue?: number
  /** Disaggregated serving: hand a request off as soon as it has yielded a token (effect `handedOff`). */
  prefillOnly?: boolean
  /** Most batches in flight, ≥ 1: with more than one, the next is decided on what those before it should yield, as of the time
   * when they should be done. They run in the order of their numbers. Default 1. */
  depth?: number
  /** The engine schedules only tokens that it knows, while so many batches are still being computed (the stages of a pipeline): a
   * request that should yield a token in one of these is not in the next. Default 0: what it schedules on has landed, or the
   * engine puts tokens in as they come. */
  tokenLag?: number
  /** The engine keeps its own account of KV (vLLM): it may run other items than planned (event `ran`), evict, find less cached
   * than is believed (StepResult.computed). The core adopts what it says. Default: a deviation is an error. */
  engineOwnsKv?: boolean
}

/** What is believed before anything was served. */
export function priorOf({ apps, cost, limits, tenantWeights }: ReplicaConfig, options: PolicyOptions): Prior {
  return {
    apps,
    residualSigma: cost.residualSigma,
    acceptance: options.acceptancePrior,
    tenantWeights,
    usualTokens: limits.contextTokens / 8,
  }
}

/** What was not set follows from the engine's speed. */
export function withDefaults(config: ReplicaConfig): PolicyOptions {
  const { cost, limits } = config
  const chunkUs = prefillUs(cost, 0, limits.minChunkTokens, limits.maxBatchTokens)
  return {
    ...DEFAULT_OPTIONS,
    // A batch must have room for a chunk beside the decodes, or no prompt moves while others decode; and be worth
    // its fixed cost. Drafts let decodes get ahead of their pace, so that batches can be longer still.
    maxBatchUs: Math.max(
      DEFAULT_OPTIONS.maxBatchUs,
      2 * chunkUs,
      (config.options?.speculation === "on" ? 7 : 5) * prefillUs(cost, 0, 1, limits.maxBatchTokens),
    ),
    bestEffortBatchUs: Math.max(DEFAULT_OPTIONS.bestEffortBatchUs, chunkUs),
    ...config.options,
  }
}
