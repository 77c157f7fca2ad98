/** Whoever has no deadline is served with what is left over, and there is always something left over. */
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"

/** Twelve SLO streams decode for 40 s, so that every batch is longer than best-effort work may make one. */
const streams = Array.from({ length: 12 }, (_, id): SimRequest => {
  const slo = { ttftUs: 5_000_000, ttftSlowdown: 0, tpotUs: 200_000, thinkingTpotUs: 200_000 }
  return { atUs: 0, outputTokens: 900, spec: specOf(id, { promptTokens: 20, maxOutputTokens: 900, slo }) }
})
const cost = { ...COST, pieces: [{ step: 5000, tokens: 100, sequences: 3000 }] }
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
    const slo = { ttftUs: 400_000, ttftSlowdown: 0, tpotUs: Infinity, thinkingTpotUs: Infinity }
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
