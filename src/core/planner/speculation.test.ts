/** The choice of speculation lengths: against brute force on batches as the cost model sees them, and in the
 * situations where everybody knows the answer. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { type CostPiece, shapeOf, stepUs } from "../cost.ts"
import {
  bestLengths,
  decodeRate,
  paceUs,
  prefillRoom,
  type SpeculationSetting,
  type SpeculationTier,
} from "./speculation.ts"

const pieceArbitrary = fc.record({
  step: fc.integer({ min: 0, max: 40_000 }),
  tokens: fc.integer({ min: 1, max: 400 }),
  specSteps: fc.constantFrom(0, 10, 500, 3500),
  sequences: fc.constantFrom(0, 0, 300),
  passes: fc.constantFrom(0, 0, 3000),
  slowPairs: fc.constantFrom(0, 0, 0.5),
  outputs: fc.constantFrom(0, 0, 100),
})
const tierArbitrary = fc.record({
  tpotUs: fc.integer({ min: 10_000, max: 200_000 }),
  acceptance: fc.double({ min: 0.05, max: 0.98, noNaN: true }),
  count: fc.integer({ min: 1, max: 40 }),
  contextTokens: fc.integer({ min: 1, max: 2000 }),
})
const settingArbitrary = fc.record({
  cost: fc.record({
    pieces: fc.array(pieceArbitrary, { minLength: 1, maxLength: 2 }),
    unifiedKv: fc.boolean(),
  }),
  scale: fc.constantFrom(1, 1.2),
  maxBatchUs: fc.constantFrom(50_000, 100_000, 1e9),
  maxBatchTokens: fc.constantFrom(64, 16_384),
  maxLength: fc.integer({ min: 1, max: 8 }),
})

/** The batch of one step of every decode of every tier. */
function itemsOf(tiers: readonly SpeculationTier[], lengths: readonly number[]) {
  return tiers.flatMap(({ count, contextTokens }, i) =>
    Array.from({ length: count }, () => ({
      position: contextTokens - 1,
      tokens: 1,
      sample: true,
      draft: lengths[i]! - 1,
    })),
  )
}

function stepOf(setting: SpeculationSetting, tiers: readonly SpeculationTier[], lengths: readonly number[]) {
  const layout = { unifiedKv: setting.cost.unifiedKv, fastPassTokens: 64 }
  const model = { ...setting.cost, residualSigma: 0, ...layout }
  return stepUs(model, shapeOf(itemsOf(tiers, lengths), layout)) * setting.scale
}

function vectors(tiers: number, most: number): number[][] {
  if (tiers === 0) return [[]]
  return vectors(tiers - 1, most).flatMap((rest) => Array.from({ length: most }, (_, i) => [...rest, i + 1]))
}

/** The room for prefill by its definition: fill a batch of the shortest pace with prompt tokens beside decodes
 * that take part in as many iterations as their own pace asks for. */
function roomByDefinition(setting: SpeculationSetting, tiers: readonly SpeculationTier[], lengths: number[]) {
  const tauUs = Math.min(setting.maxBatchUs, ...tiers.map((tier, i) => paceUs(tier, lengths[i]!)))
  const part = tiers.map((tier, i) => tier.count * Math.min(1, tauUs / paceUs(tier, lengths[i]!)))
  const sum = (of: (i: number) => number) => tiers.reduce((total, _, i) => total + part[i]! * of(i), 0)
  const verified = sum((i) => lengths[i]!)
  const passes = setting.cost.unifiedKv ? 1 : new Set(lengths).size
  const dearest = Math.max(...setting.cost.pieces.map((piece) => piece.tokens!))
  const tokens = setting.cost.pieces.map((piece) => {
    const p = piece as Required<CostPiece>
    const pairs = sum((i) => lengths[i]! * tiers[i]!.contextTokens + (lengths[i]! * (lengths[i]! - 1)) / 2)
    const fixed = p.step + p.passes * passes + p.specSteps * (Math.max(...lengths) - 1)
    const decodes = (p.tokens + p.outputs) * verified + p.sequences * sum(() => 1) + p.slowPairs * pairs
    return (tauUs / setting.scale - fixed - decodes) / p.tokens
  })
  const most = Math.min(...tokens, setting.maxBatchTokens - verified)
  return (most * dearest * setting.scale) / tauUs
}

