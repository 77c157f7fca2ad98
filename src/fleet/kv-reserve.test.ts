/** What is kept free for promises to come. */
import { expect, test } from "vitest"
import { KvReserve } from "./kv-reserve.ts"

const MINUTE_US = 60_000_000

test("keeps free what promises held, and hold no more", () => {
  const reserve = new KvReserve()
  expect(reserve.tokens(0, 10_000, 0)).toBe(0)
  expect(reserve.tokens(4000, 10_000, 1)).toBe(0)
  expect(reserve.tokens(1000, 10_000, 2)).toBeCloseTo(3000, 0)
  expect(reserve.tokens(4500, 10_000, 3)).toBe(0)
})

test("never more than half, and less the longer ago it was", () => {
  const reserve = new KvReserve()
  reserve.tokens(9000, 10_000, 0)
  expect(reserve.tokens(0, 10_000, 1)).toBe(5000)
  const later = reserve.tokens(0, 10_000, 5 * MINUTE_US)
  expect(later).toBeGreaterThan(3000)
  expect(later).toBeLessThan(3500)
  expect(reserve.tokens(0, 10_000, 60 * MINUTE_US)).toBeLessThan(1)
})

test("where the KV is not known nothing is out of bounds", () => {
  const reserve = new KvReserve()
  reserve.tokens(9000, Infinity, 0)
  expect(reserve.tokens(0, Infinity, 1)).toBeCloseTo(9000, 0)
})
