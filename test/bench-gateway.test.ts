/** The bench that plays a workload through our gateway and through balancers, before simulated engines. */
import { expect, test } from "vitest"
import { type FrontName, play } from "../bench/fleet/virtual/play.ts"
import { ENGINE_RULES } from "../src/fleet/engine-rules.ts"
import { readClasses } from "../src/load/classes.ts"
import { HARDWARE } from "../src/sim/presets.ts"
import { RUN_DEFAULTS, type RunSpec } from "../src/study/spec.ts"

const HARD = HARDWARE["opt-6.7b-a100"]!

function keptBy(front: FrontName, ratePerGpu: number): number {
  const spec: RunSpec = {
    ...RUN_DEFAULTS,
    ...{ scenario: "chatbot", policy: "vllm", hardware: HARD, replicas: 2, seed: 1 },
    ...{ options: { tokenBudget: 512 }, ratePerSec: 2 * ratePerGpu, durationS: 40, leadIn: 0.2 },
    classes: readClasses(undefined),
    maxSequenceTokens: HARD.contextTokens - 1,
  }
  const { kept, total } = play(spec, front, {
    ...ENGINE_RULES.vllm,
    ...{ tokenBudget: 512, kvTokens: HARD.kvTokens },
  })
  expect(total).toBeGreaterThan(100)
  return kept / total
}

test("in overload a gateway keeps what balancers lose", () => {
  expect(keptBy("least connections", 7)).toBeLessThan(0.1)
  expect(keptBy("power of two", 7)).toBeLessThan(0.1)
  expect(keptBy("gateway", 7)).toBeGreaterThan(0.55)
})

test("at an easy load it loses nothing to them", () => {
  expect(keptBy("gateway", 2)).toBeGreaterThanOrEqual(keptBy("least connections", 2))
  expect(keptBy("gateway", 2)).toBeGreaterThan(0.93)
})

test("the same run is played alike", () => {
  expect(keptBy("gateway", 5)).toBe(keptBy("gateway", 5))
})
