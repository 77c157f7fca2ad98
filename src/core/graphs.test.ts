/** CUDA graphs: what is padded, what a step takes for it, and what the planner makes of the room. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "./cost.ts"
import { type CudaGraphs, graphMode, launchUs, nextSize, paddingTokens, sizeWithin } from "./graphs.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import type { PlanningContext } from "./planner/context.ts"
import { paperCost } from "./planner/dp/cost.ts"
import { Demand } from "./planner/feasible.ts"
import { prefillUs, tokensWithin } from "./planner/prefill-time.ts"
import { bestLengths, usefulRate } from "./planner/speculation/useful-rate.ts"
import type { LiveRequest } from "./request.ts"
import { COST, contextOf, LIMITS, liveOf, runs } from "./testing.ts"

const GRAPHS: CudaGraphs = {
  ...{ sizes: [1, 2, 4, 8, 16, 32], decodes: "full", mixed: "piecewise", decodeTokens: 1 },
  ...{ piecewiseUs: 1000, eagerUs: 4000 },
}
const GRAPHED: CostModel = { ...COST, pieces: [{ step: 5000, tokens: 100, sequences: 10 }], graphs: GRAPHS }

const decode = { position: 50, tokens: 1, sample: true, draft: 0 }
const decodes = (count: number) => Array.from({ length: count }, () => decode)
const chunk = (tokens: number) => ({ position: 0, tokens, sample: false, draft: 0 })
const took = (items: (typeof decode)[], model = GRAPHED) => stepUs(model, shapeOf(items, model))

describe("a step", () => {
  test("of decodes takes as long as one of the next size", () => {
    expect(took(decodes(4))).toBe(5000 + 4 * 100 + 4 * 10)
    expect(took(decodes(5))).toBe(5000 + 8 * 100 + 5 * 10)
    expect(took(decodes(8))).toBe(5000 + 8 * 100 + 8 * 10)
    expect(took(decodes(32))).toBe(5000 + 32 * 100 + 32 * 10)
  })

  test("that is larger than all graphs runs eagerly, unpadded", () => {
    expect(took(decodes(33))).toBe(5000 + 33 * 100 + 33 * 10 + 4000)
    expect(took([chunk(500)])).toBe(5000 + 500 * 100 + 10 + 4000)
  })

  test("with a prompt is padded likewise, in pieces", () => {
    expect(took([...decodes(3), chunk(6)])).toBe(5000 + 16 * 100 + 4 * 10 + 1000)
  })

  test("with a prompt is as it is where graphs are for decodes alone", () => {
    const model: CostModel = { ...GRAPHED, graphs: { ...GRAPHS, mixed: "eager" } }
    expect(took([...decodes(3), chunk(6)], model)).toBe(5000 + 9 * 100 + 4 * 10 + 4000)
    expect(took(decodes(9), model)).toBe(5000 + 16 * 100 + 9 * 10)
  })

  test("with drafts is one of decodes where all verify what the engine's own do", () => {
    const graphs = { ...GRAPHS, decodeTokens: 3 }
    const model: CostModel = { ...GRAPHED, graphs }
    const drafted = (draft: number) => ({ ...decode, draft })
    expect(took([drafted(2), drafted(2)], model)).toBe(5000 + 8 * 100 + 2 * 10)
    expect(took([drafted(2), drafted(1)], model)).toBe(5000 + 8 * 100 + 2 * 10 + 1000)
  })

  test("the largest piece counts, padded", () => {
    const model: CostModel = { ...GRAPHED, pieces: [{ step: 6000 }, { step: 5000, tokens: 100 }] }
    expect(took(decodes(9), model)).toBe(6600)
    expect(took(decodes(8), model)).toBe(6000)
  })
})

test("sizes round up and down to themselves and their neighbours", () => {
  expect([0, 1, 3, 16, 17, 32, 33, 400].map((n) => nextSize(GRAPHS, n))).toEqual([
    1, 1, 4, 16, 32, 32, 33, 400,
  ])
  expect([0, 1, 3, 16, 17, 31, 32, 33].map((n) => sizeWithin(GRAPHS, n))).toEqual([
    0, 1, 2, 16, 16, 16, 32, 33,
  ])
  expect(graphMode(GRAPHS, 33, true)).toBe("eager")
  expect([launchUs(GRAPHS, 8, true), launchUs(GRAPHS, 8, false), launchUs(GRAPHS, 33, true)]).toEqual([
    0, 1000, 4000,
  ])
  expect([paddingTokens(GRAPHS, 5, true), paddingTokens(GRAPHS, 33, true)]).toEqual([3, 0])
})

test("no batch is faster for a token more, none slower for one that takes a padding's place", () => {
  const sizes = fc
    .uniqueArray(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 8 })
    .map((all) => all.sort((a, b) => a - b))
  fc.assert(
    fc.property(
      sizes,
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 2, max: 400 }),
      (all, count, tokens) => {
        const model: CostModel = {
          ...GRAPHED,
          pieces: [{ step: 50, tokens: 7 }],
          graphs: { ...GRAPHS, sizes: all },
        }
        const [less, more] = [tokens, tokens + 1].map((n) => took([...decodes(count), chunk(n)], model))
        expect(more).toBeGreaterThanOrEqual(less!)
        if (nextSize(model.graphs!, count + tokens) > count + tokens) expect(more).toBe(less)
      },
    ),
    { numRuns: runs(200) },
  )
})

function decoding(context: PlanningContext, id: number): LiveRequest {
  context.kv.attach(id, [], -1, null)
  context.kv.grow(id, 20)
  context.kv.computed(id, 20)
  return Object.assign(liveOf(id, { promptTokens: 20 }), { computed: 20, startedUs: 0, output: 1 })
}

function batchOf(count: number, cost = GRAPHED): BatchBuilder {
  const limits = { ...LIMITS, minChunkTokens: 1, maxSequences: 64 }
  const context = contextOf(limits, { cost, margin: 0 })
  const batch = new BatchBuilder(context)
  batch.reset()
  for (let id = 0; id < count; id++) expect(batch.decode(decoding(context, id))).toBe(true)
  return batch
}

describe("the planner", () => {
  test("fills a batch up to the next size, where it costs nothing", () => {
    // A chunk beside 5 decodes makes a batch in pieces.
    const sequencesUs = 6 * 10
    expect(batchOf(5).prefillWithin(liveOf(99), 6000 + 16 * 100 + sequencesUs)).toBe(11)
    expect(batchOf(5).prefillWithin(liveOf(99), 6000 + 16 * 100 + sequencesUs - 1)).toBe(3)
    // Without graphs as many tokens as there is time for.
    const plain = { ...GRAPHED, graphs: undefined } as unknown as CostModel
    expect(batchOf(5, plain).prefillWithin(liveOf(99), 5000 + 14 * 100 + sequencesUs)).toBe(9)
  })

  test("takes what is free into a batch that is too long as it is", () => {
    const free: CostModel = {
      ...GRAPHED,
      pieces: [{ step: 5000, tokens: 100 }],
      graphs: { ...GRAPHS, mixed: "full" },
    }
    const batch = batchOf(5, free)
    expect(batch.isFull(1)).toBe(false)
    expect(batch.prefillWithin(liveOf(99), 1)).toBe(3)
    expect(batch.prefillWithin(liveOf(98), 1)).toBe(0)
    expect(batchOf(8, free).isFull(1)).toBe(true)
    expect(batchOf(5, { ...free, graphs: undefined } as unknown as CostModel).isFull(1)).toBe(true)
  })

  test("most tokens within a time are whole graphs", () => {
    // 8 tokens run in pieces, 6,800 µs; a 9th makes 16.
    expect(prefillUs(GRAPHED, 0, 9, 512)).toBe(6000 + 1600 + 10)
    expect(tokensWithin(GRAPHED, 6000 + 800 + 10, 512)).toBe(8)
    expect(tokensWithin(GRAPHED, 6000 + 1600 + 9, 512)).toBe(8)
    expect(tokensWithin(GRAPHED, 6000 + 1600 + 10, 512)).toBe(16)
  })

  test("the paper's program plans whole graphs", () => {
    const { time } = paperCost(GRAPHED, 1, 0, 512)
    expect(time.of(9, 1)).toBe(6000 + 1600 + 10)
    expect(time.tokensWithin(6000 + 1599 + 10, 1)).toBe(8)
    expect(time.tokensWithin(6000 + 1600 + 10, 1)).toBe(16)
  })
})

describe("the fluid test", () => {
  const HORIZON_US = 1_000_000
  /** `count` decodes, a step each 20 ms, and a prompt; the largest calibration that fits, by bisection. */
  function most(cost: CostModel, count: number, promptTokens: number): number {
    const limits = { ...LIMITS, minChunkTokens: 1, maxSequences: 64, maxBatchTokens: 16_384 }
    let [low, high] = [0, 1000]
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2
      const demand = new Demand(cost, limits)
      demand.reset(0, 100_000, middle, 0)
      for (let id = 0; id < count; id++)
        demand.addRunning({
          ...{ startUs: 0, tpotUs: 20_000, remaining: 1000, contextTokens: 0, length: 1, expected: 1 },
        })
      if (promptTokens > 0) demand.addPrefill(0, promptTokens, 1)
      if (demand.fits(HORIZON_US)) low = middle
      else high = middle
    }
    return low
  }
  const cost: CostModel = {
    ...COST,
    pieces: [{ step: 1000, tokens: 100 }],
    graphs: { ...GRAPHS, piecewiseUs: 0 },
  }
  const { graphs: _, ...plain } = cost

  test("counts the padding of decodes", () => {
    expect(most(cost, 17, 0) / most(cost, 32, 0)).toBeCloseTo(1, 2)
    expect(most(plain, 17, 0) / most(plain, 32, 0)).toBeGreaterThan(1.3)
  })

  test("takes prompts in its place for nothing", () => {
    // 50 steps with 15 tokens of padding each.
    expect(most(cost, 17, 700)).toBeCloseTo(most(cost, 17, 0), 6)
    expect(most(cost, 17, 1500)).toBeLessThan(0.9 * most(cost, 17, 0))
    expect(most(plain, 17, 700)).toBeLessThan(0.8 * most(plain, 17, 0))
  })

  test("counts the launches of mixed steps, and of eager ones", () => {
    const dear: CostModel = { ...cost, graphs: { ...GRAPHS, piecewiseUs: 2000 } }
    expect(most(dear, 17, 0)).toBeCloseTo(most(cost, 17, 0), 6)
    expect(most(dear, 17, 700)).toBeLessThan(0.75 * most(cost, 17, 700))
    const eager: CostModel = { ...cost, graphs: { ...GRAPHS, sizes: [1, 2, 4], eagerUs: 2000 } }
    expect(most(eager, 5, 0)).toBeLessThan(
      0.6 * most({ ...eager, graphs: { ...eager.graphs!, eagerUs: 0 } }, 5, 0),
    )
  })
})

