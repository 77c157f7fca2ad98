/** Engines that have plans made anew for what has arrived: when it runs then, and what that costs. A step is 20 ms and 0.1 ms a token. */
import { expect, test } from "vitest"
import { LIMITS, specOf } from "../core/testing.ts"
import { type FleetOptions, simulateFleet } from "./fleet.ts"

const cost = {
  ...{ pieces: [{ step: 20_000, tokens: 100 }], residualSigma: 0.05, fastPassTokens: 64, unifiedKv: true },
}
const STEP_US = 20_100

/** One request decodes from 30 ms on; in the middle of its third decode another one comes. When that one's token is out. */
function playedSecond(depth: number, renewal?: FleetOptions["renewal"]) {
  let outUs = -1
  const requests = [
    { atUs: 0, outputTokens: 30, spec: specOf(1, { maxOutputTokens: 30 }) },
    { atUs: 75_000, outputTokens: 1, spec: specOf(2, { promptTokens: 50, maxOutputTokens: 1 }) },
  ]
  const { renewed, steps } = simulateFleet({
    replicas: [{ limits: LIMITS, cost, policy: "slos-serve", apps: 1, depth, engineOwnsKv: depth > 1 }],
    ...{ requests, seed: 1, check: true, ...(renewal && { renewal }) },
    onEffect: (effect, nowUs) => {
      if (effect.type === "token" && effect.id === 2) outUs = nowUs
    },
  })
  return { outUs, renewed, steps }
}

const [THIRD_ENDS_US, PROMPT_US] = [30_000 + 3 * STEP_US, 25_100]

test("what arrives is in the next batch, after the answer; else in the one after it", () => {
  const steps = 30
  expect(playedSecond(1)).toEqual({ outUs: THIRD_ENDS_US + PROMPT_US, renewed: 0, steps })
  expect(playedSecond(2)).toEqual({ outUs: THIRD_ENDS_US + STEP_US + PROMPT_US, renewed: 0, steps })
  const renewed = playedSecond(2, { fromUs: 0, answerUs: 700 })
  expect(renewed).toEqual({ outUs: THIRD_ENDS_US + 700 + PROMPT_US, renewed: 1, steps })
})

test("only a plan that should last so long is made anew", () => {
  expect(playedSecond(2, { fromUs: STEP_US, answerUs: 0 }).renewed).toBe(1)
  expect(playedSecond(2, { fromUs: STEP_US + 1, answerUs: 0 }).renewed).toBe(0)
})

test("with two batches scheduled the second is made anew while the first is computed: the answer costs nothing", () => {
  const outUs = THIRD_ENDS_US + STEP_US + PROMPT_US
  expect(playedSecond(3)).toMatchObject({ outUs: outUs + STEP_US, renewed: 0 })
  expect(playedSecond(3, { fromUs: 0, answerUs: 700 })).toMatchObject({ outUs, renewed: 1 })
})

test("only while asking takes little of the time", () => {
  const requests = [
    { atUs: 0, outputTokens: 40, spec: specOf(1, { maxOutputTokens: 40 }) },
    ...[75_000, 135_000, 215_000].map((atUs, i) => ({
      ...{ atUs, outputTokens: 1 },
      spec: specOf(2 + i, { promptTokens: 50, maxOutputTokens: 1 }),
    })),
  ]
  const renewedOf = (answerUs: number) =>
    simulateFleet({
      replicas: [{ limits: LIMITS, cost, policy: "slos-serve", apps: 1, depth: 2, engineOwnsKv: true }],
      ...{ requests, seed: 1, check: true },
      renewal: { fromUs: 0, answerUs },
    }).renewed
  expect(renewedOf(10_000)).toBe(3)
  // Two take what is saved up, one more than that; a step pays for next to nothing.
  expect(renewedOf(30_000)).toBe(2)
  expect(renewedOf(60_000)).toBe(1)
})
