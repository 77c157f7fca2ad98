/** Presets: the published figures come out, derived ones are in the range of what is known, units are right. */
import { expect, test } from "vitest"
import { shapeOf, stepUs } from "../core/cost.ts"
import { HARDWARE, limitsOf, SCENARIO_HARDWARE } from "./presets.ts"

const step = (name: string, tokens: number, draft = 0) => {
  const { cost, draftCost } = HARDWARE[name]!
  const model = draft > 0 ? draftCost! : cost
  return stepUs(model, shapeOf([{ position: 0, tokens, sample: true, draft }], model))
}

test("opt-6.7b on an A100: published blocks and times; the second piece rules large batches", () => {
  expect(HARDWARE["opt-6.7b-a100"]!.kvTokens).toBe(6865 * 16)
  expect(step("opt-6.7b-a100", 100)).toBeCloseTo(24_800 + 6878, 3)
  expect(step("opt-6.7b-a100", 8000)).toBeCloseTo(3033 + 75.23 * 8000, 3)
  expect(step("opt-6.7b-a100", 1, 9)).toBeCloseTo(3033 + 75.23 * 10 + 9 * 3465, 3)
})

test("a reasoning step never takes less than 30 ms; a derived draft step adds its whole cost and says so", () => {
  expect(step("r1-distill-qwen-7b-a100", 1)).toBeCloseTo(30_000, 6)
  expect(step("r1-distill-qwen-7b-a100", 1, 2)).toBeCloseTo(30_000 + 2 * 3465, 3)
  expect(HARDWARE["r1-distill-qwen-7b-a100"]!.source).toContain("NOT published")
  expect(HARDWARE["opt-6.7b-a100"]!.source).not.toContain("NOT published")
})

test("KV sizes follow from layers and widths: 512 and 56 KiB a token", () => {
  expect(HARDWARE["toolllama-7b-a100"]!.source).toContain("512 KiB")
  expect(HARDWARE["r1-distill-qwen-7b-a100"]!.source).toContain("56 KiB")
  for (const [name, hardware] of Object.entries(HARDWARE)) {
    expect(hardware.kvTokens, name).toBeGreaterThan(4 * hardware.contextTokens)
    expect(hardware.kvTokens % hardware.blockTokens, name).toBe(0)
    expect(limitsOf(hardware).unifiedKv).toBe(hardware.cost.unifiedKv)
  }
})

test("every scenario has hardware", () => {
  for (const name of Object.values(SCENARIO_HARDWARE)) expect(HARDWARE[name]).toBeDefined()
})
