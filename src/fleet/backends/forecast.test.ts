/** Engines of others, as forecasts of more of them play them. */
import { expect, test } from "vitest"
import { ENGINE_RULES } from "../engine-rules.ts"
import { forecastView } from "./forecast.ts"
import { infoOf, MOST_TOKENS } from "./info.ts"
import { BACKEND_KINDS } from "./kinds.ts"

const cost = { pieces: [{ step: 20_000 }], residualSigma: 0.1, fastPassTokens: 16, unifiedKv: true }

function viewOf(rules: keyof typeof ENGINE_RULES, contextTokens: number, planned = false) {
  const served = { kind: BACKEND_KINDS.vllm, model: "m", contextTokens }
  const { limits } = infoOf(served as Parameters<typeof infoOf>[0], ENGINE_RULES[rules])
  return forecastView(limits, ENGINE_RULES[rules], cost, planned)
}

test.each([
  ["vllm", "vllm"],
  ["vllm-priority", "vllm-priority"],
  ["sglang", "vllm-prefill-first"],
  ["llama-server", "vllm"],
] as const)("%s is played as %s", (rules, policy) => {
  expect(viewOf(rules, 4096).policy).toBe(policy)
  expect(viewOf(rules, 4096, true).policy).toBe("slos-serve")
})

test("sizes that are not known are those that a pool can have", () => {
  const { limits } = viewOf("vllm", MOST_TOKENS)
  expect(limits.kvTokens).toBeLessThan(1e7)
  expect(limits.contextTokens).toBe(limits.kvTokens)
  expect(viewOf("llama-server", 2048).limits.kvTokens).toBe(4 * 2048)
})
