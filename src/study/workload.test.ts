/** What the scheduler is told of a planned request's KV: blocks that others have, and none where nothing comes back. */
import { expect, test } from "vitest"
import { readClasses } from "../load/classes.ts"
import { HARDWARE } from "../sim/presets.ts"
import { runScenario } from "./run.ts"
import { RUN_DEFAULTS, type RunSpec } from "./spec.ts"
import { Workload } from "./workload.ts"

const HARD = HARDWARE["opt-6.7b-a100"]!
const spec = (scenario: string): RunSpec => ({
  ...RUN_DEFAULTS,
  scenario,
  policy: "slos-serve",
  hardware: HARD,
  ratePerSec: 2,
  durationS: 60,
  classes: readClasses(undefined),
  maxSequenceTokens: HARD.contextTokens - 1,
})

test.each(["mixed", "reasoning"])(
  "%s: nothing is shared or comes back, so no block has a hash",
  (scenario) => {
    for (const request of new Workload(spec(scenario)).first) expect(request.spec.prefix).toEqual([])
  },
)

test.each(["all", "tools", "shared"])(
  "%s: all full blocks have hashes, those of single requests too",
  (scenario) => {
    // KV of single requests is kept like any other, and pushes that of sessions out.
    for (const { spec: request } of new Workload(spec(scenario)).first)
      expect(request.prefix).toHaveLength(Math.floor(request.promptTokens / HARD.blockTokens))
  },
)

test("chats behind shared system prompts find most of their prompts computed", () => {
  const shared = spec("shared")
  const { batchTokens, attainment } = runScenario(shared)
  const workload = new Workload(shared)
  const prompts = workload.plan.requests.reduce((total, { rounds }) => {
    let history = 0
    for (const { promptTokens, outputTokens } of rounds) {
      total += history + promptTokens
      history += promptTokens + outputTokens
    }
    return total
  }, 0)
  const jobs = workload.jobs()
  const outputs = jobs.reduce((sum, { output }) => sum + output, 0)
  expect(attainment.attained).toBeGreaterThan(0.9 * attainment.total)
  expect(batchTokens - outputs).toBeLessThan(0.4 * prompts)
  // The fluid bound asks for no more than what was computed: else it would be none.
  const asked = jobs.reduce((sum, { prefill }) => sum + prefill, 0)
  expect(asked).toBeLessThan(batchTokens - outputs)
  expect(asked).toBeGreaterThan(0)
})
