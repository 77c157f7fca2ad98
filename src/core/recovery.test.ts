/** How long the engine is left alone after a failed step, and which requests have to run alone. */
import { expect, test } from "vitest"
import { Recovery } from "./recovery.ts"
import { liveOf } from "./testing.ts"

/** Pauses after engine errors in a row, each failing at the end of the last pause, ms. */
function pausesMs(recovery: Recovery, count: number): number[] {
  return Array.from({ length: count }, () => {
    const nowUs = recovery.pausedUntilUs
    recovery.stepFailed([], "engineError", nowUs)
    return (recovery.pausedUntilUs - nowUs) / 1000
  })
}

test("the pause doubles with every engine error in a row, up to a limit", () => {
  expect(pausesMs(new Recovery(), 9)).toEqual([10, 20, 40, 80, 160, 320, 640, 640, 640])
})

test("a step that was done ends the row", () => {
  const recovery = new Recovery()
  pausesMs(recovery, 3)
  recovery.stepDone()
  expect(pausesMs(recovery, 2)).toEqual([10, 20])
})

test("full KV needs no pause, and makes none longer", () => {
  const recovery = new Recovery()
  recovery.stepFailed([], "kvFull", 1000)
  expect(recovery.pausedUntilUs).toBe(0)
  expect(pausesMs(recovery, 1)).toEqual([10])
})

test("what was aboard runs alone, one by one; what has left meanwhile does not", () => {
  for (const reason of ["engineError", "kvFull"] as const) {
    const [first, second, third] = [liveOf(1), liveOf(2), liveOf(3)]
    const recovery = new Recovery()
    expect(recovery.nextSuspect()).toBeUndefined()
    recovery.stepFailed([first, second, third], reason, 0)
    expect(recovery.nextSuspect()).toBe(first)
    second.gone = true
    expect(recovery.nextSuspect()).toBe(third)
    expect(recovery.nextSuspect()).toBeUndefined()
  }
})
