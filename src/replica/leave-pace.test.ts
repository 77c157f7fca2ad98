/** A full queue empties as fast as it did while it was full, whatever there was to do in between. */
import { expect, test } from "vitest"
import { LeavePace } from "./leave-pace.ts"

const SECOND = 1e6

/** So many stay live, and so many a second leave and are followed by others. */
function serves(pace: LeavePace, live: number, perSec: number, fromUs: number, seconds: number): number {
  for (let i = 1; i <= seconds * perSec; i++) pace.changed(live, 1, fromUs + (i * SECOND) / perSec)
  return fromUs + seconds * SECOND
}

const perSec = (pace: LeavePace, nowUs: number) => pace.perUs(nowUs) * SECOND

test("what leaves under load is its pace", () => {
  const pace = new LeavePace({ most: () => 8 })
  pace.changed(20, 0, 0)
  const nowUs = serves(pace, 20, 12, 0, 20)
  expect(perSec(pace, nowUs)).toBeGreaterThan(9)
  expect(perSec(pace, nowUs)).toBeLessThan(12.1)
})

test("quiet times, and such in which little comes, do not slow it", () => {
  const pace = new LeavePace({ most: () => 8 })
  pace.changed(20, 0, 0)
  let nowUs = serves(pace, 20, 12, 0, 20)
  pace.changed(1, 0, nowUs)
  nowUs = serves(pace, 1, 1, nowUs, 60)
  pace.changed(0, 1, nowUs)
  nowUs += 3600 * SECOND
  pace.changed(20, 0, nowUs)
  expect(perSec(pace, nowUs)).toBeGreaterThan(9)
})

test("a slower engine is noticed within seconds", () => {
  const pace = new LeavePace({ most: () => 8 })
  pace.changed(20, 0, 0)
  let nowUs = serves(pace, 20, 12, 0, 20)
  nowUs = serves(pace, 20, 2, nowUs, 15)
  expect(perSec(pace, nowUs)).toBeLessThan(5)
  // It stands still.
  expect(perSec(pace, nowUs + 60 * SECOND)).toBeLessThan(0.2)
})

test("before any load it is guessed from how long requests take", () => {
  const pace = new LeavePace({ most: () => 8 })
  // Two live, four a second: half a second each.
  pace.changed(2, 0, 0)
  const nowUs = serves(pace, 2, 4, 0, 20)
  pace.changed(300, 0, nowUs)
  expect(perSec(pace, nowUs)).toBeCloseTo(8 / (1.4 * 0.5), 0)
  // What is seen counts soon.
  expect(perSec(pace, serves(pace, 300, 5, nowUs, 15))).toBeLessThan(8)
})

test("nor sooner than those that came together can be done: as long as requests take, the slower the more run", () => {
  const slowdown = (few: number, many: number) => (1 + many) / (1 + few)
  const pace = new LeavePace({ most: () => 8, slowdown })
  pace.changed(2, 0, 0)
  const nowUs = serves(pace, 2, 4, 0, 20)
  pace.changed(300, 0, nowUs)
  // Half a second with two, 1.5 s with eight, and the prompts of the others.
  const takes = 1.4 * 1.5
  expect(perSec(pace, nowUs)).toBeCloseTo(8 / takes, 0)
  expect(pace.usOf(0, nowUs) / SECOND).toBeCloseTo(takes, 1)
  expect(pace.usOf(8, nowUs + SECOND / 2) / SECOND).toBeCloseTo(takes - 0.5 + takes, 0)
  expect(pace.usOf(0, nowUs + 3 * SECOND)).toBe(0)
})

test("those that come back find what others leave them, a quarter at least", () => {
  const pace = new LeavePace({ most: () => 8 })
  pace.changed(2, 0, 0)
  let nowUs = serves(pace, 2, 4, 0, 120)
  pace.changed(300, 0, nowUs)
  nowUs = serves(pace, 300, 10, nowUs, 30)
  expect(pace.leftPerUs(nowUs) * SECOND).toBeCloseTo(perSec(pace, nowUs) - 4, 1)
  nowUs = serves(pace, 300, 3, nowUs, 60)
  expect(pace.leftPerUs(nowUs)).toBeCloseTo(pace.perUs(nowUs) / 4)
})

test("without anything seen all that run at once are to end in ten seconds", () => {
  expect(perSec(new LeavePace({ most: () => 8 }), 0)).toBeCloseTo(0.8)
  const held = new LeavePace({ most: () => 1, atOnce: () => 2000 })
  expect(perSec(held, 0)).toBeCloseTo(200)
})
