/** What was not set follows from the engine's speed. */
import { expect, test } from "vitest"
import { withDefaults } from "./config.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "./options.ts"
import { COST, LIMITS } from "./testing.ts"

/** With so much a step and a token, and chunks of 64 tokens at least, µs. */
function lengths(step: number, tokens: number, options: Partial<PolicyOptions> = {}) {
  const cost = { ...COST, pieces: [{ step, tokens }] }
  const { maxBatchUs, bestEffortBatchUs } = withDefaults({
    ...{ limits: LIMITS, cost, policy: "slos-serve", apps: 1, options },
  })
  return [maxBatchUs, bestEffortBatchUs]
}

test("on a fast engine batches are as long as usual", () => {
  expect(lengths(5_000, 100)).toEqual([DEFAULT_OPTIONS.maxBatchUs, DEFAULT_OPTIONS.bestEffortBatchUs])
})

test("where chunks are slow, a batch has room for two, and best effort for one", () => {
  expect(lengths(1_000, 2_000)).toEqual([258_000, 129_000])
})

test("where steps are dear, a batch is worth five of them, with speculation seven", () => {
  expect(lengths(30_000, 100)).toEqual([150_500, 36_400])
  expect(lengths(30_000, 100, { speculation: "off" })).toEqual([150_500, 36_400])
  expect(lengths(30_000, 100, { speculation: "on" })).toEqual([210_700, 36_400])
})

test("what was set stays", () => {
  const set = { maxBatchUs: 7, bestEffortBatchUs: 8 }
  expect(lengths(30_000, 100, set)).toEqual([7, 8])
})
