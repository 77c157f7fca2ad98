/** vLLM with first-token deadlines as priorities: which requests start first, and which give way when KV is
 * full. */
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { Effect, EngineLimits } from "../protocol.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"

/** A request of 100 prompt tokens whose first token is due after `ttftMs`. */
function request(id: number, atMs: number, ttftMs: number, outputTokens: number): SimRequest {
  const slo = { ttftUs: ttftMs * 1000, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity }
  const spec = specOf(id, { promptTokens: 100, maxOutputTokens: outputTokens, slo })
  return { atUs: atMs * 1000, outputTokens, spec }
}

function effectsOf(policy: PolicyName, requests: readonly SimRequest[], limits: EngineLimits): Effect[] {
  const effects: Effect[] = []
  const options = { tokenBudget: 100 }
  simulate({
    config: { limits, cost: COST, policy, apps: 1, options },
    requests,
    check: true,
    onEffect: (effect) => effects.push(effect),
  })
  return effects
}

const firstTokens = (effects: readonly Effect[]) => [
  ...new Set(effects.flatMap((effect) => (effect.type === "token" ? [effect.id] : []))),
]
const preempted = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => (effect.type === "preempted" ? [effect.id] : []))

const limits: EngineLimits = { ...LIMITS, unifiedKv: true, minChunkTokens: 1 }

test("waiting requests start by first-token deadline, not by arrival; what has begun goes on", () => {
  // A prefill of one budget each: 0 runs when the others come.
  const requests = [
    request(0, 0, 9000, 1),
    request(1, 1, 5000, 1),
    request(2, 2, 500, 1),
    request(3, 3, 900, 1),
  ]
  expect(firstTokens(effectsOf("vllm-priority", requests, limits))).toEqual([0, 2, 3, 1])
  expect(firstTokens(effectsOf("vllm", requests, limits))).toEqual([0, 1, 2, 3])
})

test("when KV is full the latest deadline gives way, is recomputed and finishes", () => {
  // Two fit with their prompts, not with their answers.
  const tight = { ...limits, kvTokens: 256, contextTokens: 256 }
  const requests = [request(0, 0, 9000, 80), request(1, 1, 500, 80)]
  const effects = effectsOf("vllm-priority", requests, tight)
  expect(new Set(preempted(effects))).toEqual(new Set([0]))
  expect(effects.filter(({ type }) => type === "finished")).toHaveLength(2)
  // First come, first served gives up the later arrival, whatever its deadline.
  expect(new Set(preempted(effectsOf("vllm", requests, tight)))).toEqual(new Set([1]))
})