describe("speculation", () => {
  const tier = { tpotUs: 1e6, acceptance: 0.7, hitRate: 1, count: 6, contextTokens: 0 }
  const setting = {
    ...{ scale: 1, maxBatchUs: 1e6, maxBatchTokens: 512, waitingTokens: 0, maxLength: 5 },
    cost: { unifiedKv: true, pieces: [{ step: 1000, tokens: 400 }] },
  }
  const graphed = (changes: Partial<CudaGraphs>) => ({
    ...setting,
    cost: { ...setting.cost, graphs: { ...GRAPHS, sizes: [6, 32], mixed: "full" as const, ...changes } },
  })

  test("verifies for nothing what fills a graph", () => {
    expect(bestLengths(setting, [tier])).toEqual([1])
    const lengths = bestLengths(graphed({ sizes: [8, 24] }), [tier])
    // 6, 12, 18 and 24 tokens: the last three take the same.
    expect([1, 4]).toContain(lengths[0])
    const rate = (length: number) => usefulRate(graphed({ sizes: [8, 24] }), [tier], [length])
    expect(rate(4)).toBeGreaterThan(rate(3))
    expect(rate(3)).toBeGreaterThan(rate(2))
  })

  test("counts that other lengths than the engine's own leave the graph of decodes", () => {
    const rate = (length: number, changes: Partial<CudaGraphs>) =>
      usefulRate(graphed(changes), [tier], [length])
    const inPieces = { sizes: [6, 12, 18], mixed: "piecewise" as const, piecewiseUs: 5000 }
    expect(rate(2, { ...inPieces, decodeTokens: 2 })).toBeCloseTo(rate(2, { ...inPieces, mixed: "full" }), 9)
    expect(rate(1, { ...inPieces, decodeTokens: 2 })).toBeLessThan(
      0.6 * rate(1, { ...inPieces, mixed: "full" }),
    )
  })
})
