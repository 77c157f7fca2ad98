/** The judge against a slow, obvious oracle; classes. */
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { DEFAULT_CLASSES, readClasses, roundSlo } from "./classes.ts"
import { Judge } from "./judge.ts"

/** docs/design.md, Objectives, word by word: due times of all tokens, by counting up one TPOT a token. */
function oracle(
  times: number[],
  round: {
    slo: { ttftMs: number; tpotMs: number; thinkingTpotMs: number }
    outputTokens: number
    thinkingTokens: number
  },
) {
  const due: number[] = [round.slo.ttftMs]
  let at = Math.max(round.slo.ttftMs, times[0] ?? 0)
  for (let n = 2; n <= round.outputTokens; n++) {
    at += n <= round.thinkingTokens ? round.slo.thinkingTpotMs : round.slo.tpotMs
    due.push(at)
  }
  const onTime = due.map((time, i) => i < times.length && times[i]! <= time)
  const checked = onTime.filter((_, i) => i === 0 || (i + 1) % 10 === 0 || i === onTime.length - 1)
  return { attained: onTime.every(Boolean), every10: checked.every(Boolean), onTime }
}

const scenario = fc
  .record({
    outputTokens: fc.integer({ min: 1, max: 45 }),
    thinkingShare: fc.double({ min: 0, max: 1, noNaN: true }),
    slo: fc.record({
      ttftMs: fc.integer({ min: 10, max: 200 }),
      tpotMs: fc.integer({ min: 5, max: 20 }),
      thinkingTpotMs: fc.integer({ min: 5, max: 20 }),
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
        if (times.length < round.outputTokens) expect(judge.missed(1e9)).toBe(true)
      }),
    )
  })

  test("no objective is always met", () => {
    const none = Number.POSITIVE_INFINITY
    const judge = new Judge({
      slo: { ttftMs: none, tpotMs: none, thinkingTpotMs: none },
      outputTokens: 3,
      thinkingTokens: 0,
    })
    judge.take(1e6, 1)
    judge.take(2e6, 2)
    expect(judge.verdict(true).attained).toBe(true)
  })

  test("without a TTFT, TPOT counts from the first token", () => {
    const slo = { ttftMs: Number.POSITIVE_INFINITY, tpotMs: 10, thinkingTpotMs: 10 }
    const judge = new Judge({ slo, outputTokens: 2, thinkingTokens: 0 })
    judge.take(500, 1)
    judge.take(511, 1)
    expect(judge.verdict(true).attained).toBe(false)
  })
})

describe("classes", () => {
  const round = { class: "a", promptTokens: 10, outputTokens: 5, thinkingTokens: 0, delayMs: 0 }

  test("inline, with slowdown and units", () => {
    const classes = readClasses("a=ttft:3x,tpot:100;b=ttft:1.5s,tpot:50ms,thinking:20", ["a", "b"])
    expect(classes.chat).toEqual(DEFAULT_CLASSES.chat)
    expect(classes.b).toEqual({ ttftMs: 1500, tpotMs: 50, thinkingTpotMs: 20 })
    expect(roundSlo(round, 110, classes, { ms: 20, msPerToken: 2 })).toEqual({
      ttftMs: 3 * (20 + 2 * 110),
      tpotMs: 100,
      thinkingTpotMs: 100,
    })
  })

  test("what cannot be meant is refused", () => {
    expect(() => readClasses("a=tpot:100")).toThrow('--classes: nothing uses a class "a"; known: chat, code')
    expect(() => readClasses("a=ttft")).toThrow("--classes: cannot read")
    expect(() => readClasses("a=tpot:3x")).toThrow("--classes: cannot read")
    expect(() => readClasses("no-such-file.yaml")).toThrow("no such file")
    expect(() => roundSlo(round, 10, {}, undefined)).toThrow('no SLO class "a"')
    expect(() => roundSlo({ ...round, class: "chat" }, 10, readClasses(undefined), undefined)).toThrow(
      "--zero-load",
    )
  })
})
