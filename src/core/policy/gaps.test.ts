/** A stream that is ahead of its pace may pause for others, but no longer than its longest gap. */
import { describe, expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { CostModel } from "../cost.ts"
import type { Outcome } from "../protocol.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"

const GAP_US = 250_000
const LONG = 99
const limits = { ...LIMITS, kvTokens: 65_536, contextTokens: 32_768, maxBatchTokens: 512 }
/** Decodes cost as much as steps, as on a CPU: there they wait for prompts as long as they can. */
const cost: CostModel = { ...COST, pieces: [{ step: 1000, tokens: 100, sequences: 10_000 }] }

/** Four streams far ahead of their pace, as after early first tokens, and a prompt of three seconds among them. */
function besideLongPrompt(policy: PolicyName, maxGapUs: number): Map<number, Outcome> {
  const slo = { ttftUs: 5_000_000, ttftSlowdown: 0, tpotUs: 100_000, thinkingTpotUs: 100_000, maxGapUs }
  const streams = Array.from({ length: 4 }, (_, id): SimRequest => {
    return { atUs: 0, outputTokens: 150, spec: specOf(id, { promptTokens: 50, maxOutputTokens: 150, slo }) }
  })
  const promptSlo = { ...slo, ttftUs: 20_000_000, maxGapUs: Infinity }
  const spec = specOf(LONG, { promptTokens: 30_000, maxOutputTokens: 5, slo: promptSlo })
  const outcomes = new Map<number, Outcome>()
  simulate({
    config: { limits, cost, policy, apps: 1 },
    requests: [...streams, { atUs: 500_000, outputTokens: 5, spec }],
    onEffect: (effect) => {
      if (effect.type === "finished") outcomes.set(effect.id, effect.outcome)
    },
  })
  return outcomes
}

describe.each(["slos-serve", "edf", "edf-drop"] as PolicyName[])("%s", (policy) => {
  const streamsOf = (outcomes: Map<number, Outcome>) =>
    [...outcomes].filter(([id]) => id !== LONG).map(([, outcome]) => outcome)

  test("without a longest gap streams stand beside a long prompt, and are on time", () => {
    const streams = streamsOf(besideLongPrompt(policy, Infinity))
    expect(streams.every(({ attained }) => attained)).toBe(true)
    expect(Math.max(...streams.map(({ maxGapUs }) => maxGapUs))).toBeGreaterThan(1_000_000)
  })

  test("with one they keep it, and the prompt is in time, too", () => {
    const outcomes = besideLongPrompt(policy, GAP_US)
    const streams = streamsOf(outcomes)
    expect(streams.map(({ attained }) => attained)).toEqual([true, true, true, true])
    expect(Math.max(...streams.map(({ maxGapUs }) => maxGapUs))).toBeLessThanOrEqual(GAP_US)
    expect(outcomes.get(LONG)!.attained).toBe(true)
  })
})
