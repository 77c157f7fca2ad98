/** What of a step's time was its own. */
import { expect, test } from "vitest"
import { ownUs, parseSchedstat, waitedUs } from "./waits.ts"

const threads = (times: Record<string, [ranMs: number, waitedMs: number]>) =>
  new Map(
    Object.entries(times).map(([id, [ran, waited]]) => [id, { ranNs: ran * 1e6, waitedNs: waited * 1e6 }]),
  )

test("a step waited as long as the longest of its computing threads, whatever idle ones did", () => {
  const before = threads({ main: [500, 900], engine: [100, 7], other: [100, 2] })
  const after = threads({ main: [501, 990], engine: [140, 19], other: [125, 32] })
  expect(waitedUs(before, after)).toBe(30_000)
  // 19 of 40 ms are less than half of the busiest thread's.
  expect(waitedUs(before, threads({ ...{ main: [501, 990], engine: [140, 19], other: [119, 32] } }))).toBe(
    12_000,
  )
})

test("a thread that began meanwhile counts, one that ended does not", () => {
  expect(waitedUs(threads({ old: [10, 10] }), threads({ young: [20, 5] }))).toBe(5000)
})

test("where the system does not tell, or nothing ran, a step did not wait", () => {
  expect(waitedUs(new Map(), new Map())).toBe(0)
  const idle = threads({ main: [1, 1] })
  expect(waitedUs(idle, idle)).toBe(0)
})

test("at least a tenth of a step is its own", () => {
  expect(ownUs(1000, 0)).toBe(1000)
  expect(ownUs(1000, 300)).toBe(700)
  expect(ownUs(1000, 5000)).toBe(100)
})

test("lines of schedstat are read, others are not", () => {
  expect(parseSchedstat("938911 20 1\n")).toEqual({ ranNs: 938911, waitedNs: 20 })
  for (const text of ["", "1 2", "a b c", "-1 2 3"]) expect(parseSchedstat(text)).toBeNull()
})
