/** In which order requests of several tenants have their turn. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { Tenants } from "../learn/tenants.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf, runs } from "../testing.ts"
import { FairOrder, tokensToServe } from "./fair-order.ts"
import { emptyWork, sortWork } from "./work.ts"

interface Sent {
  weights: number[]
  served: number[]
  requests: LiveRequest[]
}

const sent = fc
  .record({
    weights: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 4 }),
    served: fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 4, maxLength: 4 }),
    sizes: fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 400 })), { maxLength: 40 }),
  })
  .map(
    ({ weights, served, sizes }): Sent => ({
      weights,
      served,
      requests: sizes.map(([tenant, promptTokens], id) =>
        liveOf(id, { tenant: tenant % weights.length, promptTokens, tier: "bestEffort" }),
      ),
    }),
  )

function contextWith({ weights, served, requests }: Sent) {
  const tenants = new Tenants(weights, 100)
  for (const tenant of weights.keys()) {
    tenants.served(
      liveOf(0, { tenant }),
      { id: 0, position: 0, tokens: served[tenant]!, sample: false, draft: 0 },
      0,
    )
  }
  for (const request of requests) tenants.arrived(request)
  return contextOf({ ...LIMITS, kvTokens: 64_000 }, { tenants })
}

const idsOf = (requests: readonly LiveRequest[], tenant: number) =>
  requests.filter((request) => request.tenant === tenant).map(({ id }) => id)

test("each tenant's own keep their order, and the next turn is of the one that was served least for its weight", () => {
  fc.assert(
    fc.property(sent, (given) => {
      const context = contextWith(given)
      const { tenants } = context
      const sorted = [...given.requests]
      new FairOrder().sort(sorted, context)
      if (!tenants.several) {
        expect(sorted).toEqual(given.requests)
        return
      }
      const clock = given.weights.map((_, tenant) => tenants.level(tenant))
      const left = given.weights.map((_, tenant) => idsOf(given.requests, tenant))
      for (const request of sorted) {
        const { tenant, id } = request
        expect(left[tenant]![0]).toBe(id)
        for (const [other, ids] of left.entries())
          if (ids.length > 0) expect(clock[tenant]!).toBeLessThanOrEqual(clock[other]! + 1e-6)
        left[tenant]!.shift()
        clock[tenant]! += tokensToServe(request, context) / tenants.weightOf(tenant)
      }
    }),
    { numRuns: runs(200) },
  )
})

test("the first to lose KV are best effort, of the tenant that was served most its last; promises come before", () => {
  const requests = [0, 1, 2, 3].map((id) => liveOf(id, { tenant: id % 2 }))
  const context = contextWith({ weights: [1, 1], served: [500, 1], requests })
  for (const id of [2, 3]) requests[id]!.tier = "bestEffort"
  const work = sortWork(requests, emptyWork())
  new FairOrder().sortWork(work, context)
  expect(work.byValue.map(({ id }) => id)).toEqual([1, 0, 3, 2])
  expect(work.bestEffort.map(({ id }) => id)).toEqual([3, 2])
})

test("prompts that were not thought about come after the kept ones, both by due time", () => {
  const prefills = [0, 1, 2, 3, 4].map((id) => liveOf(id, { tenant: id % 2 }))
  const { tenants } = contextWith({ weights: [1, 1], served: [1, 1], requests: prefills })
  new FairOrder().sortPrefills(prefills, new Set([prefills[1]!, prefills[4]!]), tenants)
  expect(prefills.map(({ id }) => id)).toEqual([1, 4, 0, 2, 3])
})
