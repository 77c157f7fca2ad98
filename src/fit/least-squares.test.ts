/** The fitter: against what it is meant to minimize, and by what it believes. */
import fc from "fast-check"
import { fcnnlsVector } from "ml-fcnnls"
import { describe, expect, test } from "vitest"
import { runs } from "../core/testing.ts"
import { type Belief, leastSquares, predictedUs, type Row, sigmaOf, withinSpread } from "./least-squares.ts"

const VAGUE: Belief = { mean: 100, spread: 1e6 }

describe("coefficients", () => {
  test("of rows that agree are found, none negative", () => {
    const truth = [500, 20, 0]
    const rows: Row[] = [1, 3, 10, 40, 90].map((n, i) => {
      const features = [1, n, (i * 7) % 5]
      return { features, us: predictedUs(truth, features) }
    })
    const found = leastSquares(rows, [VAGUE, VAGUE, VAGUE])
    expect(found[0]).toBeCloseTo(500, 1)
    expect(found[1]).toBeCloseTo(20, 2)
    expect(found[2]).toBeCloseTo(0, 1)
  })

  test("are those of least relative errors, as with all rows at once", () => {
    const row = fc.tuple(
      fc.array(fc.integer({ min: 0, max: 500 }), { minLength: 4, maxLength: 4 }),
      fc.integer({ min: 1000, max: 50_000 }),
    )
    const belief = fc.record({
      mean: fc.integer({ min: 1, max: 500 }),
      spread: fc.integer({ min: 1000, max: 100_000 }),
    })
    fc.assert(
      fc.property(
        fc.array(row, { minLength: 1, maxLength: 20 }),
        fc.array(belief, { minLength: 4, maxLength: 4 }),
        (seen, beliefs) => {
          const rows = seen.map(([features, us]) => ({ features, us }))
          const loss = (found: readonly number[]) =>
            rows.reduce((sum, { features, us }) => sum + (predictedUs(found, features) / us - 1) ** 2, 0) +
            beliefs.reduce((sum, { mean, spread }, i) => sum + ((0.3 * (found[i]! - mean)) / spread) ** 2, 0)
          const found = leastSquares(rows, beliefs)
          const matrix = [
            ...rows.map(({ features, us }) => features.map((count) => count / us)),
            ...beliefs.map(({ spread }, i) => beliefs.map((_, j) => (i === j ? 0.3 / spread : 0))),
          ]
          const goals = [...rows.map(() => 1), ...beliefs.map(({ mean, spread }) => (0.3 * mean) / spread)]
          const whole = fcnnlsVector(matrix, goals).K.to1DArray()
          expect(found.every((us) => us >= 0)).toBe(true)
          expect(loss(found)).toBeLessThanOrEqual(loss(whole) * (1 + 1e-6) + 1e-9)
        },
      ),
      { numRuns: runs(200) },
    )
  })

  test("that rows do not tell apart are split by how sure each belief is", () => {
    const rows = [{ features: [1, 10], us: 2000 }]
    const beliefs = [
      { mean: 1000, spread: 1000 },
      { mean: 10, spread: 10 },
    ]
    const [step, tokens] = leastSquares(rows, beliefs) as [number, number]
    expect(step + 10 * tokens).toBeGreaterThan(1700)
    // The large one gives way: by (1000 : 100)².
    expect((step - 1000) / (10 * (tokens - 10))).toBeCloseTo(100, 3)
  })

  test("far from what is believed are believed, where rows say so", () => {
    const rows = Array.from({ length: 30 }, (_, i) => ({ features: [1, i + 1], us: 1000 + 5000 * (i + 1) }))
    const [step, tokens] = leastSquares(rows, [
      { mean: 1000, spread: 1000 },
      { mean: 100, spread: 100 },
    ])
    expect(tokens! / 5000).toBeCloseTo(1, 1)
    expect(step).toBeLessThan(3000)
  })

  test("leave out what is accounted for", () => {
    const rows = [1, 2, 5, 9].map((n) => ({ features: [1, n], us: 700 + 300 + 40 * n }))
    const [step, tokens] = leastSquares(rows, [VAGUE, VAGUE], () => 700)
    expect(step).toBeCloseTo(300, 1)
    expect(tokens).toBeCloseTo(40, 1)
  })
})

test("outliers are those far beyond the middle deviation", () => {
  expect(withinSpread([], 0.1)).toEqual([])
  expect(withinSpread([0.01, -0.02, 0.015, 1.8], 0)).toEqual([true, true, true, false])
  expect(withinSpread([0, 0, 0, 0.05], 0.1)).toEqual([true, true, true, true])
})

test("a stall does not widen the spread", () => {
  expect(sigmaOf([])).toBe(0)
  const scatter = Array.from({ length: 99 }, (_, i) => (i - 49) / 1000)
  expect(sigmaOf([...scatter, 3])).toBeCloseTo(sigmaOf(scatter), 2)
})
