/** What the paired bench concludes from its rounds. */
import { expect, test } from "vitest"
import { medianInterval } from "../bench/speculation/report.ts"
import { Random } from "../src/random.ts"

test("too few values say nothing; of six, all lie between the least and the largest", () => {
  expect(medianInterval([1, 2, 3, 4, 5])).toBeNull()
  expect(medianInterval([6, 1, 5, 2, 4, 3])).toEqual({ low: 1, high: 6 })
  // P(fewer than 6 heads of 20) = 0.0207 at either end.
  const twenty = Array.from({ length: 20 }, (_, i) => i + 1)
  expect(medianInterval(twenty)).toEqual({ low: 6, high: 15 })
})

test("19 of 20 intervals hold the median, or more, whatever the values are like", () => {
  const random = new Random("intervals", 1)
  let held = 0
  const trials = 2000
  for (let trial = 0; trial < trials; trial++) {
    const values = Array.from({ length: 9 }, () => random.exponential(1))
    const { low, high } = medianInterval(values)!
    if (low <= Math.LN2 && Math.LN2 <= high) held++
  }
  expect(held / trials).toBeGreaterThan(0.94)
  expect(held / trials).toBeLessThan(0.98)
})
