/** Counters of tenants: by weight, within a bound, whatever the order in which they were served. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { liveOf } from "../testing.ts"
import { Tenants } from "./tenants.ts"

const USUAL = 10
/** 16 requests are even, 8 such differences the bound. */
const EVEN = 16 * USUAL
const BOUND = 8 * EVEN
const item = (position: number, tokens: number) => ({ id: 1, position, tokens, sample: false, draft: 0 })
const serve = (tenants: Tenants, tenant: number, tokens: number) =>
  tenants.served(liveOf(1, { tenant }), item(0, tokens), 0)

test("a tenant that was away is behind by the bound, however long it was away", () => {
  const tenants = new Tenants([], USUAL)
  serve(tenants, 0, 1_000_000)
  expect(tenants.level(0) - tenants.level(1)).toBe(BOUND)
  serve(tenants, 1, BOUND)
  expect(tenants.level(1)).toBe(tenants.level(0))
})

test("a tenant of twice the weight is charged half", () => {
  const tenants = new Tenants([1, 2], USUAL)
  serve(tenants, 0, 100)
  serve(tenants, 1, 200)
  expect(tenants.level(1)).toBe(tenants.level(0))
})

test("what is computed again, or was shared, is not charged; output is", () => {
  const tenants = new Tenants([], USUAL)
  const request = liveOf(1)
  tenants.served(request, item(48, 52), 1)
  expect(tenants.level(0)).toBe(53)
  tenants.served(request, item(0, 100), 0)
  expect(tenants.level(0)).toBe(53)
  tenants.served(request, item(100, 1), 1)
  expect(tenants.level(0)).toBe(55)
})

test("one is ahead by more than sixteen usual requests, and not by that", () => {
  const tenants = new Tenants([], USUAL)
  serve(tenants, 1, BOUND)
  serve(tenants, 0, BOUND + EVEN)
  expect(tenants.isAhead(0, 1)).toBe(false)
  serve(tenants, 0, 1)
  expect([tenants.isAhead(0, 1), tenants.isAhead(1, 0)]).toEqual([true, false])
})

test("no two counters are further apart than the bound", () => {
  const served = fc.array(fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 1, max: 500 })))
  fc.assert(
    fc.property(served, (steps) => {
      const tenants = new Tenants([1, 3, 0.5], USUAL)
      for (const [tenant, tokens] of steps) serve(tenants, tenant, tokens)
      const levels = [0, 1, 2, 3, 4, 99].map((tenant) => tenants.level(tenant))
      expect(Math.max(...levels) - Math.min(...levels)).toBeLessThanOrEqual(BOUND)
    }),
  )
})

test("a full queue is shared by weight among those that wait, and with one that comes", () => {
  const tenants = new Tenants([1, 3], USUAL)
  expect(tenants.queueShare(0, 100)).toBe(100)
  tenants.arrived(liveOf(1, { tenant: 0 }))
  expect(tenants.several).toBe(false)
  expect(tenants.queueShare(1, 100)).toBe(75)
  tenants.arrived(liveOf(2, { tenant: 1 }))
  expect(tenants.several).toBe(true)
  expect(tenants.queueShare(0, 100)).toBe(25)
  tenants.left(liveOf(2, { tenant: 1 }))
  expect([tenants.several, tenants.liveOf(1)]).toEqual([false, 0])
})

test("a full queue takes what is within a tenant's share, and several at once up to its last place", () => {
  const tenants = new Tenants([1, 3], BOUND)
  for (let i = 0; i < 8; i++) tenants.arrived({ tenant: 0 })
  expect(tenants.hasPlace(0, 8, 9)).toBe(true)
  expect(tenants.hasPlace(0, 8, 9, 2)).toBe(false)
  expect(tenants.hasPlace(0, 8, 8)).toBe(false)
  // Three quarters of eight places.
  expect([6, 7].map((count) => tenants.hasPlace(1, 8, 8, count))).toEqual([true, false])
  for (let i = 0; i < 5; i++) tenants.arrived({ tenant: 1 })
  expect([1, 2].map((count) => tenants.hasPlace(1, 13, 8, count))).toEqual([true, false])
})

test("at twice the queue's length only shares among all that have a weight are left", () => {
  const tenants = new Tenants([1, 1, 1, 1], BOUND)
  expect([2, 3].map((count) => tenants.hasPlace(3, 16, 8, count))).toEqual([true, false])
  // One without a weight of its own has no share to keep.
  expect([3, 4].map((tenant) => tenants.hasPlace(tenant, 16, 8))).toEqual([true, false])
  const full = fc.record({
    weights: fc.array(fc.double({ min: 0.01, max: 10, noNaN: true }), { minLength: 1, maxLength: 6 }),
    most: fc.integer({ min: 1, max: 12 }),
    arrivals: fc.array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 3 })), { maxLength: 60 }),
  })
  fc.assert(
    fc.property(full, ({ weights, most, arrivals }) => {
      const queue = new Tenants(weights, BOUND)
      let length = 0
      for (const [any, count] of arrivals) {
        const tenant = any % weights.length
        if (!queue.hasPlace(tenant, length, most, count)) continue
        for (let i = 0; i < count; i++) queue.arrived({ tenant })
        length += count
      }
      // Each share is rounded up.
      expect(length).toBeLessThanOrEqual(3 * most + weights.length)
    }),
  )
})

test("counters of ever new tenants do not pile up to anything that shows", () => {
  const tenants = new Tenants([], USUAL)
  for (let tenant = 0; tenant < 5000; tenant++) serve(tenants, tenant, 100)
  expect(tenants.level(4999) - tenants.level(0)).toBeLessThanOrEqual(BOUND)
})

test("what is usual is the mean of what ended requests were served", () => {
  const tenants = new Tenants([], USUAL)
  tenants.ended(100)
  expect([tenants.evenTokens, tenants.farTokens]).toEqual([16 * 100, 4 * 16 * 100])
  tenants.ended(200)
  expect(tenants.evenTokens).toBe(16 * 150)
  for (let i = 0; i < 1000; i++) tenants.ended(50)
  expect(tenants.evenTokens).toBeCloseTo(16 * 50, -1)
})
