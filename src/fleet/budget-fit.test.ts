/** What a step takes, learnt from outside: of engines that say nothing of it. */
import { expect, test } from "vitest"
import { HARDWARE, limitsOf } from "../sim/presets.ts"
import { ENGINE_RULES } from "./engine-rules.ts"
import { Twin } from "./twin.ts"
import { errorsOf, lengths, type Network, predict, trafficOf, watch } from "./twin-testing.ts"

const HARD = HARDWARE["opt-6.7b-a100"]!
const LAN: Network = { delayUs: 500, jitterUs: 1000, gatherUs: 1 }

function seen(twin: Twin, tokenBudget: number, network: Network, gapMs: number) {
  const requests = trafficOf({
    ...{ seed: 1, requests: 300, gapUs: gapMs * 1000 },
    promptTokens: lengths(2, 800, 0.9, 4000),
    outputTokens: lengths(3, 150, 0.8, 1500),
  })
  const limits = limitsOf(HARD)
  return predict(
    twin,
    watch({ truth: HARD.cost, policy: "vllm", limits, tokenBudget, noiseSigma: 0.05 }, requests, network),
  )
}

test.each([
  [64, 3000],
  [128, 1500],
  [256, 800],
  [512, 500],
])("an engine whose steps take %i tokens is found out", (budget, gapMs) => {
  const twin = new Twin({ rules: ENGINE_RULES.vllm })
  const late = seen(twin, budget, LAN, gapMs).slice(100)
  expect(twin.rules.tokenBudget / budget).toBeGreaterThan(0.7)
  expect(twin.rules.tokenBudget / budget).toBeLessThan(1.4)
  expect(errorsOf(late).median).toBeLessThan(0.2)
})

test("one whose steps take more than was believed is, too", () => {
  const twin = new Twin({ rules: { ...ENGINE_RULES.vllm, tokenBudget: 128 } })
  seen(twin, 2048, LAN, 500)
  expect(twin.rules.tokenBudget).toBeGreaterThan(700)
})

test.each([
  ["exact", { delayUs: 200, jitterUs: 0, gatherUs: 1 }],
  ["jitter", { delayUs: 1000, jitterUs: 2000, gatherUs: 1 }],
  ["a proxy that gathers", { delayUs: 1000, jitterUs: 1000, gatherUs: 40_000 }],
] as const)("what is right stays: %s", (_, network) => {
  for (const gapMs of [250, 500]) {
    const twin = new Twin({ rules: ENGINE_RULES.vllm })
    seen(twin, 2048, network, gapMs)
    expect(twin.rules.tokenBudget).toBe(2048)
  }
})
