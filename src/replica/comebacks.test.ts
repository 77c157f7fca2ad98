/** Those that find no room are told turns, one after the other. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { Comebacks } from "./comebacks.ts"

type Pace = Parameters<Comebacks["turnUs"]>[2]

const SECOND = 1e6
const paceOf = (perSec: number): Pace => ({
  leftPerUs: () => perSec / SECOND,
  usOf: (count) => (count * SECOND) / perSec,
})
const [TWO_A_SECOND, TEN_A_SECOND] = [paceOf(2), paceOf(10)]

test("each comes when the places of those before it are taken", () => {
  const comebacks = new Comebacks()
  const told = Array.from({ length: 6 }, () => comebacks.turnUs(1, 0, TWO_A_SECOND, 0) / SECOND)
  expect(told).toEqual([0.5, 1, 1.5, 2, 2.5, 3])
  // One that wants four, a second later; and what has passed is no turn any more.
  expect(comebacks.turnUs(4, 0, TWO_A_SECOND, 1 * SECOND) / SECOND).toBeCloseTo(3 + 2 - 1)
  expect(comebacks.turnUs(1, 0, TWO_A_SECOND, 100 * SECOND) / SECOND).toBeCloseTo(0.5)
})

test("the first waits for those that have to leave before there is any room", () => {
  const comebacks = new Comebacks()
  expect(comebacks.turnUs(1, 19, TEN_A_SECOND, 0) / SECOND).toBeCloseTo(2)
  // The second for the first, not for all of them again.
  expect(comebacks.turnUs(1, 19, TEN_A_SECOND, 0) / SECOND).toBeCloseTo(2.1)
})

test("none comes sooner than is worth it, nor later than clients wait; those of a long line not all at once", () => {
  const comebacks = new Comebacks()
  const told = Array.from({ length: 1000 }, () => comebacks.turnUs(1, 0, TEN_A_SECOND, 0) / SECOND)
  expect(Math.min(...told)).toBe(0.5)
  expect(Math.max(...told)).toBeLessThanOrEqual(60)
  for (const from of [30, 40, 50]) {
    const within = told.filter((s) => s > from && s <= from + 1).length
    expect(within).toBeGreaterThan(15)
    expect(within).toBeLessThan(35)
  }
})

test("as many come in any time as leave in it, whenever they were told", () => {
  const step = fc.record({
    afterUs: fc.integer({ min: 0, max: 500_000 }),
    places: fc.integer({ min: 1, max: 4 }),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 80 }), (steps) => {
      const comebacks = new Comebacks()
      let [nowUs, lastUs] = [0, 0]
      for (const { afterUs, places } of steps) {
        nowUs += afterUs
        const dueUs = nowUs + comebacks.turnUs(places, 0, TEN_A_SECOND, nowUs)
        // The least time moves the first few only.
        if (dueUs > nowUs + 500_000) expect(dueUs - lastUs).toBeGreaterThanOrEqual(places * 100_000 - 500_000)
        lastUs = dueUs
        expect(dueUs).toBeLessThanOrEqual(nowUs + 60 * SECOND + 1)
      }
    }),
  )
})
