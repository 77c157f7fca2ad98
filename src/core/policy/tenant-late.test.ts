/** A tenant whose requests are all late already, beside one whose requests can still be in time: late ones ask for no
 * promise, but they have their turn. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import { COST, LIMITS, runs, specOf } from "../testing.ts"

const limits = { ...LIMITS, kvTokens: 16_384, maxSequences: 4 }
const SLO = { ttftUs: 150_000, ttftSlowdown: 0, tpotUs: 50_000, thinkingTpotUs: 50_000, maxGapUs: Infinity }
const SHAPE = { promptTokens: 20, maxOutputTokens: 8 }

const request = (id: number, tenant: number, atUs: number): SimRequest => ({
  ...{ atUs, outputTokens: SHAPE.maxOutputTokens },
  spec: specOf(id, { ...SHAPE, tenant, slo: SLO }),
})

test("a burst of one that comes at once is served beside another's flood that goes on", () => {
  const burst = Array.from({ length: 150 }, (_, i) => request(i, 1, 0))
  const flood = Array.from({ length: 1500 }, (_, i) => request(1000 + i, 0, i * 12_000))
  const ended: number[] = []
  simulate({
    config: { limits, cost: COST, policy: "slos-serve", apps: 1 },
    requests: [...burst, ...flood],
    check: true,
    onEffect: (effect) => {
      if (effect.type === "finished") ended.push(effect.id)
    },
  })
  expect(ended).toHaveLength(1650)
  // Half of what ended until then, but for what is even.
  const last = Math.max(...burst.map(({ spec }) => ended.indexOf(spec.id)))
  expect(last).toBeLessThan(2 * 150 + 6 * 16)
})

/** Clients of each tenant ask again as soon as they have their answer. How much more one tenant was served than another at
 * the end, in requests over weight. */
function apart(clients: readonly number[], tenantWeights: readonly number[]): number {
  const served = clients.map(() => 0)
  const tenantOf = new Map<number, number>()
  let [ids, left] = [0, 1200]
  const ask = (tenant: number, atUs: number) => {
    tenantOf.set(++ids, tenant)
    return request(ids, tenant, atUs)
  }
  simulate({
    config: { limits, cost: COST, policy: "slos-serve", apps: 1, tenantWeights },
    requests: clients.flatMap((count, tenant) => Array.from({ length: count }, () => ask(tenant, 0))),
    check: true,
    onEffect: (effect) => {
      if (effect.type === "finished" && left > 0) served[tenantOf.get(effect.id)!]!++
    },
    follow: (id, nowUs) => (--left > 0 ? ask(tenantOf.get(id)!, nowUs + 1000) : null),
  })
  const levels = served.map((count, tenant) => count / tenantWeights[tenant]!)
  return Math.max(...levels) - Math.min(...levels)
}

test("clients that ask again and again get their tenant's share, however late", () => {
  const tenants = fc.array(
    fc.record({ clients: fc.integer({ min: 8, max: 24 }), weight: fc.constantFrom(1, 2, 6) }),
    { minLength: 2, maxLength: 3 },
  )
  fc.assert(
    fc.property(tenants, (all) => {
      // None is served far more than another: four times what is even, which is sixteen requests.
      expect(
        apart(
          all.map(({ clients }) => clients),
          all.map(({ weight }) => weight),
        ),
      ).toBeLessThan(6 * 16)
    }),
    { numRuns: runs(10) },
  )
})
