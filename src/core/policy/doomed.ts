/** Requests whose SLO cannot be met any more, whatever is done: they only take time from others. */
import type { PlanningContext } from "../planner/context.ts"
import { owedUs } from "../planner/prefill-time.ts"
import type { LiveRequest } from "../request.ts"

/** A token was late, or the first one will be even if its prefill has the engine to itself. */
export function isDoomed(request: LiveRequest, context: PlanningContext, nowUs: number): boolean {
  if (request.violated) return true
  if (request.output > 0) return false
  if (nowUs > request.deadlineUs) return true
  // Whatever it can share makes it sooner still: with thousands waiting most need not be looked up.
  if (nowUs + wholeUs(request, context) <= request.deadlineUs) return false
  return nowUs + aloneUs(request, context) > request.deadlineUs
}

/** What all it owes would take with the engine to itself if nothing of it could be shared, calibrated, µs. It has no token
 * yet: what it owes is known by what it has computed. */
function wholeUs(request: LiveRequest, context: PlanningContext): number {
  const { computed } = request
  if (request.wholeFrom !== computed) {
    request.wholeFrom = computed
    request.wholeUs = owedUs(request, computed, context.cost, context.limits.maxBatchTokens)
  }
  return request.wholeUs * context.calibration("mixed")
}

/** What its prefill still takes with the engine to itself, calibrated, µs. */
export function aloneUs(request: LiveRequest, context: PlanningContext): number {
  const start = context.startOf(request)
  if (request.aloneFrom !== start || request.aloneTo !== request.known) {
    request.aloneFrom = start
    request.aloneTo = request.known
    request.aloneUs = owedUs(request, start, context.cost, context.limits.maxBatchTokens)
  }
  return request.aloneUs * context.calibration("mixed")
}

/** Move the doomed to best-effort. */
export function demoteDoomed(
  requests: readonly LiveRequest[],
  context: PlanningContext,
  nowUs: number,
): void {
  for (const request of requests) {
    if (request.tier === "slo" && isDoomed(request, context, nowUs))
      context.demote(request, request.violated ? "violated" : "wontFit", "alone")
  }
}
