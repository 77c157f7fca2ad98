/** Tenants beside each other under the default policy: one that floods takes nothing that another was promised. */
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { PolicyOptions } from "../options.ts"
import { COST, LIMITS, specOf } from "../testing.ts"

const limits = { ...LIMITS, kvTokens: 16_384, maxSequences: 64, contextTokens: 2048 }

/** Requests of tenant 1, a second apart, beside bursts of `burst` of tenant 0 that come at the same moments. `tenant`: of
 * the latter. */
function keptOf(
  burst: number,
  tenant: number,
  changes: Parameters<typeof specOf>[1] = {},
  options: Partial<PolicyOptions> = {},
) {
  const request = (id: number, atUs: number, of: number): SimRequest => ({
    atUs,
    outputTokens: 30,
    spec: specOf(id, {
      tenant: of,
      slo: { ttftUs: 150_000, ttftSlowdown: 0, tpotUs: 50_000, thinkingTpotUs: 50_000, maxGapUs: Infinity },
      ...changes,
    }),
  })
  const requests: SimRequest[] = []
  for (let second = 0; second < 10; second++) {
    for (let i = 0; i < burst; i++) requests.push(request(1000 * second + i + 1, second * 1e6, tenant))
    requests.push(request(1000 * (second + 1), second * 1e6, 1))
  }
  const kept = new Set<number>()
  simulate({
    config: { limits, cost: COST, policy: "slos-serve", apps: 1, options },
    requests,
    check: true,
    onEffect: (effect) => {
      if (effect.type === "finished" && effect.outcome.attained) kept.add(effect.id)
    },
  })
  const own = [...kept].filter((id) => id % 1000 === 0).length
  return { own, others: kept.size - own }
}

test("beside a flood it keeps what it keeps alone; without tenants it would not", () => {
  expect(keptOf(0, 0).own).toBe(10)
  expect(keptOf(100, 0).own).toBe(10)
  expect(keptOf(100, 1).own).toBeLessThan(10)
})

test("the flood has what is left, as much as if it were alone", () => {
  const beside = keptOf(100, 0)
  const together = keptOf(100, 1)
  expect(beside.own + beside.others).toBeGreaterThan(0.9 * (together.own + together.others))
})

test("its prompts are kept though they are the largest, which go first within a tenant", () => {
  const long = { promptTokens: 400 }
  expect(keptOf(100, 0, long).own).toBe(10)
})

test("the dynamic program keeps them, too", () => {
  const [long, firm] = [{ promptTokens: 400 }, { admission: "firm" as const, margin: 0 }]
  expect(keptOf(100, 0, long, firm).own).toBe(10)
  expect(keptOf(100, 1, long, firm).own).toBeLessThan(10)
})

test("best effort: tenants take turns, not their requests", () => {
  const ends: number[] = []
  const request = (id: number, tenant: number): SimRequest => ({
    atUs: id,
    outputTokens: 20,
    spec: specOf(id, { tenant, tier: "bestEffort" }),
  })
  const requests = Array.from({ length: 200 }, (_, id) => request(id, 0))
  simulate({
    config: { limits, cost: COST, policy: "slos-serve", apps: 1 },
    requests: [...requests, ...Array.from({ length: 5 }, (_, i) => request(1000 + i, 1))],
    check: true,
    onEffect: (effect) => {
      if (effect.type === "finished") ends.push(effect.id)
    },
  })
  expect(ends).toHaveLength(205)
  expect(ends.slice(0, 100).filter((id) => id >= 1000)).toHaveLength(5)
})
