/** Of too many requests, so many to think about: the first, but none of a tenant's that another's have pushed out of its
 * share (docs/design.md, Tenants). */
import type { Tenants } from "../learn/tenants.ts"
import type { LiveRequest } from "../request.ts"

/** `most` of `requests`, in their order. What a tenant leaves of its share is the others'. */
export function windowOf(
  requests: readonly LiveRequest[],
  most: number,
  tenants: Tenants,
): readonly LiveRequest[] {
  if (requests.length <= most) return requests
  const places = sharesOf(countByTenant(requests), most, tenants)
  if (places.size === 1) return requests.slice(0, most)
  const chosen: LiveRequest[] = []
  for (const request of requests) {
    const left = places.get(request.tenant)!
    if (left < 1) continue
    places.set(request.tenant, left - 1)
    chosen.push(request)
  }
  return chosen
}

function countByTenant(requests: readonly LiveRequest[]): Map<number, number> {
  const counts = new Map<number, number>()
  let [last, count] = [requests[0]!.tenant, 0]
  for (const { tenant } of requests) {
    if (tenant !== last) {
      counts.set(last, (counts.get(last) ?? 0) + count)
      last = tenant
      count = 0
    }
    count++
  }
  return counts.set(last, (counts.get(last) ?? 0) + count)
}

/** Places by weight, where none gets more than it asks for: those that ask for least first. */
function sharesOf(counts: ReadonlyMap<number, number>, most: number, tenants: Tenants): Map<number, number> {
  const byNeed = [...counts].sort(
    ([a, n], [b, m]) => n / tenants.weightOf(a) - m / tenants.weightOf(b) || a - b,
  )
  let weights = 0
  for (const [tenant] of byNeed) weights += tenants.weightOf(tenant)
  const places = new Map<number, number>()
  let left = most
  for (const [tenant, count] of byNeed) {
    const weight = tenants.weightOf(tenant)
    // One at least: with more tenants than places, each is thought about all the same.
    const share = Math.min(count, Math.max(1, Math.floor((left * weight) / weights)))
    places.set(tenant, share)
    left = Math.max(0, left - share)
    weights -= weight
  }
  return places
}
