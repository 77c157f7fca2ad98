/** The benchmark's own judgement: which rates it measures, and what it concludes from known truth. */
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { capacityAt, isotonic } from "../bench/real/capacity.ts"
import { rateOf, rungOf, wantedRungs } from "../bench/real/ladder.ts"
import { parseShape, SHARED_NONCE, sharedPlan } from "../bench/real/shared-plan.ts"
import { analyse, type Point } from "../bench/real/statistics.ts"
import { STANDARD, SYSTEMS } from "../bench/real/systems.ts"
import { formatPlan, parsePlan } from "../src/load/plan.ts"
import { promptOf } from "../src/load/replay.ts"
import { Random } from "../src/random.ts"

/** Attainment falls smoothly through 90% at this rate. */
function truth(ratePerSec: number, capacity: number, steepness = 6): number {
  return 1 / (1 + (ratePerSec / capacity) ** steepness / 9)
}

describe("ladder", () => {
  test.each([0.3, 1, 3.7, 12])(
    "finds and repeats the rungs around a knee at %d/s from any guess",
    (capacity) => {
      for (const guess of [-4, 4, 12]) {
        const measured: { rung: number; attained: number; total: number }[] = []
        let runs = 0
        for (;;) {
          const next = wantedRungs(measured, guess).find((rung) => !measured.some((m) => m.rung === rung))
          if (next === undefined) break
          measured.push({ rung: next, attained: truth(rateOf(next), capacity) * 1000, total: 1000 })
          expect(++runs).toBeLessThan(20)
        }
        const rungs = wantedRungs(measured, guess)
        expect(rungs.length).toBeLessThanOrEqual(5)
        const shares = rungs.map((rung) => truth(rateOf(rung), capacity))
        expect(Math.max(...shares)).toBeGreaterThan(0.9)
        expect(Math.min(...shares)).toBeLessThan(0.9)
      }
    },
  )

  test("a system that never attains is followed down, but not forever", () => {
    const measured: { rung: number; attained: number; total: number }[] = []
    for (let i = 0; i < 100; i++) {
      const next = wantedRungs(measured, 0).find((rung) => !measured.some((m) => m.rung === rung))
      if (next === undefined) break
      measured.push({ rung: next, attained: 0, total: 10 })
    }
    expect(measured.length).toBeLessThan(12)
  })

  test("rates and rungs are inverse", () => {
    for (let rung = -16; rung <= 32; rung++) expect(rungOf(rateOf(rung))).toBe(rung)
  })
})

describe("prompts behind system prompts", () => {
  const load = { ratePerSec: 6, durationMs: 20_000, seed: 1, arrivals: "gamma", burstiness: 0.5 } as const
  const tokenRange = { from: 32, to: 256 }

  test("begin with the same tokens in every run and part right behind them", () => {
    const plan = sharedPlan(parseShape("500,40,32,3"), load)
    expect(plan.requests).toHaveLength(120)
    expect(parsePlan(formatPlan(plan), "plan")).toEqual(plan)
    expect(new Set(plan.requests.map(({ prefix }) => prefix!.ids[0]))).toEqual(new Set([0, 1, 2]))
    const prompts = (nonce: string) =>
      plan.requests.map((request, i) =>
        promptOf(request, i, 0, { nonce, sharedNonce: SHARED_NONCE, tokenRange }),
      )
    const [ours, theirs] = [prompts("ours"), prompts("theirs")]
    const own = [...ours, ...theirs].map((prompt) => {
      expect(prompt).toHaveLength(540)
      return prompt.slice(500).join()
    })
    expect(new Set(own).size).toBe(240)
    for (const [i, { prefix }] of plan.requests.entries()) {
      expect(theirs[i]!.slice(0, 500)).toEqual(ours[i]!.slice(0, 500))
      const first = plan.requests.findIndex((request) => request.prefix!.ids[0] === prefix!.ids[0])
      expect(ours[i]!.slice(0, 500)).toEqual(ours[first]!.slice(0, 500))
    }
    expect(new Set(ours.map((prompt) => prompt.slice(0, 500).join())).size).toBe(3)
  })

  test.each(["500,40", "500,0,32", "a,b,c", "1,2,3,4,5", ""])("%j is no shape", (text) => {
    expect(() => parseShape(text)).toThrow(/shared,own,output/)
  })

  test("are of one system prompt by default, and follow no trace", () => {
    expect(parseShape("500,40,32").prompts).toBe(1)
    expect(() => sharedPlan(parseShape("500,40,32"), { ...load, arrivals: "trace" })).toThrow(/--arrivals/)
  })
})

