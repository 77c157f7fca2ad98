/** Rounds of a session find its KV, because that of sessions that are over makes room first. */
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyFactory } from "./policy.ts"
import { slosServe } from "./slos-serve.ts"

const SESSIONS = 100
const PROMPT_TOKENS = 320

/** Sessions of two rounds, ten a second, a second between the rounds; the last round has a slower pace. The KV holds
 * about as many as are away or running. Answers how many second rounds found it. */
function secondRoundsWithKv(policy: PolicyFactory): number {
  let found = 0
  const round = (session: number, second: boolean, atUs: number): SimRequest => {
    const promptTokens = second ? PROMPT_TOKENS + 64 : PROMPT_TOKENS
    const prefix = Array.from({ length: promptTokens / LIMITS.blockTokens }, (_, i) => session * 1000 + i)
    const tpotUs = second ? 100_000 : 50_000
    const slo = { ttftUs: 2_000_000, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
    const id = second ? SESSIONS + session : session
    return { atUs, outputTokens: 8, spec: specOf(id, { session, promptTokens, prefix, slo }) }
  }
  simulate({
    config: { limits: { ...LIMITS, kvTokens: 6144, maxSequences: 64 }, cost: COST, policy, apps: 1 },
    requests: Array.from({ length: SESSIONS }, (_, session) => round(session, false, session * 100_000)),
    follow: (id, nowUs) => (id < SESSIONS ? round(id, true, nowUs + 1_000_000) : null),
    onEffect: (effect) => {
      if (effect.type === "finished" && effect.id >= SESSIONS && effect.outcome.cachedTokens > 0) found++
    },
  })
  return found
}

test("KV of sessions that are over goes before that of sessions that will come back", () => {
  const byLastUse = secondRoundsWithKv((options) => ({ ...slosServe(options), keepsSessions: false }))
  const byReturns = secondRoundsWithKv(slosServe)
  expect(byLastUse).toBeLessThan(SESSIONS * 0.3)
  expect(byReturns).toBeGreaterThan(SESSIONS * 0.7)
})
