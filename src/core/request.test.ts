/** Deadlines and stage outcomes of one request. */
import { describe, expect, test } from "vitest"
import type { StageOutcome } from "./protocol.ts"
import { liveOf } from "./testing.ts"

const none = () => {}

describe("a request's deadlines (docs/design.md, Objectives)", () => {
  test("an early first token leaves slack: the TPOT clock starts at the deadline", () => {
    const request = liveOf(1)
    expect(request.emit(1, -1, 400_000, none)).toBe(-600_000)
    expect(request.dueUs).toBe(1_100_000)
    expect(request.emit(1, -1, 1_100_000, none)).toBe(0)
    expect(request.violated).toBe(false)
    expect(request.emit(1, -1, 1_200_001, none)).toBe(1)
    expect(request.violated).toBe(true)
  })

  test("a late first token starts the clock late, and the request has missed", () => {
    const request = liveOf(1)
    request.emit(1, -1, 1_500_000, none)
    expect(request.dueUs).toBe(1_600_000)
    const outcome = request.outcome(1_600_000, true)
    expect(outcome).toMatchObject({ attained: false, attainedEvery10: false, outputTokens: 1 })
    expect(outcome.stages.map(({ stage, attained }) => [stage, attained])).toEqual([
      ["prefill", false],
      ["answer", true],
    ])
  })

  test("thinking tokens are judged by their own TPOT, the first answer token by the answer's", () => {
    const request = liveOf(1, { thinking: true })
    const done: StageOutcome[] = []
    const stage = (outcome: StageOutcome) => done.push({ ...outcome })
    request.emit(1, -1, 1_000_000, stage)
    expect(request.emit(1, -1, 1_050_000, stage)).toBe(0)
    expect(request.dueUs).toBe(1_100_000)
    // The answer begins: due 100 ms after the last thinking token was due, not 50.
    expect(request.emit(1, 0, 1_140_000, stage)).toBe(-10_000)
    expect(request.dueUs).toBe(1_250_000)
    expect(done.map(({ stage, tokens }) => [stage, tokens])).toEqual([
      ["prefill", 100],
      ["thinking", 2],
    ])
    expect(request.outcome(0, true).stages.map(({ stage }) => stage)).toEqual([
      "prefill",
      "thinking",
      "answer",
    ])
  })

  test("the paper's check forgives a late token between the tenths, the strict one does not", () => {
    const request = liveOf(1)
    request.emit(1, -1, 1_000_000, none)
    for (let n = 2; n <= 12; n++) request.emit(1, -1, 1_000_000 + (n - 1) * 100_000 + (n === 5 ? 1 : 0), none)
    expect(request.outcome(0, true)).toMatchObject({ attained: false, attainedEvery10: true })
  })

  test("a preempted request owes its output again, as a prefill", () => {
    const request = liveOf(1)
    request.computed = 100
    request.emit(1, -1, 0, none)
    expect([request.owed, request.decoding]).toEqual([1, true])
    request.computed = 0
    expect([request.owed, request.decoding]).toEqual([101, false])
  })
})
