/** The window counts by class and stage, forgets what is old, and leaves best effort out of attainment. */
import { expect, it } from "vitest"
import type { Outcome } from "../core/protocol.ts"
import type { ObservedEffect } from "../replica/observed.ts"
import { AttainmentWindow } from "./attainment.ts"

const S = 1_000_000

function finished(app: number, attained: boolean, more: Partial<Outcome> = {}): ObservedEffect {
  const outcome: Outcome = {
    app,
    arrivalUs: 0,
    startedUs: 0,
    firstTokenUs: 0,
    finishedUs: 0,
    promptTokens: 1,
    cachedTokens: 0,
    outputTokens: 10,
    maxGapUs: 0,
    ttftUs: 1,
    tier: "slo",
    servedTier: "slo",
    preemptions: 0,
    attained,
    attainedEvery10: attained,
    stages: [{ stage: "prefill", attained, worstLateUs: 0, tokens: 1 }],
    ...more,
  }
  return { type: "finished", id: 1, reason: "stop", outcome }
}

it("counts by class and stage, and forgets", () => {
  const window = new AttainmentWindow(2, 10)
  window.observe(finished(0, true), 1 * S)
  window.observe(finished(0, false, { servedTier: "bestEffort" }), 5 * S)
  window.observe(finished(1, false, { tier: "bestEffort" }), 5 * S)
  window.observe({ ...finished(0, true), reason: "cancelled" } as ObservedEffect, 5 * S)
  const [first, second] = window.byClass(9 * S)
  expect(first).toMatchObject({
    requests: { total: 2, attained: 1 },
    stages: { prefill: { total: 2, attained: 1 }, answer: { total: 0 } },
    demoted: 1,
    outputTokens: 20,
  })
  expect(second).toMatchObject({ requests: { total: 0 }, bestEffort: 1 })
  expect(window.byClass(12 * S)[0]!.requests).toEqual({ total: 1, attained: 0 })
  window.observe(finished(0, true), 21 * S)
  expect(window.byClass(21 * S)[0]!.requests).toEqual({ total: 1, attained: 1 })
})

it("gives rates over the last whole seconds", () => {
  const window = new AttainmentWindow(1)
  for (let i = 0; i < 10; i++) {
    window.observe({ type: "token", id: 1, count: 5, lateUs: 0 }, 10 * S + i)
    window.step(20_000, 10 * S + i)
  }
  expect(window.rates(11 * S)).toMatchObject({ tokensPerSec: 10, stepMs: 20 })
  expect(window.rates(30 * S)).toMatchObject({ tokensPerSec: 0, stepMs: 0 })
})