describe("speculation lengths", () => {
  const few = fc.array(tierArbitrary, { minLength: 1, maxLength: 3 })

  test("while prompts wait: as good as the best of all vectors", () => {
    fc.assert(
      fc.property(settingArbitrary, few, (setting, tiers) => {
        const best = Math.max(
          ...vectors(tiers.length, setting.maxLength).map((v) => roomByDefinition(setting, tiers, v)),
        )
        const chosen = bestLengths(prefillRoom, setting, tiers)
        expect(roomByDefinition(setting, tiers, chosen)).toBeCloseTo(best, 6)
      }),
      { numRuns: 200 },
    )
  })

  test("with decodes alone: most tokens per time of all vectors that keep everybody's pace", () => {
    fc.assert(
      fc.property(
        settingArbitrary,
        few.filter((tiers) => tiers.reduce((n, tier) => n + tier.count, 0) <= 40),
        (setting, tiers) => {
          const expected = (tier: SpeculationTier, s: number) =>
            (1 - tier.acceptance ** s) / (1 - tier.acceptance)
          let best = 0
          for (const v of vectors(tiers.length, Math.min(4, setting.maxLength))) {
            const timeUs = stepOf(setting, tiers, v)
            const verified = tiers.reduce((n, tier, i) => n + tier.count * v[i]!, 0)
            if (verified > setting.maxBatchTokens && v.some((s) => s > 1)) continue
            if (tiers.some((tier, i) => timeUs > paceUs(tier, v[i]!))) continue
            const tokens = tiers.reduce((n, tier, i) => n + tier.count * expected(tier, v[i]!), 0)
            best = Math.max(best, tokens / timeUs)
          }
          const short = { ...setting, maxLength: Math.min(4, setting.maxLength) }
          const chosen = bestLengths(decodeRate, short, tiers)
          const rate = decodeRate(short, tiers, chosen)
          if (best > 0) expect(rate / best).toBeCloseTo(1, 9)
          else expect(rate).toBeLessThanOrEqual(0)
        },
      ),
      { numRuns: 100 },
    )
  })

  test("with many tiers: hardly worse than brute force, at a small part of its cost", () => {
    const four = fc.array(tierArbitrary, { minLength: 4, maxLength: 4 })
    const gaps: number[] = []
    fc.assert(
      fc.property(settingArbitrary, four, (setting, tiers) => {
        const limited = { ...setting, maxLength: 5 }
        const best = Math.max(...vectors(4, 5).map((v) => prefillRoom(limited, tiers, v)))
        gaps.push(best - prefillRoom(limited, tiers, bestLengths(prefillRoom, limited, tiers)))
      }),
      { numRuns: 100, seed: 5 },
    )
    // Shares of the engine's time; where passes or sequences are dear the shortest lengths need not be best.
    expect(gaps.filter((gap) => gap < 1e-9).length).toBeGreaterThanOrEqual(90)
    expect(Math.max(...gaps)).toBeLessThan(0.2)
  })
})

describe("speculation pays", () => {
  const gpu = {
    pieces: [
      { step: 24_800, tokens: 69, specSteps: 1 },
      { step: 3033, tokens: 75, specSteps: 3465 },
    ],
  }
  const setting = {
    cost: { ...gpu, unifiedKv: true },
    scale: 1.1,
    maxBatchUs: 150_000,
    maxBatchTokens: 16_384,
    maxLength: 8,
  }
  const tier = { tpotUs: 50_000, acceptance: 0.7, count: 20, contextTokens: 1000 }

  test("where a tight pace makes batches short, not where the pace is loose", () => {
    expect(bestLengths(prefillRoom, setting, [tier])[0]).toBeGreaterThan(1)
    expect(bestLengths(prefillRoom, setting, [{ ...tier, tpotUs: 400_000 }])).toEqual([1])
  })

  test("not when drafts are refused, nor when a token costs as much as a step", () => {
    expect(bestLengths(prefillRoom, setting, [{ ...tier, acceptance: 0.05 }])).toEqual([1])
    const bound = { ...setting, cost: { pieces: [{ step: 100, tokens: 1000 }], unifiedKv: true } }
    expect(bestLengths(prefillRoom, bound, [{ ...tier, count: 10 }])).toEqual([1])
    expect(bestLengths(decodeRate, bound, [{ ...tier, count: 10 }])).toEqual([1])
  })

  test("with few decodes alone, since the step costs what it costs", () => {
    expect(bestLengths(decodeRate, setting, [{ ...tier, count: 2 }])[0]).toBeGreaterThan(3)
  })
})
