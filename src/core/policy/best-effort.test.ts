/** What has no deadline is served with what is left over, and there is always something left over. */
import { describe, expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { PolicyOptions } from "../options.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"

/** Twelve SLO streams decode for 40 s, so that every batch is longer than best-effort work may make one. */
const streams = Array.from({ length: 12 }, (_, id): SimRequest => {
  const slo = {
    ttftUs: 5_000_000,
    ttftSlowdown: 0,
    tpotUs: 200_000,
    thinkingTpotUs: 200_000,
    maxGapUs: Infinity,
  }
  return { atUs: 0, outputTokens: 900, spec: specOf(id, { promptTokens: 20, maxOutputTokens: 900, slo }) }
})
const cost = { ...COST, pieces: [{ step: 5000, tokens: 100, sequences: 3000 }] }
const NO_SLO = {
  ttftUs: Infinity,
  ttftSlowdown: 0,
  tpotUs: Infinity,
  thinkingTpotUs: Infinity,
  maxGapUs: Infinity,
}
const limits = { ...LIMITS, kvTokens: 16_384, maxSequences: 16, contextTokens: 1024 }

test.each(["slos-serve", "edf", "edf-drop"] as PolicyName[])("%s does not let it starve", (policy) => {
  const ends = new Map<number, { atUs: number; attained: boolean }>()
  const flex: SimRequest = {
    atUs: 1_000_000,
    outputTokens: 3,
    spec: specOf(99, { tier: "bestEffort", promptTokens: 200 }),
  }
  simulate({
    config: { limits, cost, policy, apps: 1 },
    requests: [...streams, flex],
    onEffect: (effect, nowUs) => {
      if (effect.type === "finished") ends.set(effect.id, { atUs: nowUs, attained: effect.outcome.attained })
    },
  })
  const slo = [...ends].filter(([id]) => id !== 99)
  expect(slo.every(([, { attained }]) => attained)).toBe(true)
  expect(ends.get(99)!.atUs).toBeLessThan(Math.max(...slo.map(([, { atUs }]) => atUs)))
})

test.each(["slos-serve", "edf", "edf-drop"] as PolicyName[])(
  "%s: answers without a TPOT go on while prompts keep coming",
  (policy) => {
    const slo = {
      ttftUs: 400_000,
      ttftSlowdown: 0,
      tpotUs: Infinity,
      thinkingTpotUs: Infinity,
      maxGapUs: Infinity,
    }
    const requests = Array.from({ length: 1000 }, (_, id): SimRequest => {
      // Twelve answers, then more prompts than can be computed, for 50 s.
      const outputTokens = id < 12 ? 25 : 1
      const spec = specOf(id, { promptTokens: id < 12 ? 20 : 900, maxOutputTokens: outputTokens, slo })
      return { atUs: id * 50_000, outputTokens, spec }
    })
    let answeredUs = 0
    let answers = 0
    simulate({
      config: { limits, cost, policy, apps: 1 },
      requests,
      onEffect: (effect, nowUs) => {
        if (effect.type !== "finished" || effect.id >= 12) return
        answeredUs = nowUs
        answers++
      },
    })
    expect(answers).toBe(12)
    expect(answeredUs).toBeLessThan(30_000_000)
  },
)

describe("while more comes than can be served", () => {
  const options = { bestEffortPatienceUs: 2_000_000 }
  const patient = { bestEffortPatienceUs: Infinity }

  /** Forty clients, each with its next request as soon as its last has ended, share eight sequences for 20 s. Answers
   * the longest time that any request took, s, and how many met their SLOs. */
  function closedLoop(given: Partial<PolicyOptions>): { longestS: number; kept: number } {
    const began = new Map<number, number>()
    const slo = {
      ttftUs: 1_000_000,
      ttftSlowdown: 0,
      tpotUs: 100_000,
      thinkingTpotUs: 100_000,
      maxGapUs: Infinity,
    }
    const next = (atUs: number): SimRequest => {
      const id = began.size
      began.set(id, atUs)
      const outputTokens = 20 + ((id * 37) % 80)
      return { atUs, outputTokens, spec: specOf(id, { promptTokens: 50, maxOutputTokens: 100, slo }) }
    }
    let [longestS, kept] = [0, 0]
    simulate({
      config: { limits: LIMITS, cost: COST, policy: "slos-serve", apps: 1, options: given },
      requests: Array.from({ length: 40 }, (_, i) => next(i * 1000)),
      follow: (_, nowUs) => (nowUs < 20_000_000 ? next(nowUs + 1) : null),
      onEffect: (effect, nowUs) => {
        if (effect.type !== "finished") return
        longestS = Math.max(longestS, (nowUs - began.get(effect.id)!) / 1e6)
        if (effect.outcome.attained) kept++
      },
    })
    return { longestS, kept }
  }

  test("nothing turned down waits for ever, and most promises are made as before", () => {
    const [fair, unfair] = [closedLoop(options), closedLoop(patient)]
    expect(unfair.longestS).toBeGreaterThan(20)
    expect(fair.longestS).toBeLessThan(12)
    expect(fair.kept).toBeGreaterThan(0.8 * unfair.kept)
  })

  /** Small requests without a deadline keep coming, which together take all the KV; a large one needs most of it. */
  function largeAmongSmall(given: Partial<PolicyOptions>): number {
    const large: SimRequest = {
      atUs: 1_000_000,
      outputTokens: 100,
      spec: specOf(0, { tier: "bestEffort", slo: NO_SLO, promptTokens: 900, maxOutputTokens: 100 }),
    }
    const small = Array.from({ length: 400 }, (_, i): SimRequest => {
      const spec = specOf(i + 1, { tier: "bestEffort", slo: NO_SLO, promptTokens: 100, maxOutputTokens: 100 })
      return { atUs: i * 50_000, outputTokens: 100, spec }
    })
    let endedUs = 0
    simulate({
      config: {
        ...{ limits: { ...LIMITS, kvTokens: 1280 }, cost: COST, apps: 1 },
        ...{ policy: "slos-serve", options: given },
      },
      requests: [large, ...small],
      onEffect: (effect, nowUs) => {
        if (effect.type === "finished" && effect.id === 0) endedUs = nowUs
      },
    })
    return endedUs / 1e6
  }

  test("a large request is not overtaken for ever by smaller ones", () => {
    expect(largeAmongSmall(patient)).toBeGreaterThan(20)
    expect(largeAmongSmall(options)).toBeLessThan(8)
  })
})
