/** Requests whose SLO cannot be met any more, whatever is done: they only take time from others. */
import type { PlanningContext } from "../planner/context.ts"
import { prefillUs } from "../planner/prefill-time.ts"
import type { LiveRequest } from "../request.ts"

/** A token was late, or the first one will be even if its prefill has the engine to itself. */
export function isDoomed(request: LiveRequest, context: PlanningContext, nowUs: number): boolean {
  if (request.violated) return true
  if (request.output > 0) return false
  if (nowUs > request.deadlineUs) return true
  const start = context.startOf(request)
  const alone = prefillUs(context.cost, start, request.known - start, context.limits.maxBatchTokens)
  return nowUs + alone * context.calibration("mixed") > request.deadlineUs
}

/** Move the doomed to best-effort. */
export function demoteDoomed(
  requests: readonly LiveRequest[],
  context: PlanningContext,
  nowUs: number,
): void {
  for (const request of requests) {
    if (request.tier === "slo" && isDoomed(request, context, nowUs))
      context.demote(request, request.violated ? "violated" : "wontFit")
  }
}
