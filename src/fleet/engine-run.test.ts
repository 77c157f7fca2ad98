/** The compact run against the core's own policies, step by step of the same requests. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { CostModel } from "../core/cost.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { runs, specOf } from "../core/testing.ts"
import { simulateFleet } from "../sim/fleet.ts"
import type { SimRequest } from "../sim/world.ts"
import type { EngineRules } from "./engine-rules.ts"
import { EngineRun, type Prompt } from "./engine-run.ts"

const COST: CostModel = {
  pieces: [{ step: 5000, tokens: 100, sequences: 20, fastPairs: 1 }],
  residualSigma: 0.05,
  fastPassTokens: 1,
  unifiedKv: true,
}
const LIMITS: EngineLimits = {
  ...{ kvTokens: 1_000_000, blockTokens: 16, maxSequences: 4, maxBatchTokens: 100_000 },
  ...{ contextTokens: 10_000, minChunkTokens: 1, unifiedKv: true },
}

interface Case {
  atUs: number
  promptTokens: number
  outputTokens: number
  ttftUs: number
}

/** Each request's first token by the core's policy, µs. */
function simulated(cases: readonly Case[], policy: PolicyName, tokenBudget: number): number[] {
  const requests = cases.map(({ atUs, promptTokens, outputTokens, ttftUs }, id): SimRequest => {
    const slo = { ...specOf(id).slo, ttftUs, tpotUs: Infinity }
    return { atUs, outputTokens, spec: specOf(id, { promptTokens, maxOutputTokens: outputTokens, slo }) }
  })
  const first = cases.map(() => Infinity)
  simulateFleet({
    ...{ seed: 1, requests },
    replicas: [{ limits: LIMITS, cost: COST, policy, apps: 1, options: { tokenBudget } }],
    onEffect(effect, nowUs) {
      if (effect.type === "token" && first[effect.id] === Infinity) first[effect.id] = nowUs
    },
  })
  return first
}

function run(cases: readonly Case[], rules: Partial<EngineRules>): Prompt[] {
  const prompts = cases.map(({ atUs, promptTokens, outputTokens, ttftUs }, id): Prompt => {
    return {
      ...{ id, readyUs: atUs, deadlineUs: atUs + ttftUs, tokens: promptTokens, computed: 0, outputTokens },
      ...{ tpotUs: Infinity, started: false, startsUs: Infinity, firstTokenUs: Infinity },
    }
  })
  const all: EngineRules = {
    ...{ mixed: true, order: "arrival", tokenBudget: 512, maxSequences: LIMITS.maxSequences, kvTokens: 1e6 },
    ...rules,
  }
  const engine = new EngineRun({ rules: all, cost: COST, prompts: [...prompts], streams: [], atUs: 0 })
  for (let steps = 0; steps < 100_000 && engine.step() >= 0; steps++);
  return prompts
}

const request = fc.record({
  atUs: fc.integer({ min: 0, max: 400_000 }),
  promptTokens: fc.integer({ min: 1, max: 900 }),
  outputTokens: fc.integer({ min: 1, max: 30 }),
  ttftUs: fc.integer({ min: 10_000, max: 2_000_000 }),
})

test.each([
  ["vllm", { mixed: true, order: "arrival" }],
  ["vllm-priority", { mixed: true, order: "deadline" }],
  ["vllm-prefill-first", { mixed: false, order: "arrival" }],
] as const)("first tokens come when the core's %s says", (policy, rules) => {
  fc.assert(
    fc.property(
      fc.uniqueArray(request, { minLength: 1, maxLength: 12, selector: (r) => r.atUs }),
      fc.integer({ min: 64, max: 600 }),
      (cases, tokenBudget) => {
        cases.sort((a, b) => a.atUs - b.atUs)
        const expected = simulated(cases, policy, tokenBudget)
        const prompts = run(cases, { ...rules, tokenBudget })

        for (const [i, prompt] of prompts.entries())
          expect(prompt.firstTokenUs, `request ${i}`).toBe(expected[i])
      },
    ),
    { numRuns: runs(150) },
  )
})

