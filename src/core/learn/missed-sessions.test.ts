/** Sessions that have missed are remembered, the latest ten thousand of them. */
import { expect, test } from "vitest"
import { MissedSessions } from "./missed-sessions.ts"

test("remembers the sessions that were noted, and no others", () => {
  const missed = new MissedSessions()
  missed.note(7)
  expect(missed.has(7)).toBe(true)
  expect(missed.has(8)).toBe(false)
})

test("forgets the one that missed longest ago once there are too many", () => {
  const missed = new MissedSessions()
  for (let session = 0; session < 10_000; session++) missed.note(session)
  // Missed once more, it is the latest.
  missed.note(0)
  expect(missed.has(1)).toBe(true)
  missed.note(10_000)
  expect([0, 1, 2, 10_000].map((session) => missed.has(session))).toEqual([true, false, true, true])
  missed.note(10_001)
  expect([0, 2, 3].map((session) => missed.has(session))).toEqual([true, false, true])
})
