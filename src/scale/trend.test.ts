/** Load that rises is seen, bursts and lulls are not taken for it. */
import { expect, it } from "vitest"
import { arrival, poisson } from "./testing.ts"
import { growth } from "./trend.ts"

/** So many equal requests in each of six minutes. */
const minutes = (counts: readonly number[]) =>
  counts.flatMap((count, minute) =>
    Array.from({ length: count }, (_, i) => arrival(60 * minute + (60 * i) / count)),
  )
const of = (counts: readonly number[], aheadS = 0) => growth(minutes(counts), 0, 360e6, aheadS * 1e6)

it("follows a line to the end of the window and beyond", () => {
  // Mean 35; 60 + 5 at the end of the last minute, 10 more for each minute ahead.
  expect(of([10, 20, 30, 40, 50, 60])).toBeCloseTo(65 / 35, 5)
  expect(of([100, 101, 102, 103, 104, 105], 120)).toBeCloseTo(107.5 / 102.5, 5)
})

it("foretells no more than twice", () => {
  expect(of([10, 20, 30, 40, 50, 60], 600)).toBe(2)
})

it("is 1 where load is even, falls, jumps about, or is none", () => {
  expect(of([30, 30, 30, 30, 30, 30], 300)).toBe(1)
  expect(of([60, 50, 40, 30, 20, 10], 300)).toBe(1)
  expect(of([10, 60, 10, 60, 10, 60], 300)).toBe(1)
  expect(of([0, 0, 0, 0, 0, 0], 300)).toBe(1)
  expect(growth([], 0, 0, 1)).toBe(1)
})

it("counts tokens, not requests, and no cached ones", () => {
  const all = minutes([10, 10, 10, 10, 10, 10])
  const heavier = all.map((one) => ({ ...one, promptTokens: 400 + one.atUs / 1e6 }))
  expect(growth(heavier, 0, 360e6, 0)).toBeGreaterThan(1.2)
  const cached = heavier.map((one) => ({ ...one, cachedTokens: one.promptTokens - 400 }))
  expect(growth(cached, 0, 360e6, 0)).toBe(1)
})

it("sees a rise in random arrivals, and seldom one where there is none", () => {
  const seen = (rateAt: (s: number) => number) =>
    Array.from({ length: 40 }, (_, seed) => growth(poisson(rateAt, 0, 360, seed), 0, 360e6, 0)).filter(
      (g) => g > 1,
    )
  expect(seen((s) => 4 + s / 60).length).toBeGreaterThan(35)
  expect(seen(() => 7).length).toBeLessThan(8)
})
