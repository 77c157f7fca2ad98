/** Which of two prompts goes first where not both fit. */
import { expect, test } from "vitest"
import { liveOf } from "../testing.ts"
import { type Candidate, goesBefore } from "./candidate.ts"

/** The one that arrived as number `id`, with so much to compute. */
function candidate(
  id: number,
  owed: number,
  changes: Partial<Candidate> & { worth?: number } = {},
): Candidate {
  const { worth, ...rest } = changes
  const request = liveOf(id, worth === undefined ? {} : { worth })
  return {
    ...{ request, start: 0, owed, group: null, ownTokens: 0, stream: 0, kept: true, tokens: 0 },
    ...rest,
  }
}
/** The one that goes, whichever is asked about first; exactly one does. */
function first(a: Candidate, b: Candidate): number {
  expect(goesBefore(a, b)).not.toBe(goesBefore(b, a))
  return goesBefore(a, b) ? a.request.id : b.request.id
}

test("the larger one; of equal ones the last come", () => {
  expect(first(candidate(1, 101), candidate(2, 100))).toBe(1)
  expect(first(candidate(1, 100), candidate(2, 101))).toBe(2)
  expect(first(candidate(1, 100), candidate(2, 100))).toBe(2)
  expect(goesBefore(candidate(1, 100), candidate(1, 100))).toBe(false)
})

test("for its worth: twice as large for three times the worth stays", () => {
  expect(first(candidate(1, 200, { worth: 3 }), candidate(2, 100))).toBe(2)
  expect(first(candidate(1, 200, { worth: 1.5 }), candidate(2, 100))).toBe(1)
})

test("before all others a round of a session that has missed, be it the smallest", () => {
  const missed = candidate(1, 1)
  missed.request.sessionMissed = true
  expect(first(missed, candidate(2, 500))).toBe(1)
  const larger = candidate(3, 2)
  larger.request.sessionMissed = true
  expect(first(missed, larger)).toBe(3)
})

test("with its part of what it shares: the fewer share it, the more", () => {
  const shared = (kept: number) => ({ group: { start: 100, end: 400, kept } })
  // 60 of its own, and 100 or 150 of the prefix.
  expect(first(candidate(1, 60, shared(3)), candidate(2, 161))).toBe(2)
  expect(first(candidate(1, 60, shared(2)), candidate(2, 209))).toBe(1)
  // None is kept: all of it.
  expect(first(candidate(1, 60, shared(0)), candidate(2, 359))).toBe(1)
  expect(first(candidate(1, 60, shared(0)), candidate(2, 361))).toBe(2)
})
