/** Late work has its turn among tenants too. It asks for no promise: a tenant whose requests can all still be in time would be
 * promised whatever is freed, and another whose requests are all late would be served nothing (docs/design.md, Tenants). */
import type { LiveRequest } from "../request.ts"
import type { PlanningContext } from "./context.ts"

/** Over weight: the tenants that were served more have no turn, since late requests of another wait among `bestEffort`.
 * Infinity where all have. */
export function mostServedInTurn(bestEffort: readonly LiveRequest[], context: PlanningContext): number {
  const { tenants } = context
  if (!tenants.several || !tenants.someIsFarBehind) return Infinity
  // Thousands wait: one of each tenant says enough.
  const waiting = new Set<number>()
  for (const { id, tenant, spec } of bestEffort) {
    if (waiting.has(tenant) || spec.tier !== "slo" || context.kv.holds(id)) continue
    waiting.add(tenant)
    if (waiting.size === tenants.liveCount) break
  }
  let leastTokens = Infinity
  for (const tenant of waiting) leastTokens = Math.min(leastTokens, tenants.level(tenant))
  return leastTokens + tenants.farTokens
}

/** It was promised nothing, has not begun, and has no turn. */
export function isOutOfTurn(request: LiveRequest, mostTokens: number, context: PlanningContext): boolean {
  if (mostTokens === Infinity || request.admitted) return false
  return context.tenants.level(request.tenant) > mostTokens && !context.kv.holds(request.id)
}
