/** Requests whose SLO cannot be met any more, whatever is done: they only take time from others. */
import type { Draft } from "../planner/batch-builder.ts"
import { prefillUs } from "../planner/prefill-time.ts"
import type { LiveRequest } from "../request.ts"

/** A token was late, or the first one will be even if its prefill has the engine to itself. */
export function isDoomed(request: LiveRequest, draft: Draft, nowUs: number): boolean {
  if (request.violated) return true
  if (request.output > 0) return false
  if (nowUs > request.deadlineUs) return true
  const start = draft.startOf(request)
  const alone = prefillUs(draft.cost, start, request.known - start, draft.limits.maxBatchTokens)
  return nowUs + alone * draft.calibration(true) > request.deadlineUs
}

/** Move the doomed to best-effort. */
export function demoteDoomed(requests: readonly LiveRequest[], draft: Draft, nowUs: number): void {
  for (const request of requests) {
    if (request.tier === "slo" && isDoomed(request, draft, nowUs))
      draft.demote(request, request.violated ? "violated" : "wontFit")
  }
}
