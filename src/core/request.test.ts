/** Deadlines and stage outcomes of one request. */
import { describe, expect, test } from "vitest"
import { movedFrom, startRequest } from "./moved.ts"
import type { Slo, StageOutcome } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"
import { liveOf, specOf } from "./testing.ts"

const none = () => {}

const NO_SLO: Slo = {
  ttftUs: Infinity,
  ttftSlowdown: 0,
  tpotUs: Infinity,
  thinkingTpotUs: Infinity,
  maxGapUs: Infinity,
}
const TTFT = { ttftUs: 1000 }
const SLOWDOWN = { ttftSlowdown: 2 }
const TPOT = { tpotUs: 100 }
const GAP = { maxGapUs: 150 }

/** A request with only these objectives, as a replica starts it; a slowdown of any size comes to the least, 100 ms. */
const started = (slo: Partial<Slo>, thinking = false) =>
  startRequest(specOf(1, { slo: { ...NO_SLO, ...slo }, thinking }), 0, 0, () => 1000)

const emitAt = (request: LiveRequest, times: readonly number[]) =>
  times.map((atUs) => request.emit(1, -1, atUs, none) > 0)

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

describe("which tokens are late, for every set of objectives", () => {
  // Times at which the last token is just on time; a µs later it is late.
  const cases: [string, Partial<Slo>, readonly number[]][] = [
    ["TTFT: the first token only", TTFT, [1000]],
    ["TTFT as a slowdown", SLOWDOWN, [100_000]],
    ["TPOT: from the first token on, whenever that comes", TPOT, [5_000_000, 5_000_100]],
    ["TPOT: a token that came early is slack for the next", TPOT, [700, 710, 900]],
    ["TTFT and TPOT: an early first token is slack", { ...TTFT, ...TPOT }, [10, 1100]],
    ["TTFT and TPOT: all of it is for one token", { ...TTFT, ...TPOT }, [10, 20, 30, 1300]],
    ["slowdown and TPOT: an early first token is slack", { ...SLOWDOWN, ...TPOT }, [10, 100_100]],
    ["gap: from token to token", GAP, [5_000_000, 5_000_150, 5_000_151, 5_000_301]],
    ["TTFT and gap: no slack", { ...TTFT, ...GAP }, [10, 160]],
    ["TPOT and gap: the gap where there is slack", { ...TPOT, ...GAP }, [0, 10, 20, 170]],
    ["TPOT and gap: the pace where there is none", { ...TPOT, ...GAP }, [0, 90, 200]],
    ["all three: the gap where there is slack", { ...TTFT, ...TPOT, ...GAP }, [10, 160, 310]],
    ["all three: the pace where there is none", { ...TTFT, ...TPOT, ...GAP }, [1000, 1100]],
    ["a gap below the TPOT", { ...TPOT, maxGapUs: 50 }, [0, 50, 100]],
  ]
  test.each(cases)("%s", (_, slo, times) => {
    const onTime = started(slo)
    expect(emitAt(onTime, times)).not.toContain(true)
    expect(onTime.outcome(0, true).attained).toBe(true)
    const late = started(slo)
    expect(emitAt(late, times.with(-1, times.at(-1)! + 1)).at(-1)).toBe(true)
    expect(late.outcome(0, true)).toMatchObject({ attained: false })
  })

  test("without any, no token is late", () => {
    const request = started({})
    expect(emitAt(request, [1e9, 2e9, 3e9])).not.toContain(true)
  })

  test("after a late first token TPOT counts from it, with a TTFT or without", () => {
    for (const slo of [TPOT, { ...TTFT, ...TPOT }]) {
      const request = started(slo)
      request.emit(1, -1, 1500, none)
      expect(request.dueUs).toBe(1600)
    }
  })

  test("without a TTFT thinking tokens count from the first token, too, and then the answer's", () => {
    const request = started({ ...TPOT, thinkingTpotUs: 40 }, true)
    request.emit(1, -1, 5000, none)
    expect(request.dueUs).toBe(5040)
    expect(request.emit(1, 0, 5100, none)).toBe(0)
    expect(request.dueUs).toBe(5200)
  })

  test("the gap holds across the end of thinking", () => {
    const request = started({ ...TTFT, ...TPOT, thinkingTpotUs: 40, maxGapUs: 60 }, true)
    request.emit(1, -1, 0, none)
    expect(request.emit(1, 0, 61, none)).toBe(1)
    expect(request.outcome(0, true).stages.map(({ stage, attained }) => [stage, attained])).toEqual([
      ["prefill", true],
      ["thinking", true],
      ["answer", false],
    ])
  })

  test("lateness is against the earlier of the two", () => {
    const ahead = started({ ...TTFT, ...TPOT, ...GAP })
    ahead.emit(1, -1, 0, none)
    expect(ahead.emit(1, -1, 160, none)).toBe(10)
    const behind = started({ ...TPOT, ...GAP })
    behind.emit(1, -1, 0, none)
    expect(behind.emit(1, -1, 160, none)).toBe(60)
    expect(behind.outcome(0, true).stages[1]).toMatchObject({ attained: false, worstLateUs: 60 })
  })

  test("tokens of one step have no gap between them", () => {
    const request = started({ ...TTFT, ...TPOT, ...GAP })
    request.emit(3, -1, 100, none)
    expect(request.dueUs).toBe(250)
    expect(request.outcome(0, true).maxGapUs).toBe(0)
  })

  test("the longest gap is told whether asked for or not", () => {
    const request = started({})
    expect(request.outcome(0, true).maxGapUs).toBe(0)
    emitAt(request, [500, 600, 900, 950])
    expect(request.outcome(0, true).maxGapUs).toBe(300)
  })

  test.each([TPOT, GAP, { ...TTFT, ...TPOT, ...GAP }])(
    "%o: it goes on elsewhere as if it had stayed",
    (slo) => {
      const stayed = started(slo)
      const left = started(slo)
      for (const request of [stayed, left]) emitAt(request, [10, 60])
      const { request, progress } = movedFrom(left)
      const moved = startRequest(request, 100, 7, () => Number.NaN, progress)
      for (const times of [[140], [260], [500, 501]]) {
        expect(emitAt(moved, times)).toEqual(emitAt(stayed, times))
        expect({ ...moved.progress, admitted: false }).toEqual({ ...stayed.progress, admitted: false })
      }
    },
  )

  test("one that moves before its first token keeps that it has no TTFT", () => {
    const { request, progress } = movedFrom(started(TPOT))
    const moved = startRequest(request, 100, 7, () => Number.NaN, progress)
    expect(emitAt(moved, [5000, 5101])).toEqual([false, true])
  })
})

