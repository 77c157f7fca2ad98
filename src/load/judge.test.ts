/** The judge against a slow, obvious oracle, and against the core's own verdict; classes. */
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { startRequest } from "../core/moved.ts"
import { specOf } from "../core/testing.ts"
import { type RoundSlo, readClasses, roundSlo } from "./classes.ts"
import { Judge, type JudgedRound } from "./judge.ts"

/** docs/design.md, Objectives, word by word: due times of all tokens, by counting up one TPOT a token. */
function oracle(times: number[], round: JudgedRound) {
  const { ttftMs, tpotMs, thinkingTpotMs, maxGapMs } = round.slo
  const due: number[] = [ttftMs]
  let at = ttftMs === Infinity ? (times[0] ?? 0) : Math.max(ttftMs, times[0] ?? 0)
  for (let n = 2; n <= round.outputTokens; n++) {
    at += n <= round.thinkingTokens ? thinkingTpotMs : tpotMs
    due.push(Math.min(at, (times[n - 2] ?? Infinity) + maxGapMs))
  }
  const onTime = due.map((time, i) => i < times.length && times[i]! <= time)
  const checked = onTime.filter((_, i) => i === 0 || (i + 1) % 10 === 0 || i === onTime.length - 1)
  return { attained: onTime.every(Boolean), every10: checked.every(Boolean), onTime }
}

const given = (min: number, max: number) =>
  fc.oneof({ weight: 2, arbitrary: fc.integer({ min, max }) }, fc.constant(Infinity))

const scenario = fc
  .record({
    outputTokens: fc.integer({ min: 1, max: 45 }),
    thinkingShare: fc.double({ min: 0, max: 1, noNaN: true }),
    slo: fc.record({
      ttftMs: given(10, 200),
      tpotMs: given(5, 20),
      thinkingTpotMs: given(5, 20),
      maxGapMs: given(10, 30),
    }),
    firstMs: fc.integer({ min: 1, max: 220 }),
    gaps: fc.array(fc.integer({ min: 0, max: 25 }), { minLength: 44, maxLength: 44 }),
    came: fc.integer({ min: 0, max: 60 }),
  })
  .map(({ thinkingShare, firstMs, gaps, came, ...rest }) => {
    const times = [firstMs]
    for (const gap of gaps) times.push(times.at(-1)! + gap)
    const round = { ...rest, thinkingTokens: Math.floor(thinkingShare * (rest.outputTokens - 1)) }
    return { round, times: times.slice(0, Math.min(came, round.outputTokens)) }
  })

describe("judge", () => {
  test("agrees with the oracle on any token times, cut short or whole", () => {
    fc.assert(
      fc.property(scenario, ({ round, times }) => {
        const judge = new Judge(round)
        for (const time of times) judge.take(time, 1)
        const complete = times.length === round.outputTokens
        const verdict = judge.verdict(complete)
        const truth = oracle(times, round)
        expect(verdict.attained).toBe(truth.attained)
        if (complete) expect(verdict.attainedEvery10).toBe(truth.every10)
        const stage = (name: string) => verdict.stages.find((entry) => entry.stage === name)
        expect(stage("prefill")!.attained).toBe(truth.onTime[0])
        const { thinkingTokens, outputTokens } = round
        if (thinkingTokens > 1)
          expect(stage("thinking")!.attained).toBe(truth.onTime.slice(1, thinkingTokens).every(Boolean))
        if (outputTokens > Math.max(1, thinkingTokens)) {
          expect(stage("answer")!.attained).toBe(
            truth.onTime.slice(Math.max(1, thinkingTokens)).every(Boolean),
          )
        }
      }),
      { numRuns: 2000 },
    )
  })

  test("`missed` is never said of a round that then attains, and is said of one that is overdue", () => {
    fc.assert(
      fc.property(scenario, ({ round, times }) => {
        const judge = new Judge(round)
        let said = false
        for (const time of times) {
          said ||= judge.missed(time)
          judge.take(time, 1)
        }
        if (said) expect(oracle(times, round).attained).toBe(false)
        const { ttftMs, tpotMs, thinkingTpotMs, maxGapMs } = round.slo
        // What a missing objective leaves open is never overdue.
        const timed = [ttftMs, Math.min(tpotMs, maxGapMs), Math.min(thinkingTpotMs, maxGapMs)]
        if (times.length < round.outputTokens && timed.every(Number.isFinite))
          expect(judge.missed(1e9)).toBe(true)
      }),
    )
  })

  test("no objective is always met", () => {
    const none = Number.POSITIVE_INFINITY
    const judge = new Judge({
      slo: { ttftMs: none, tpotMs: none, thinkingTpotMs: none, maxGapMs: none },
      outputTokens: 3,
      thinkingTokens: 0,
    })
    judge.take(1e6, 1)
    judge.take(2e6, 2)
    expect(judge.verdict(true).attained).toBe(true)
  })

  test("without a TTFT, TPOT counts from the first token", () => {
    const slo = { ttftMs: Infinity, tpotMs: 10, thinkingTpotMs: 10, maxGapMs: Infinity }
    const judge = new Judge({ slo, outputTokens: 2, thinkingTokens: 0 })
    judge.take(500, 1)
    judge.take(511, 1)
    expect(judge.verdict(true).attained).toBe(false)
  })
})

