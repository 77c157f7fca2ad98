/** Replicas that are not told what steps take: they learn it, lose nothing, and decide the same each time. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../core/cost.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { Effect } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import { LIMITS, specOf } from "../core/testing.ts"
import { type CapturedGraphs, CPU_GUESS, GPU_GUESS, scaledGuess } from "../fit/guess.ts"
import type { StepFitOptions } from "../fit/step-fit.ts"
import { Random } from "../random.ts"
import { type FleetOptions, simulateFleet } from "./fleet.ts"

const GRAPHS: CapturedGraphs = {
  sizes: [1, 2, 4, 8, 16, 32, 64],
  ...{ decodes: "full", mixed: "piecewise", decodeTokens: 1 },
}
const TRUTH: CostModel = {
  ...{ pieces: [{ step: 8000, tokens: 60 }], residualSigma: 0.03, fastPassTokens: 16, unifiedKv: true },
  graphs: { ...GRAPHS, piecewiseUs: 1500, eagerUs: 4000 },
}
const CONFIG: ReplicaConfig = {
  limits: { ...LIMITS, kvTokens: 8192, maxSequences: 64, minChunkTokens: 1 },
  ...{ cost: TRUTH, policy: "slos-serve", apps: 1 },
}

function requests(seed: number, count: number): FleetOptions["requests"] {
  const random = new Random("learn-cost", seed)
  let atUs = 0
  return Array.from({ length: count }, (_, id) => {
    atUs += Math.round(random.exponential(60_000))
    const maxOutputTokens = random.integer(1, 60)
    const spec = specOf(id, { promptTokens: random.integer(5, 700), maxOutputTokens })
    return { atUs, outputTokens: random.integer(1, maxOutputTokens + 1), thinkingTokens: 0, spec }
  })
}

function play(seed: number, changes: Partial<FleetOptions> = {}) {
  const effects: { effect: Effect; nowUs: number }[] = []
  simulateFleet({
    ...{ replicas: [CONFIG, CONFIG], requests: requests(seed, 150), seed, noiseSigma: 0.05, check: true },
    onEffect: (effect, nowUs) => effects.push({ effect, nowUs }),
    ...changes,
  })
  const ended = effects.flatMap(({ effect }) => (effect.type === "finished" ? [effect.outcome] : []))
  return { effects, ended, kept: ended.filter(({ attained }) => attained).length }
}
/** Predicted over actual, of steps that began after `fromUs`. */
function predictions({ effects }: ReturnType<typeof play>, fromUs: number): number[] {
  const runs = effects.filter(({ effect }) => effect.type === "run")
  return runs.flatMap(({ effect, nowUs }) =>
    effect.type === "run" && nowUs >= fromUs ? [effect.batch.predictedUs] : [],
  )
}

const learning = { learnCost: { graphs: GRAPHS } }

test("every request ends, on replicas whose invariants hold", () => {
  for (const seed of [1, 2, 3]) {
    expect(play(seed, learning).ended).toHaveLength(150)
    expect(play(seed, { learnCost: {} }).ended).toHaveLength(150)
    expect(
      play(seed, { ...learning, faults: [{ kind: "lostReplica", replica: 0, atUs: 3_000_000 }] }).ended,
    ).toHaveLength(150)
  }
})

test("the same seed gives the same decisions", () => {
  expect(play(4, learning).effects).toEqual(play(4, learning).effects)
})

test("steps are predicted badly at first, and well soon", () => {
  const told = play(5)
  const learnt = play(5, learning)
  expect(predictions(learnt, 0)[0]!).toBeGreaterThan(2 * predictions(told, 0)[0]!)
  const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length
  const late = mean(predictions(learnt, 2_000_000)) / mean(predictions(told, 2_000_000))
  expect(late).toBeGreaterThan(0.8)
  expect(late).toBeLessThan(1.25)
  expect(learnt.kept).toBeGreaterThan(0.9 * told.kept)
})

