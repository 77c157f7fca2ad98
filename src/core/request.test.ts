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

  test("the paper's check looks at the first token, every tenth, and the last", () => {
    /** Tokens from the first to the last, of which this one is late. */
    const every10 = (late: number, last: number) => {
      const request = liveOf(1)
      for (let n = 1; n <= last; n++)
        request.emit(1, -1, 1_000_000 + (n - 1) * 100_000 + (n === late ? 1 : -1), none)
      expect(request.outcome(0, false).attainedEvery10).toBe(false)
      return request.outcome(0, true).attainedEvery10
    }
    expect([1, 2, 9, 10, 11, 19, 20, 21].map((late) => every10(late, 25))).toEqual([
      ...[false, true, true, false, true, true, false, true],
    ])
    expect([every10(3, 3), every10(3, 4), every10(0, 30)]).toEqual([false, true, true])
  })

  test("a stage is as late as its latest token", () => {
    const request = liveOf(1)
    emitAt(request, [0, 1_100_060, 1_200_010])
    expect(request.stage).toMatchObject({ stage: "answer", worstLateUs: 60, attained: false, tokens: 2 + 1 })
  })

  test("one that has no token yet has no stage behind it, and nothing late", () => {
    const request = liveOf(1, { tenant: 3 }, 700)
    expect(request.outcome(9, false)).toMatchObject({
      ...{ stages: [], attained: false, startedUs: -1, firstTokenUs: -1, finishedUs: 9, arrivalUs: 700 },
      ...{ ttftUs: 1_000_000, outputTokens: 0, preemptions: 0, cachedTokens: 0, maxGapUs: 0 },
    })
    expect(request.progress).toMatchObject({ lastTokenUs: -1, admitted: false, violated: false })
    expect([request.tenant, request.sessionMissed, request.gone, request.prefillAlone]).toEqual([
      ...[3, false, false, true],
    ])
    expect(liveOf(1).tenant).toBe(0)
  })

  test("an answer that begins with the first token has not been thought about", () => {
    const request = liveOf(1, { thinking: true })
    request.emit(1, 0, 1_000_000, none)
    expect(request.outcome(0, true).stages.map(({ stage }) => stage)).toEqual(["prefill", "answer"])
    expect(request.dueUs).toBe(1_100_000)
  })

  test("no more tokens come out than it may produce", () => {
    const request = liveOf(1, { maxOutputTokens: 3 })
    for (const count of [4, 0]) expect(() => request.emit(count, -1, 0, none)).toThrow("more tokens than")
    request.emit(2, -1, 0, none)
    expect(() => request.emit(2, -1, 0, none)).toThrow("more tokens than")
    request.emit(1, -1, 0, none)
    expect(request.output).toBe(3)
  })

  test("a prompt is no decode, though one token is left of it", () => {
    expect(Object.assign(liveOf(1), { computed: 99 }).decoding).toBe(false)
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

  test("it leaves with what it had then, of its own", () => {
    const spec = specOf(1, { prefix: [1, 2], thinking: true, slo: { ...NO_SLO, ...TTFT, ...TPOT } })
    const left = startRequest(spec, 0, 0, () => 1000)
    left.emit(1, -1, 10, none)
    left.emit(1, 0, 20, none)
    const { request, progress } = movedFrom(left)
    const before = JSON.stringify(progress)
    const moved = startRequest(request, 100, 7, () => Number.NaN, progress)
    moved.prefix.push(3)
    moved.emit(1, -1, 9000, none)
    left.prefix.push(4)
    left.emit(1, -1, 30, none)
    expect(JSON.stringify(progress)).toBe(before)
    expect([spec.prefix, left.prefix, moved.prefix]).toEqual([
      [1, 2],
      [1, 2, 4],
      [1, 2, 3],
    ])
    const stages = (of: LiveRequest) => of.outcome(0, true).stages.map(({ stage, tokens }) => [stage, tokens])
    expect(stages(moved)).toEqual(stages(left))
    expect(stages(moved).map(([stage]) => stage)).toEqual(["prefill", "thinking", "answer"])
    expect([left.outcome(0, true).attained, moved.outcome(0, true).attained]).toEqual([true, false])
  })

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

  test("a gap as long as the TPOT leaves what slack there is", () => {
    const request = started({ ...TTFT, ...TPOT, maxGapUs: 100 })
    request.emit(1, -1, 10, none)
    expect([request.dueUs, request.tpotUs, request.streamStartUs]).toEqual([110, 100, 1000])
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
