/** A rate's window: never more than the bound in any of its length, and a wait that is as long as it says. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { RateWindow } from "./rate-window.ts"

const MINUTE = 60_000
const arrivals = fc.array(
  fc.record({ afterMs: fc.integer({ min: 0, max: 20_000 }), count: fc.integer({ min: 1, max: 40 }) }),
  { maxLength: 120 },
)

it("never has more than its bound in any window", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.double({ min: 0, max: 1e7, noNaN: true }),
      arrivals,
      (limit, startMs, all) => {
        const window = new RateWindow(limit)
        const taken: { atMs: number; count: number }[] = []
        let nowMs = startMs
        for (const { afterMs, count } of all) {
          nowMs += afterMs
          if (window.take(count, nowMs) === null) continue
          taken.push({ atMs: nowMs, count })
          const within = taken.filter(({ atMs }) => atMs > nowMs - MINUTE)
          expect(within.reduce((sum, one) => sum + one.count, 0)).toBeLessThanOrEqual(limit)
        }
      },
    ),
  )
})

it("refuses nothing that is clearly within its bound, and takes what waited as long as it said, no sooner", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), arrivals, (limit, all) => {
      const window = new RateWindow(limit)
      const taken: { atMs: number; count: number }[] = []
      let nowMs = 1000
      for (const { afterMs, count } of all) {
        nowMs += afterMs
        const waitMs = window.waitMs(count, nowMs)
        const slot = window.take(count, nowMs)
        expect(waitMs === 0).toBe(slot !== null)
        if (slot === null) {
          // A slot is a quarter of a second.
          const near = taken
            .filter(({ atMs }) => atMs > nowMs - MINUTE - 251)
            .reduce((sum, one) => sum + one.count, 0)
          expect(near + count).toBeGreaterThan(limit)
          if (count > limit) {
            expect(waitMs).toBe(Number.POSITIVE_INFINITY)
            continue
          }
          expect(window.waitMs(count, nowMs + waitMs - 1)).toBeGreaterThan(0)
          nowMs += waitMs
          expect(window.take(count, nowMs)).not.toBeNull()
        }
        taken.push({ atMs: nowMs, count })
      }
    }),
  )
})

it("counts what a slot turned out to be, until it is out of the window", () => {
  const window = new RateWindow(100)
  const slot = window.take(80, 0)!
  expect(window.take(30, 10)).toBeNull()
  window.add(-60, slot)
  expect(window.take(30, 10)).not.toBeNull()
  expect(window.used(59_999)).toBe(50)
  expect(window.used(60_300)).toBe(0)
  window.add(500, slot)
  expect(window.used(60_300)).toBe(0)
  // More than was asked for is a debt.
  const later = window.take(1, 61_000)!
  window.add(149, later)
  expect(window.waitMs(1, 61_000)).toBeGreaterThan(59_000)
})

it("counts what counts elsewhere, from when it was taken, as far as it is more than is known", () => {
  const [here, there] = [new RateWindow(100), new RateWindow(100)]
  there.take(30, 0)
  there.take(20, 30_000)
  expect(there.taken(30_000)).toEqual([
    [0, 20],
    [120, 30],
  ])
  here.atLeast(there.taken(30_000), 30_000)
  here.atLeast(there.taken(30_000), 30_000)
  expect([here.used(30_000), here.used(61_000), here.used(91_000)]).toEqual([50, 20, 0])
  // Most of it is known: the rest is taken to be the latest.
  const most = new RateWindow(100)
  most.take(45, 29_000)
  most.atLeast(there.taken(30_000), 30_000)
  expect([most.used(30_000), most.used(90_000)]).toEqual([50, 5])
  there.take(10, 61_000)
  expect(there.taken(61_000)).toEqual([
    [0, 10],
    [124, 20],
  ])
})
