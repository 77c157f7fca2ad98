/** What a scheduling policy is: given the live requests, fill the next batch. All state and rules that policies
 * share (KV, cost, tiers) live behind Draft, so that a policy fits on a screen. */

import type { PolicyOptions } from "../options.ts"
import type { Draft } from "../planner/batch-builder.ts"
import type { LiveRequest } from "../request.ts"

export interface Policy {
  readonly name: string
  /** KV of sessions that are not likely to come back goes before that of others, not by last use alone. */
  readonly keepsSessions?: boolean
  /** Fill `draft` with the next batch for `requests` (in order of arrival, none ended). Called when the engine
   * is free and some request is live. Leaving the draft empty means waiting for the next event. */
  decide(requests: readonly LiveRequest[], draft: Draft, nowUs: number): void
  /** Could `offered` join `requests` and be on time, if the next batch began at `atUs`, without giving up anyone
   * who is to be on time? Changes nothing. Left out by policies that promise nothing. */
  offer?(requests: readonly LiveRequest[], offered: LiveRequest, draft: Draft, atUs: number): boolean
}

export type PolicyFactory = (options: PolicyOptions) => Policy
