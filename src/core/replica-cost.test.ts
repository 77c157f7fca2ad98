/** A replica that is told what steps really take. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "./cost.ts"
import { eventRank } from "./replica.ts"
import { Played } from "./replica-testing.ts"
import { COST, LIMITS } from "./testing.ts"

/** Steps as they really are: a fifth of what is believed. */
const TRUTH: CostModel = { ...COST, pieces: [{ step: 1000, tokens: 20 }], residualSigma: 0.02 }

function played(config: ConstructorParameters<typeof Played>[0] = {}): Played {
  const one = new Played({ limits: { ...LIMITS, maxBatchTokens: 64 }, ...config })
  one.arrives(1, { maxOutputTokens: 100 })
  return one
}
const told = (one: Played, cost: CostModel) => one.replica.handle({ type: "costModel", cost }, one.nowUs)

describe("a new cost model", () => {
  test("holds for the next batch", () => {
    const one = played()
    expect(one.runs().predictedUs).toBe(5000 + 64 * 100)
    const other = played()
    told(other, TRUTH)
    expect(other.replica.cost).toBe(TRUTH)
    expect(other.runs().predictedUs).toBe(1000 + 64 * 20)
  })

  test("is not corrected by what the old one was off", () => {
    const one = played()
    for (let i = 0; i < 30; i++) one.step({}, 1020)
    expect(one.replica.snapshot(0).calibration[0]).toBeLessThan(0.6)
    told(one, TRUTH)
    expect(one.replica.snapshot(0).calibration[0]).toBeCloseTo(1, 3)
  })

  test("is corrected by what the last steps differ from it", () => {
    const one = played()
    for (let i = 0; i < 40; i++) one.step({}, 2040)
    told(one, TRUTH)
    // Two prompt steps, 38 decodes that took twice as long.
    expect(one.replica.snapshot(0).calibration[0]).toBeCloseTo(2 - 0.95 ** 38, 3)
  })

  test("holds for the batch in the air when it lands", () => {
    const one = played()
    one.step({}, 2280)
    const batch = one.runs()
    told(one, TRUTH)
    const { calibration } = one.replica.snapshot(0)
    one.done(batch, {}, 1000 + 36 * 20)
    expect(one.replica.snapshot(0).calibration[1]).toBeCloseTo(1, 6)
    expect(calibration[1]).toBeCloseTo(1, 6)
  })

  test("changes what follows from the engine's speed, but not what was set", () => {
    const slow: CostModel = { ...COST, pieces: [{ step: 100_000 }] }
    const one = played()
    expect(one.replica.options.maxBatchUs).toBe(100_000)
    told(one, slow)
    expect(one.replica.options.maxBatchUs).toBe(500_000)
    told(one, COST)
    expect(one.replica.options.maxBatchUs).toBe(100_000)
    const set = played({ options: { maxBatchUs: 70_000 } })
    told(set, slow)
    expect(set.replica.options.maxBatchUs).toBe(70_000)
    expect(set.replica.snapshot(0).prefillUsPerToken).toBe(100_000)
  })

  test("makes a request that was thought hopeless a promise", () => {
    const slow: CostModel = { ...COST, pieces: [{ step: 2_000_000 }] }
    const slo = { ttftUs: 1_000_000, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity }
    const one = new Played({ policy: "slos-serve", cost: slow })
    const offered = {
      app: 0,
      session: -1,
      promptTokens: 100,
      maxOutputTokens: 5,
      prefix: [],
      slo,
      tier: "slo",
      thinking: false,
    } as const
    expect(one.replica.offer({ id: 9, ...offered }, 0)).toBe(false)
    told(one, COST)
    expect(one.replica.offer({ id: 9, ...offered }, 0)).toBe(true)
  })

  test("comes after the results of its moment, and before what is new", () => {
    const cost = { type: "costModel", cost: COST } as const
    expect(eventRank(cost)).toBeGreaterThan(
      eventRank({ type: "stepDone", batch: 1, durationUs: 1, results: [] }),
    )
    expect(eventRank(cost)).toBeLessThan(eventRank({ type: "cancelled", id: 1 }))
  })
})