test("a prompt that the KV has no room for waits, and the ones behind it too", () => {
  const cases = [400, 700, 50].map((promptTokens, i) => ({
    ...{ atUs: i, promptTokens, outputTokens: 20, ttftUs: 1e6 },
  }))
  const [first, second, third] = run(cases, { kvTokens: 900 }) as [Prompt, Prompt, Prompt]
  // The first is over after its prompt's step and 19 more.
  expect(second.startsUs).toBeGreaterThan(first.firstTokenUs + 19 * 5000)
  expect(third.startsUs).toBeGreaterThanOrEqual(second.startsUs)
})

test("a pace that a long prompt's step breaks is told, the watched one by itself", () => {
  const stream = { contextTokens: 100, remaining: Infinity, dueUs: 20_000, tpotUs: 20_000 }
  const rules: EngineRules = {
    ...{ mixed: true, order: "arrival", tokenBudget: 1000, maxSequences: 8, kvTokens: Infinity },
  }
  const late = (tokens: number, tpotUs: number) => {
    const prompt: Prompt = {
      ...{ id: 1, readyUs: 0, deadlineUs: 0, tokens, computed: 0, outputTokens: 20, tpotUs },
      ...{ started: false, startsUs: Infinity, firstTokenUs: Infinity },
    }
    const engine = new EngineRun({
      rules,
      cost: { ...COST, pieces: [{ step: 5000, tokens: 100 }] },
      prompts: [prompt],
      streams: [stream],
      atUs: 0,
      watched: 1,
    })
    for (let steps = 0; steps < 10; steps++) engine.step()
    return [...engine.latePaces]
  }
  expect(late(100, 20_000)).toEqual([])
  expect(late(900, 20_000)).toEqual([20_000])
  expect(late(100, 3_000)).toEqual(["watched"])
})

describe("the most KV that is held", () => {
  const rules: EngineRules = {
    ...{ mixed: true, order: "arrival", tokenBudget: 1000, maxSequences: 64, kvTokens: Infinity },
  }
  const forever = { dueUs: Infinity, tpotUs: Infinity }
  const engineOf = (prompts: Prompt[], streams: { contextTokens: number; remaining: number }[]) =>
    new EngineRun({
      ...{ rules, cost: COST, prompts, atUs: 0 },
      streams: streams.map((stream) => ({ ...stream, ...forever })),
    })
  const promptOf = (id: number, tokens: number, outputTokens: number): Prompt => ({
    ...{ id, readyUs: 0, deadlineUs: Infinity, tpotUs: Infinity, tokens, computed: 0, outputTokens },
    ...{ started: false, startsUs: Infinity, firstTokenUs: Infinity },
  })

  test("grows by a token a stream and step, and shrinks when one ends", () => {
    const streams = [
      { contextTokens: 100, remaining: 10 },
      { contextTokens: 200, remaining: 5 },
    ]
    // All 350 at first, three grow until the prompt's end after 4 steps, two until step 5, one until step 10.
    expect(engineOf([promptOf(1, 50, 4)], streams).peakKvTokens()).toBe(350 + 3 * 4)
    expect(engineOf([], streams).peakKvTokens()).toBe(310)
    expect(engineOf([], []).peakKvTokens()).toBe(0)
  })

  test("is what runs to the end come to hold", () => {
    const stream = fc.record({
      contextTokens: fc.integer({ min: 1, max: 500 }),
      remaining: fc.integer({ min: 1, max: 60 }),
    })
    fc.assert(
      fc.property(fc.array(stream, { minLength: 1, maxLength: 8 }), (streams) => {
        const forecast = engineOf([], streams).peakKvTokens()
        const held = (step: number) =>
          streams.reduce(
            (sum, { contextTokens, remaining }) => sum + (step <= remaining ? contextTokens + step : 0),
            0,
          )
        const steps = Array.from({ length: 61 }, (_, step) => held(step))
        expect(forecast).toBe(Math.max(...steps))
        const engine = engineOf([], streams)
        while (engine.step() >= 0);
        expect(engine.peakKvTokens()).toBe(Math.max(...steps))
      }),
      { numRuns: runs(100) },
    )
  })
})
