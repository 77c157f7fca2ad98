/** Capacity search on functions whose capacity is known. */
import { describe, expect, test } from "vitest"
import { type Evaluate, GRID, gridOf, rateOf, Search } from "./capacity.ts"

/** Attainment falls slowly through 90% at `capacity`; stops as it is told to. */
const falling =
  (capacity: (seed: number) => number): Evaluate =>
  (ratePerSec, seed, stopAtMissed) => {
    const missed = Math.min(1, 0.1 * (ratePerSec / capacity(seed)) ** 2)
    const total = 100_000
    return {
      kept: Math.round(total * (1 - Math.min(missed, stopAtMissed))),
      total,
      stopped: missed > stopAtMissed,
    }
  }

describe("capacity", () => {
  test.each([0.01, 0.7, 3, 40, 900])("finds %d requests/s from any guess", (truth) => {
    for (const guess of [0.005, 1, 2000]) {
      const { ratePerSec, attainment } = new Search(falling(() => truth)).capacity(gridOf(guess), [1, 2, 3])
      expect(ratePerSec).toBeLessThanOrEqual(truth)
      expect(ratePerSec).toBeGreaterThan(truth / GRID / 1.0001)
      expect(attainment).toBeGreaterThanOrEqual(0.9)
    }
  })

  test("is pooled over seeds, and each seed's own is told", () => {
    const own = [8, 10, 12]
    const found = new Search(falling((seed) => own[seed]!)).capacity(gridOf(5), [0, 1, 2])
    for (const [i, ratePerSec] of found.perSeed.entries()) {
      expect(ratePerSec).toBeLessThanOrEqual(own[i]!)
      expect(ratePerSec).toBeGreaterThan(own[i]! / GRID / 1.0001)
    }
    expect(found.ratePerSec).toBeGreaterThan(8)
    expect(found.ratePerSec).toBeLessThan(12)
  })

  test("is 0 where nothing is held", () => {
    const hopeless: Evaluate = () => ({ kept: 0, total: 100, stopped: true })
    expect(new Search(hopeless).capacity(gridOf(4), [1, 2])).toMatchObject({ ratePerSec: 0, perSeed: [0, 0] })
  })

  test("runs nothing twice, and few in all", () => {
    const seen = new Set<string>()
    const search = new Search((ratePerSec, seed, stop) => {
      const key = `${ratePerSec} ${seed}`
      expect(seen).not.toContain(key)
      seen.add(key)
      return falling(() => 6)(ratePerSec, seed, stop)
    })
    const { runs } = search.capacity(gridOf(5), [1, 2, 3])
    expect(runs).toBe(seen.size)
    expect(runs).toBeLessThan(40)
  })

  test("has the grid rate's own inverse", () => {
    for (const k of [-300, -5, 0, 7, 400]) expect(gridOf(rateOf(k))).toBe(k)
  })
})
