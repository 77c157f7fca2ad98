/** What a scheduling policy is: given the live requests, fill the next batch. All state and rules that policies
 * share (KV, cost, tiers) live behind BatchBuilder and PlanningContext, so that a policy fits on a screen. */

import type { PolicyOptions } from "../options.ts"
import type { BatchBuilder } from "../planner/batch-builder.ts"
import type { PlanningContext } from "../planner/context.ts"
import type { LiveRequest } from "../request.ts"

export interface Policy {
  readonly name: string
  /** KV of sessions that are not likely to come back goes before that of others, not by last use alone. */
  readonly keepsSessions?: boolean
  /** Fill `batch` with the next batch for `requests` (in order of arrival, none ended). Called when the engine
   * is free and some request is live. Leaving it empty means waiting for the next event. */
  decide(requests: readonly LiveRequest[], batch: BatchBuilder, nowUs: number): void
  /** Could `offered` join `requests` and be on time, if the next batch began at `atUs`, without giving up any
   * that is to be on time? Changes nothing. Left out by policies that promise nothing. */
  offer?(
    requests: readonly LiveRequest[],
    offered: LiveRequest,
    context: PlanningContext,
    atUs: number,
  ): boolean
}

export type PolicyFactory = (options: PolicyOptions) => Policy