describe("an engine of which nothing is known", () => {
  /** Bursts of prompts with some 120 ms to wait, 40 on an engine that has computed nothing before: FCFS keeps them all. */
  const easy = (seed: number): FleetOptions["requests"] => {
    const random = new Random("cold", seed)
    let atUs = 0
    return Array.from({ length: 40 }, (_, id) => {
      if (id % 3 === 0) atUs += 300_000 + Math.round(random.exponential(100_000))
      const slo = { ...specOf(0).slo, ttftUs: 120_000, tpotUs: 60_000 }
      const spec = specOf(id, { promptTokens: random.integer(20, 400), maxOutputTokens: 20, slo })
      return { atUs, outputTokens: 20, thinkingTokens: 0, spec }
    })
  }
  const kept = (seed: number, policy: PolicyName, changes: Partial<FleetOptions>) =>
    play(seed, { replicas: [{ ...CONFIG, policy }], requests: easy(seed), ...changes }).kept

  test.each([10, 3, 1, 1 / 3])("keeps what FCFS keeps, by a guess %f times as slow as usual", (factor) => {
    for (const seed of [1, 2, 3, 4]) {
      expect(kept(seed, "vllm", {})).toBe(40)
      const learnCost = { graphs: GRAPHS, guess: scaledGuess(GPU_GUESS, factor) }
      expect(kept(seed, "slos-serve", { learnCost })).toBe(40)
    }
  })

  /** A tiny model on one core, whose steps a processor's guess takes for a dozen times as long: bursts of chats, code and long prompts,
   * objectives as they are measured against vLLM's own schedulers (bench/vllm/attain.ts). */
  const onACore: CostModel = {
    pieces: [{ step: 12_400, tokens: 225, sequences: 380, fastPairs: 0.02, slowPairs: 0.05 }],
    ...{ residualSigma: 0.05, fastPassTokens: 16, unifiedKv: true },
  }
  const KINDS = [
    { promptTokens: 64, maxOutputTokens: 32, ttftMs: 200, tpotMs: 68 },
    { promptTokens: 256, maxOutputTokens: 16, ttftMs: 380, tpotMs: 100 },
    { promptTokens: 512, maxOutputTokens: 32, ttftMs: 780, tpotMs: 85 },
  ]
  const bursts = (seed: number): FleetOptions["requests"] => {
    const random = new Random("bursts", seed)
    let atUs = 0
    return Array.from({ length: 60 }, (_, id) => {
      atUs += Math.round((random.gamma(0.35) / 0.35) * 190_000)
      const drawn = random.uniform()
      const app = drawn < 0.4 ? 0 : drawn < 0.8 ? 1 : 2
      const { ttftMs, tpotMs, ...tokens } = KINDS[app]!
      const slo = { ...specOf(0).slo, ttftUs: ttftMs * 1000, tpotUs: tpotMs * 1000 }
      return { atUs, outputTokens: tokens.maxOutputTokens, spec: specOf(id, { ...tokens, app, slo }) }
    })
  }
  /** Of the requests whose prompts are longest, and of all, over some windows. */
  function keptOf(policy: PolicyName, depth: number, learnCost?: StepFitOptions) {
    const limits = { ...LIMITS, kvTokens: 32_768, maxSequences: 32, maxBatchTokens: 2048, minChunkTokens: 1 }
    const config = { limits, cost: onACore, policy, apps: 3, depth }
    const kept = { long: 0, ofLong: 0, all: 0 }
    for (let seed = 1; seed <= 8; seed++) {
      const changes = { replicas: [config], requests: bursts(seed), noiseSigma: 0.1, check: false }
      for (const { app, attained } of play(seed, { ...changes, ...(learnCost && { learnCost }) }).ended) {
        if (app === 2) kept.ofLong++
        if (app === 2 && attained) kept.long++
        if (attained) kept.all++
      }
    }
    return kept
  }

  test.each([1, 2])("keeps what it keeps when told, the long prompts too, %i in flight", (depth) => {
    const told = keptOf("slos-serve", depth)
    const learns = keptOf("slos-serve", depth, { guess: CPU_GUESS })
    expect(told.ofLong).toBeGreaterThan(60)
    // A hundredth of 480: the first few, while the guess still counts.
    expect(learns.all).toBeGreaterThanOrEqual(told.all - 5)
    expect(learns.long).toBeGreaterThanOrEqual(told.long - 2)
  })
})
