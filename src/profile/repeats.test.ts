/** Which repeats of a batch are believed. */
import { expect, test } from "vitest"
import { isSettled, typicalUs } from "./repeats.ts"

test("a point is settled when two repeats are within a tenth of the fastest", () => {
  expect(isSettled([100])).toBe(false)
  expect(isSettled([100, 111])).toBe(false)
  expect(isSettled([100, 110])).toBe(true)
  // Two slow ones agree with each other, not with the fastest.
  expect(isSettled([200, 201, 100])).toBe(false)
})

test("its time is the median of what is within a fifth of the fastest", () => {
  expect(typicalUs([100])).toBe(100)
  expect(typicalUs([500, 100, 110, 120, 121])).toBe(110)
  expect(typicalUs([300, 302, 100])).toBe(100)
})