describe("the stream that plans see", () => {
  test("slack counts by pace, not by the gap", () => {
    const request = started({ ...TTFT, ...TPOT, ...GAP })
    request.emit(1, -1, 10, none)
    expect([request.dueUs, request.paceDueUs, request.tpotUs, request.streamStartUs]).toEqual([
      160, 1100, 100, 1000,
    ])
  })

  test("a gap below the TPOT is the pace, and leaves no slack", () => {
    const request = started({ ...TTFT, ...TPOT, maxGapUs: 50 })
    request.emit(1, -1, 10, none)
    expect([request.dueUs, request.tpotUs, request.streamStartUs]).toEqual([60, 50, 10])
  })
})

test("times are whole microseconds, whatever fractions objectives come in", () => {
  const slo = { ttftUs: 333.3, ttftSlowdown: 0, tpotUs: 10_000.7, thinkingTpotUs: 0.4, maxGapUs: Infinity }
  const request = startRequest(specOf(1, { slo }), 100, 0, () => 0)
  expect([request.deadlineUs, request.spec.slo.tpotUs, request.spec.slo.thinkingTpotUs]).toEqual([
    433, 10_001, 1,
  ])
  const slowed = startRequest(specOf(2, { slo: { ...slo, ttftSlowdown: 3 } }), 100, 0, () => 41_234.5)
  expect(slowed.deadlineUs).toBe(100 + 123_704)
})
