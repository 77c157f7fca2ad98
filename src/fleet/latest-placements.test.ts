/** The latest places of requests. */
import { expect, test } from "vitest"
import { LatestPlacements } from "./latest-placements.ts"

const session = (session: number, keys = 1) => ({
  ...{ session, promptTokens: 16 * keys },
  prefix: Array.from({ length: keys }, (_, i) => i),
})

test("of a session, and of a prompt without one, the latest place is known, the oldest first", () => {
  const latest = new LatestPlacements()
  expect(latest.add([session(1), "a"], 10)).toBe(true)
  expect(latest.add([session(2), "b"], 20)).toBe(true)
  expect(latest.add([session(1), "c"], 30)).toBe(true)
  expect(latest.add([session(-1, 4), "a"], 5)).toBe(true)
  expect(latest.add([session(-1, 4), "b"], 25)).toBe(true)
  expect(latest.all()).toEqual([
    [session(2), "b", 20],
    [session(-1, 4), "b", 25],
    [session(1), "c", 30],
  ])
})

test("what is heard of later and was before changes nothing", () => {
  const latest = new LatestPlacements()
  latest.add([session(1), "a"], 10)
  expect(latest.add([session(1), "b"], 10)).toBe(false)
  expect(latest.add([session(1), "b"], 9)).toBe(false)
  expect(latest.all()).toEqual([[session(1), "a", 10]])
})

test("so many are kept, and so many keys", () => {
  const latest = new LatestPlacements()
  for (let i = 0; i < 5000; i++) latest.add([session(i), "a"], i)
  expect(latest.all().map(([{ session }]) => session)).toEqual(
    Array.from({ length: 4096 }, (_, i) => 904 + i),
  )
  for (let i = 0; i < 300; i++) latest.add([session(i, 1024), "b"], 10_000 + i)
  const kept = latest.all().map(([{ session }]) => session)
  expect(kept).toEqual(Array.from({ length: 256 }, (_, i) => 44 + i))
})
