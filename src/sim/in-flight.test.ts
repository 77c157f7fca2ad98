/** Two batches in flight on a fast GPU, as vLLM is planned for: short prompts with little time to wait, beside long ones. */
import { expect, test } from "vitest"
import type { CostModel } from "../core/cost.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { specOf } from "../core/testing.ts"
import { Random } from "../random.ts"
import { type FleetOptions, simulateFleet } from "./fleet.ts"

/** An 8B model: weights are read in 9 ms, 25 µs a token from some 320 on. */
const COST: CostModel = {
  pieces: [
    { step: 9000, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
    { step: 1000, tokens: 25, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
  ],
  ...{ residualSigma: 0.05, fastPassTokens: 16, unifiedKv: true },
}
const LIMITS: EngineLimits = {
  ...{ kvTokens: 400_000, maxSequences: 256, maxBatchTokens: 8192, contextTokens: 8192 },
  ...{ blockTokens: 32, minChunkTokens: 1, unifiedKv: true },
}
/** A chat's first token is due after a dozen steps, or six times its prefill. */
const KINDS = [
  { promptTokens: 512, maxOutputTokens: 128, ttftMs: 122, tpotMs: 41 },
  { promptTokens: 2048, maxOutputTokens: 64, ttftMs: 280, tpotMs: 61 },
  { promptTokens: 6144, maxOutputTokens: 128, ttftMs: 1030, tpotMs: 51 },
]
const [REQUESTS, SEEDS] = [60, 6]

/** Bursts, at eight tenths of what it could compute. */
function arrivals(seed: number): FleetOptions["requests"] {
  const random = new Random("in flight", seed)
  let atUs = 0
  return Array.from({ length: REQUESTS }, (_, id) => {
    atUs += Math.round((random.gamma(0.35) / 0.35) * 90_000)
    const drawn = random.uniform()
    const app = drawn < 0.4 ? 0 : drawn < 0.8 ? 1 : 2
    const { ttftMs, tpotMs, ...tokens } = KINDS[app]!
    const slo = { ...specOf(0).slo, ttftUs: ttftMs * 1000, tpotUs: tpotMs * 1000 }
    return { atUs, outputTokens: tokens.maxOutputTokens, spec: specOf(id, { ...tokens, app, slo }) }
  })
}

function kept(policy: PolicyName, depth: number, tokenBudget?: number) {
  const options = tokenBudget === undefined ? {} : { tokenBudget }
  const config = { limits: LIMITS, cost: COST, policy, apps: 3, depth, options }
  const found = { all: 0, chats: 0, ofChats: 0 }
  for (let seed = 1; seed <= SEEDS; seed++)
    simulateFleet({
      ...{ replicas: [config], requests: arrivals(seed), seed, noiseSigma: 0.1 },
      onEffect: (effect) => {
        if (effect.type !== "finished") return
        const { app, attained } = effect.outcome
        if (app === 0) found.ofChats++
        if (attained) found.all++
        if (attained && app === 0) found.chats++
      },
    })
  return found
}

test("chats are kept though they wait for both of them, and more is than by simple rivals", () => {
  const ours = kept("slos-serve", 2)
  const oneByOne = kept("slos-serve", 1)
  const byPriority = [512, 2048, 8192].map((budget) => kept("vllm-priority", 1, budget).all)
  // A batch decided when it begins knows more: that is worth some points.
  expect(ours.all).toBeGreaterThanOrEqual(0.96 * oneByOne.all)
  expect(ours.chats).toBeGreaterThanOrEqual(oneByOne.chats - 3)
  expect(ours.all).toBeGreaterThan(kept("edf-drop", 2).all + 15)
  expect(ours.all).toBeGreaterThan(Math.max(...byPriority) + 50)
})