describe("systems", () => {
  test("have names of their own; those for shared prompts run only when named", () => {
    expect(new Set(SYSTEMS.map(({ name }) => name)).size).toBe(SYSTEMS.length)
    const left = SYSTEMS.filter((system) => !STANDARD.includes(system)).map(({ name }) => name)
    expect(left.length).toBeGreaterThan(0)
    expect(left.every((name) => name.startsWith("llama-server-cache"))).toBe(true)
  })
})

describe("statistics", () => {
  /** Windows are hard or easy for all systems alike; the two capacities lie a factor apart. */
  function simulated(factor: number, seeds: number): Point[] {
    const random = new Random("truth", factor, seeds)
    const points: Point[] = []
    for (let seed = 0; seed < seeds; seed++) {
      const hardness = Math.exp(0.15 * random.normal())
      for (const [system, capacity] of [
        ["a", 2 * factor],
        ["b", 2],
      ] as const) {
        for (const rung of [-2, -1, 0, 1, 2]) {
          const ratePerSec = capacity * 2 ** (rung / 4)
          const share = truth(ratePerSec * hardness, capacity)
          const attained = Array.from({ length: 150 }, () => random.uniform() < share).filter(Boolean).length
          points.push({ system, seed, ratePerSec, attained, total: 150 })
        }
      }
    }
    return points
  }

  test("capacity and ratio are found, the interval holds the truth, pairing narrows it", () => {
    const { capacities, ratio } = analyse(simulated(1.5, 12), 0.9, 400)
    const [a, b] = ["a", "b"].map((name) => capacities.find((entry) => entry.system === name)!)
    expect(b!.value).toBeGreaterThan(1.7)
    expect(b!.value).toBeLessThan(2.3)
    expect(a!.bound).toBe("exact")
    const found = ratio("a", "b")
    expect(found.low).toBeLessThan(1.5)
    expect(found.high).toBeGreaterThan(1.5)
    const unpaired = a!.high / b!.low - a!.low / b!.high
    expect(found.high - found.low).toBeLessThan(unpaired)
  })

  test("no difference is not called one", () => {
    const { low, high } = analyse(simulated(1, 12), 0.9, 400).ratio("a", "b")
    expect(low).toBeLessThan(1)
    expect(high).toBeGreaterThan(1)
  })
})

describe("capacity", () => {
  const point = (ratePerSec: number, attainment: number, weight = 1) => ({ ratePerSec, attainment, weight })

  test("interpolates where the curve crosses 90%", () => {
    expect(capacityAt([point(1, 1), point(2, 0.95), point(3, 0.85)])).toEqual({
      ratePerSec: expect.closeTo(2.5, 9),
      bound: "exact",
    })
    expect(capacityAt([point(1, 1)])).toEqual({ ratePerSec: 1, bound: "atLeast" })
    expect(capacityAt([point(1, 0.5)])).toEqual({ ratePerSec: 1, bound: "atMost" })
    expect(capacityAt([])).toBeNull()
  })

  test("the smoothed curve never rises and keeps the weighted mean", () => {
    const points = fc.array(
      fc.record({
        ratePerSec: fc.double({ min: 0.1, max: 10, noNaN: true }),
        attainment: fc.double({ min: 0, max: 1, noNaN: true }),
        weight: fc.integer({ min: 1, max: 50 }),
      }),
      { minLength: 1 },
    )
    fc.assert(
      fc.property(points, (raw) => {
        const smooth = isotonic(raw)
        for (let i = 1; i < smooth.length; i++) {
          expect(smooth[i]!.attainment).toBeLessThanOrEqual(smooth[i - 1]!.attainment + 1e-12)
        }
        const total = (list: typeof raw) => list.reduce((sum, p) => sum + p.attainment * p.weight, 0)
        expect(total(smooth)).toBeCloseTo(total(raw), 6)
      }),
    )
  })
})
