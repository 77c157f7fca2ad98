/** The cost model and its calibration. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { Random } from "../random.ts"
import { attentionPairs, pieceUs, ranShape, shapeOf, stepUs } from "./cost.ts"
import { Calibration } from "./learn/calibration.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import { prefillUs } from "./planner/prefill-time.ts"
import { COST, contextOf, LIMITS, liveOf } from "./testing.ts"

const item = (position: number, tokens: number, sample = false) => ({ position, tokens, sample, draft: 0 })

describe("the cost model", () => {
  test("counts attention pairs as a loop would", () => {
    let pairs = 0
    for (let i = 0; i < 37; i++) pairs += 100 + i + 1
    expect(attentionPairs(100, 37)).toBe(pairs)
  })

  test("splits a non-unified batch into passes of equal tokens", () => {
    const split = { fastPassTokens: 64, unifiedKv: false }
    const shape = shapeOf([item(10, 1, true), item(20, 1, true), item(0, 65), item(0, 200, true)], split)
    expect(shape).toMatchObject({ tokens: 267, sequences: 4, passes: 3, outputs: 3 })
    // One token of each chunk goes with the decodes; the rest is fast.
    expect(shape.slowPairs).toBe(11 + 21 + 1 + 1)
    expect(shape.fastPairs).toBe(attentionPairs(1, 64) * 2 + attentionPairs(65, 135))
    expect(shapeOf([item(10, 1, true), item(0, 65)], { fastPassTokens: 64, unifiedKv: true }).passes).toBe(1)
  })

  test("drafted tokens are tokens and outputs, and the longest draft is drafted step by step", () => {
    const items = [
      { ...item(10, 1, true), draft: 3 },
      { ...item(20, 1, true), draft: 1 },
    ]
    const one = shapeOf(items, { fastPassTokens: 4, unifiedKv: true })
    expect(one).toEqual({
      ...{ tokens: 6, sequences: 2, passes: 1, outputs: 6, specSteps: 3 },
      // Four tokens are as long as fast attention asks for.
      ...{ fastPairs: attentionPairs(10, 4), slowPairs: attentionPairs(20, 2) },
    })
    const split = shapeOf(items, { fastPassTokens: 2, unifiedKv: false })
    expect(split).toMatchObject({ passes: 2, specSteps: 3, slowPairs: 0 })
    expect(split.fastPairs).toBe(attentionPairs(10, 4) + attentionPairs(20, 2))
  })

  test("where all rows of a prompt are read, each of its tokens is an output", () => {
    const layout = { fastPassTokens: 64, unifiedKv: true }
    const piece = { ...item(0, 100), rows: 100 }
    const end = { ...item(100, 30, true), rows: 30 }
    expect(shapeOf([piece, item(10, 1, true)], layout)).toMatchObject({ tokens: 101, outputs: 101 })
    expect(shapeOf([end, item(0, 40, true)], layout)).toMatchObject({ tokens: 70, outputs: 31 })
    const cost = { ...COST, pieces: [{ step: 1000, tokens: 10, outputs: 100 }] }
    expect(prefillUs(cost, 0, 100, 512)).toBe(1000 + 1000 + 100)
    expect(prefillUs(cost, 0, 100, 512, true)).toBe(1000 + 1000 + 10_000)
    // In two steps: one row of the last, or all of both.
    expect(prefillUs(cost, 0, 600, 512)).toBe(2000 + 6000 + 100)
    expect(prefillUs(cost, 0, 600, 512, true)).toBe(2000 + 6000 + 60_000)
  })

  test("a piece is the sum of what it costs by each feature; those that it has not cost nothing", () => {
    const shape = {
      ...{ tokens: 2, sequences: 3, passes: 5, fastPairs: 7, slowPairs: 11, outputs: 13, specSteps: 17 },
    }
    const names = Object.keys(shape) as (keyof typeof shape)[]
    for (const name of names) expect(pieceUs({ [name]: 10 }, shape)).toBe(10 * shape[name])
    const all = Object.fromEntries(names.map((name) => [name, 1]))
    expect(pieceUs({ step: 1, ...all }, shape)).toBe(1 + 2 + 3 + 5 + 7 + 11 + 13 + 17)
  })

  test("a step in which drafters had less of an idea is timed as it ran", () => {
    const model = { ...COST, pieces: [{ tokens: 100, specSteps: 1000 }] }
    const items = [1, 2].map((id) => ({ ...item(10, 1, true), id, draft: 4 }))
    const batch = { ...{ seq: 1, items, evict: [], release: [], trim: [] }, predictedUs: 0 } as never
    const result = (id: number, drafted?: number) => ({
      id,
      tokens: 1,
      ...(drafted !== undefined && { drafted }),
    })
    const took = (...results: object[]) => {
      const shape = ranShape(model, batch, results as never)
      return shape && stepUs(model, shape)
    }
    expect(took(result(1), result(2))).toBeNull()
    expect(took(result(1, 1), result(2, 2))).toBe(500 + 2000)
    expect(took(result(1, 0), result(2, 0))).toBe(200)
    // One says nothing: it drafted what it was asked for.
    expect(took(result(1), result(2, 0))).toBe(600 + 4000)
  })

  test("takes the largest piece", () => {
    const model = { ...COST, pieces: [{ tokens: 100 }, { step: 2000 }] }
    expect(stepUs(model, shapeOf([item(0, 5)], model))).toBe(2000)
    expect(stepUs(model, shapeOf([item(0, 50)], model))).toBe(5000)
    expect(stepUs(model, shapeOf([], model))).toBe(0)
  })

  test("a long prompt's zero-load time is that of its chunks", () => {
    const chunks = [item(0, 512), item(512, 188, true)].map((chunk) => stepUs(COST, shapeOf([chunk], COST)))
    expect(prefillUs(COST, 0, 700, 512)).toBe(chunks[0]! + chunks[1]!)
  })

  test("a draft's running sums agree with the definition", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 120 }), { minLength: 1, maxLength: 8 })
    fc.assert(
      fc.property(sizes, fc.boolean(), fc.integer({ min: 1, max: 100 }), (lengths, unifiedKv, extra) => {
        const model = {
          ...COST,
          unifiedKv,
          pieces: [
            { step: 7, tokens: 3, sequences: 11, passes: 500, fastPairs: 0.1, slowPairs: 0.7, outputs: 5 },
          ],
        }
        const limits = {
          ...LIMITS,
          unifiedKv,
          kvTokens: 16_384,
          maxSequences: 16,
          maxBatchTokens: 2048,
          minChunkTokens: 1,
        }
        const batch = new BatchBuilder(contextOf(limits, { cost: model }))
        lengths.forEach((tokens, id) => {
          expect(batch.prefill(liveOf(id, { promptTokens: 121 }), tokens)).toBe(tokens)
        })
        expect(batch.timeUs()).toBeCloseTo(stepUs(model, shapeOf(batch.items, model)))
        const next = { position: 40, tokens: extra, sample: true, draft: 0 }
        expect(batch.timeUs(40, extra, 1)).toBeCloseTo(stepUs(model, shapeOf([...batch.items, next], model)))
      }),
    )
  })
})

describe("calibration", () => {
  test("follows a drift, apart for the kinds of steps, and is not moved by one stall", () => {
    const calibration = new Calibration()
    for (let i = 0; i < 200; i++) calibration.observe("mixed", 1000, 1300)
    expect(calibration.ratio("mixed")).toBeCloseTo(1.3, 2)
    expect(calibration.ratio("decode")).toBe(1)
    calibration.observe("mixed", 1000, 1e9)
    expect(calibration.ratio("mixed")).toBeLessThan(1.5)
  })

  test("takes drafted steps for plain ones until some were seen", () => {
    const calibration = new Calibration()
    for (let i = 0; i < 200; i++) calibration.observe("decode", 1000, 2000)
    expect(calibration.ratio("drafted")).toBeCloseTo(2, 2)
    for (let i = 0; i < 200; i++) calibration.observe("drafted", 1000, 3000)
    expect(calibration.ratio("drafted")).toBeCloseTo(3, 2)
    // What one bad while taught fades: else drafting would never be tried again.
    for (let i = 0; i < 10_000; i++) calibration.observe("decode", 1000, 2000)
    expect(calibration.ratio("drafted")).toBeLessThan(2.02)
  })

  test("learns the margin of each kind of step from how far steps scatter", () => {
    const random = new Random(1)
    const learnt = (sigma: number, prior: number) => {
      const calibration = new Calibration(prior)
      for (let i = 0; i < 2000; i++) calibration.observe("mixed", 1000, 1000 * random.lognormal(1, sigma))
      return calibration
    }
    expect(new Calibration(0.05).margin("mixed")).toBeCloseTo(0.15, 2)
    expect(learnt(0.02, 0.1).margin("mixed")).toBeCloseTo(0.06, 1)
    expect(learnt(0.02, 0.1).margin("decode")).toBeCloseTo(0.3, 1)
    expect(learnt(0.08, 0.02).margin("mixed")).toBeGreaterThan(0.2)
    expect(learnt(0, 0.1).margin("mixed")).toBeLessThan(0.06)
    expect(learnt(0.5, 0.1).margin("mixed")).toBe(0.3)
  })
})