/** The same tokens as the server's core judges them. */
function coreVerdict(round: JudgedRound, times: readonly number[]) {
  const us = ({ ttftMs, tpotMs, thinkingTpotMs, maxGapMs }: RoundSlo) => ({
    ttftUs: ttftMs * 1000,
    ttftSlowdown: 0,
    tpotUs: tpotMs * 1000,
    thinkingTpotUs: thinkingTpotMs * 1000,
    maxGapUs: maxGapMs * 1000,
  })
  const { outputTokens, thinkingTokens } = round
  const thinking = thinkingTokens > 0
  const spec = specOf(1, { slo: us(round.slo), thinking, maxOutputTokens: outputTokens })
  const request = startRequest(spec, 0, 0, () => Number.NaN)
  for (const [i, time] of times.entries())
    request.emit(1, thinking && i === thinkingTokens ? 0 : -1, time * 1000, () => {})
  return request.outcome(0, true)
}

test("client and server agree on any token times, for all sets of objectives", () => {
  fc.assert(
    fc.property(scenario, ({ round, times }) => {
      fc.pre(times.length === round.outputTokens)
      const judge = new Judge(round)
      for (const time of times) judge.take(time, 1)
      const client = judge.verdict(true)
      const server = coreVerdict(round, times)
      expect(client.attained).toBe(server.attained)
      expect(client.attainedEvery10).toBe(server.attainedEvery10)
      for (const { stage, attained, worstLateMs } of client.stages) {
        const same = server.stages.find((other) => other.stage === stage)!
        expect([stage, attained]).toEqual([stage, same.attained])
        // A missing objective is an hour to the server.
        if (Number.isFinite(worstLateMs)) expect(worstLateMs! * 1000).toBe(same.worstLateUs)
      }
    }),
    { numRuns: 3000 },
  )
})

describe("classes", () => {
  const round = { class: "a", promptTokens: 10, outputTokens: 5, thinkingTokens: 0, delayMs: 0 }

  test("inline, with slowdown and units", () => {
    const classes = readClasses("a=ttft:3x,tpot:100;b=ttft:1.5s,tpot:50ms,thinking:20,gap:0.5s", ["a", "b"])
    expect(classes.chat).toEqual({ ttftSlowdown: 5, tpotMs: 100 })
    expect(classes.reasoning).toEqual({ ttftSlowdown: 3, thinkingTpotMs: 50, tpotMs: 100 })
    expect(classes.b).toEqual({ ttftMs: 1500, tpotMs: 50, thinkingTpotMs: 20, maxGapMs: 500 })
    expect(roundSlo(round, 110, classes, { ms: 20, msPerToken: 2 })).toEqual({
      ttftMs: 3 * (20 + 2 * 110),
      tpotMs: 100,
      thinkingTpotMs: 100,
      maxGapMs: Infinity,
    })
    expect(readClasses("chat=tpot:7").chat).toEqual({ tpotMs: 7 })
    expect(roundSlo({ ...round, class: "b" }, 110, classes, undefined).maxGapMs).toBe(500)
  })

  test("a YAML file as the server reads it", () => {
    const classes = readClasses("examples/slo-classes.yaml")
    expect(classes).toEqual({ ...readClasses(undefined), best_effort: {} })
  })

  test("what cannot be meant is refused", () => {
    expect(() => readClasses("a=tpot:100")).toThrow('--classes: nothing uses a class "a"; known: chat, code')
    expect(() => readClasses("no-such-file.yaml")).toThrow(
      "cannot read the config no-such-file.yaml (ENOENT)",
    )
    expect(() => roundSlo(round, 10, {}, undefined)).toThrow('no SLO class "a"')
    expect(() => roundSlo({ ...round, class: "chat" }, 10, readClasses(undefined), undefined)).toThrow(
      "--zero-load",
    )
  })
})
