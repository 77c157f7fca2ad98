/** Sessions that have missed are remembered, the latest ten thousand of them. */
import { expect, test } from "vitest"
import type { FinishReason, Outcome, RequestSpec, Tier } from "../protocol.ts"
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

test("a round that missed counts, but not one that its client gave up, or that had no objective", () => {
  const missed = new MissedSessions()
  const ended = (session: number, tier: Tier, reason: FinishReason, attained: boolean) =>
    missed.ended({ session, tier } as RequestSpec, reason, { attained } as Outcome)
  ended(1, "slo", "stop", false)
  ended(2, "slo", "length", false)
  ended(3, "slo", "failed", false)
  ended(4, "slo", "cancelled", false)
  ended(5, "bestEffort", "stop", false)
  ended(6, "slo", "stop", true)
  ended(-1, "slo", "stop", false)
  expect([1, 2, 3, 4, 5, 6, -1].filter((session) => missed.has(session))).toEqual([1, 2, 3])
})
