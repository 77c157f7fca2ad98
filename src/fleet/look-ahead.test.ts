/** When an offered request begins. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../core/cost.ts"
import { specOf } from "../core/testing.ts"
import { ENGINE_RULES } from "./engine-rules.ts"
import { EngineRun } from "./engine-run.ts"
import { lookAhead } from "./look-ahead.ts"
import { Sent } from "./sent.ts"

const STEP_US = 100_000
const cost: CostModel = {
  pieces: [{ step: STEP_US, tokens: 0, sequences: 0, fastPairs: 0 }],
  ...{ residualSigma: 0, fastPassTokens: 1, unifiedKv: true },
}
const promptOf = (id: number, tokens: number, readyUs: number) =>
  new Sent(specOf(id, { promptTokens: tokens }), 0, () => 0).prompt(id, readyUs, 10)

/** Of one stream, whose step began at 0; so much is ready then, and a request of so many tokens comes. */
function ahead({ nowUs = 0, entryUs = 1000, before = 0, tokens = 10, sigma = 0 }) {
  const offered = promptOf(2, tokens, nowUs + entryUs)
  const stream = { contextTokens: 10, remaining: 1000, dueUs: Infinity, tpotUs: Infinity }
  const prompts = before > 0 ? [promptOf(1, before, 0), offered] : [offered]
  const run = new EngineRun({ rules: ENGINE_RULES.vllm, cost, prompts, streams: [stream], atUs: 0 })
  return { offered, ...lookAhead(run, offered, sigma, nowUs) }
}

describe("a request that comes within a step", () => {
  test("begins with the next one, and queues until then", () => {
    const { offered, ...start } = ahead({ nowUs: 20_000 })
    expect(start).toEqual({
      ...{ queuesUs: 79_000, startsNext: true, mayStartNext: true, nextStepUs: 80_000 },
    })
    expect(offered.firstTokenUs).toBe(2 * STEP_US)
  })

  test("begins with a later one where others have the next ones to themselves", () => {
    const { tokenBudget } = ENGINE_RULES.vllm
    expect(ahead({ before: 3 * tokenBudget })).toMatchObject({
      ...{ startsNext: false, mayStartNext: false, queuesUs: 299_000 },
    })
  })

  test("may be there for a step that should be over, though it is on its way for longer", () => {
    const late = { startsNext: false, mayStartNext: true }
    expect(ahead({ nowUs: 150_000 })).toMatchObject({ ...late, nextStepUs: 0 })
    expect(ahead({ nowUs: 99_500 })).toMatchObject({ ...late, nextStepUs: 500 })
    expect(ahead({ nowUs: 150_000, before: 3 * ENGINE_RULES.vllm.tokenBudget }).mayStartNext).toBe(false)
  })

  test("has less time until the next one, the more its steps scatter", () => {
    expect(ahead({ nowUs: 20_000, sigma: 0.1 })).toMatchObject({ queuesUs: 79_000, nextStepUs: 60_000 })
  })
})
