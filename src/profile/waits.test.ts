/** What of a step's time was its own. */
import { expect, test } from "vitest"
import { ownUs, parseSchedstat, type ThreadTimes } from "./waits.ts"

const spans = (times: Record<string, [ranMs: number, waitedMs: number]>): ThreadTimes =>
  new Map(
    Object.entries(times).map(([id, [ran, waited]]) => [id, { ranNs: ran * 1e6, waitedNs: waited * 1e6 }]),
  )
/** Of a step of so many ms, in which the main thread ran 1. */
const ownMs = (ms: number, times: Parameters<typeof spans>[0]) =>
  ownUs(ms * 1000, 1000, spans(times), "main") / 1000

test("a step that waited for a core takes what its thread ran, and what this one did", () => {
  expect(ownMs(31, { main: [1, 0], engine: [20, 10] })).toBe(21)
  // Its end was noticed late: this thread waited, too.
  expect(ownMs(61, { main: [1, 30], engine: [20, 10] })).toBe(21)
})

test("a step that hardly waited takes what the clock says, wake-ups included", () => {
  expect(ownMs(31, { main: [1, 0.1], engine: [29.5, 0.4] })).toBe(31)
})

test("threads that did not compute meanwhile do not count, however long they waited", () => {
  expect(ownMs(31, { main: [1, 0.1], engine: [29.9, 0], idle: [1, 30] })).toBe(31)
  expect(ownMs(31, { main: [1, 0], engine: [20, 10], idle: [9, 2] })).toBe(21)
})

test("of several threads the one that was kept from running says what the step is", () => {
  expect(ownMs(31, { main: [1, 0], spinning: [30, 0], delayed: [18, 12] })).toBe(19)
})

test("a step that waited for something else than a core takes what the clock says", () => {
  expect(ownMs(31, { main: [1, 0], gpu: [2, 1] })).toBe(31)
})

test("where the system does not tell, or nothing ran, it takes what the clock says", () => {
  expect(ownUs(5000, 0, new Map())).toBe(5000)
  expect(ownMs(31, { main: [1, 20], engine: [0, 10] })).toBe(31)
})

test("it never takes more than the clock says", () => {
  expect(ownMs(10, { main: [1, 0], engine: [15, 5] })).toBe(10)
})

test("lines of schedstat are read, others are not", () => {
  expect(parseSchedstat("938911 20 1\n")).toEqual({ ranNs: 938911, waitedNs: 20 })
  for (const text of ["", "1 2", "a b c", "-1 2 3"]) expect(parseSchedstat(text)).toBeNull()
})
