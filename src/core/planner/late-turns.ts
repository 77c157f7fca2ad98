/** Late work has its turn among tenants too. It asks for no promise: a tenant whose requests can all still be in time would be
 * promised whatever is freed, and another whose requests are all late would be served nothing (docs/design.md, Tenants). */
import type { LiveRequest } from "../request.ts"
import type { PlanningContext } from "./context.ts"

/** Over weight: the tenants that were served more have no turn, since late requests of another wait among `bestEffort`.
 * Infinity where all have. */
export function mostServedInTurn(bestEffort: readonly LiveRequest[], context: PlanningContext): number {
  const { tenants } = context
  if (!tenants.several) return Infinity
  let [leastTokens, last] = [Infinity, -1]
  for (const request of bestEffort) {
    if (request.tenant === last || request.spec.tier !== "slo" || context.kv.holds(request.id)) continue
    last = request.tenant
    leastTokens = Math.min(leastTokens, tenants.level(last))
  }
  return leastTokens + tenants.farTokens
}

/** It was promised nothing, has not begun, and has no turn. */
export function isOutOfTurn(request: LiveRequest, mostTokens: number, context: PlanningContext): boolean {
  if (mostTokens === Infinity || request.admitted) return false
  return context.tenants.level(request.tenant) > mostTokens && !context.kv.holds(request.id)
}
