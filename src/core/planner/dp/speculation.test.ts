/** What speculation makes of a segment. A batch takes 50, a token 1 and a draft step 10; the sure token is a step. Of a drafted
 * token 0.7 are accepted: up to four verified ones come to 1, 1.7, 2.19 and 2.53. */
import { describe, expect, test } from "vitest"
import { BatchTime } from "./segment.ts"
import { SpeculativeSegments } from "./speculation.ts"

const TPOTS = [100, 200]
const planOf = (decodeWeight = 1, maxTokens = 4) =>
  new SpeculativeSegments(
    new BatchTime([{ k1: 1, k2: 10, b: 50 }], 1000),
    TPOTS,
    0.7,
    maxTokens,
    decodeWeight,
  )

/** Tokens and time of each option. */
function options(time: number, counts: number[], plan = planOf()): number[][] {
  const count = plan.plan(time, counts)
  return Array.from({ length: count }, (_, i) => [plan.tokens[i]!, plan.elapsed[i]!])
}

// Of one tier: a token in batches of 100, which have room for 40; two in the same, with 30; three in batches of 200, with
// 120; four, with 110.

describe("lengths", () => {
  const lengths = (counts: number[], plan = planOf()) => plan.lengths(counts)

  test("are those that leave most for prompts, per time", () => {
    // 30, 10, 45 and 35 in 100.
    expect(lengths([10, 0])).toEqual([3, 0])
    expect(lengths([0, 10])).toEqual([0, 3])
    // None leaves any: the first that has room for them.
    expect(lengths([40, 0])).toEqual([1, 0])
    expect(lengths([41, 0])).toBeNull()
    expect([1, 2, 3].map((most) => lengths([10, 0], planOf(1, most)))).toEqual([
      [1, 0],
      [1, 0],
      [3, 0],
    ])
  })

  test("of several tiers keep each at its pace: the fewest that do", () => {
    // [1, 1], [2, 1], [3, 2], [4, 2] and [3, 1] leave 20, 0, 35, 25 and 40 in 100.
    expect(lengths([10, 10])).toEqual([3, 1])
    expect(lengths([1, 1])).toEqual([3, 1])
    expect(lengths([5, 35])).toEqual([3, 1])
  })

  test("cost as many tokens of a prompt as a decode does", () => {
    expect(lengths([10, 0], planOf(4))).toEqual([1, 0])
    expect(lengths([10, 0], planOf(4.1))).toBeNull()
    expect(lengths([10, 0], planOf(2))).toEqual([3, 0])
  })

  test("sustain as many decodes as the shortest batch has room for", () => {
    const sustains = (counts: number[], plan = planOf()) => plan.sustains(counts)
    expect([40, 41].map((count) => sustains([count, 0]))).toEqual([true, false])
    expect([10, 11].map((count) => sustains([count, 0], planOf(4)))).toEqual([true, false])
    expect(sustains([0, 0])).toBe(true)
    // No length is as fast as that.
    const slow = new SpeculativeSegments(new BatchTime([{ k1: 1, k2: 10, b: 300 }], 1000), TPOTS, 0.7, 4)
    expect(slow.sustains([1, 0])).toBe(false)
    expect(slow.sustains([0, 0])).toBe(true)
  })
})

describe("a segment", () => {
  test("is batches of one length, as many as fit: what leaves most, in least time", () => {
    expect(options(400, [10, 0])).toEqual([[180, 400]])
    expect(options(300, [10, 0])).toEqual([[90, 200]])
    expect(options(250, [10, 0])).toEqual([[90, 200]])
    expect(options(700, [10, 0])).toEqual([[270, 600]])
  })

  test("that is shorter than a batch is one, where there is room", () => {
    expect(options(100, [10, 0])).toEqual([[30, 100]])
    expect(options(80, [10, 0])).toEqual([[10, 80]])
    expect(options(70, [10, 0])).toEqual([[0, 70]])
    expect(options(69, [10, 0])).toEqual([[0, 0]])
  })

  test("can be spent in several ways, where more takes longer", () => {
    expect(options(150, [10, 0])).toEqual([
      [30, 100],
      [40, 150],
    ])
  })

  test("of no time, or without room for the decodes, comes to nothing", () => {
    expect(options(0, [10, 0])).toEqual([[0, 0]])
    expect(options(-5, [10, 0])).toEqual([[0, 0]])
    expect(options(400, [41, 0])).toEqual([[0, 0]])
    expect(options(400, [40, 0])).toEqual([[0, 400]])
  })

  test("counts what a decode costs in tokens of a prompt, whole ones left", () => {
    expect(options(400, [10, 0], planOf(1.05))).toEqual([[176, 400]])
    expect(options(400, [10, 0], planOf(3))).toEqual([[60, 400]])
  })

  test("without decodes is prompts alone", () => {
    expect(options(400, [0, 0])).toEqual([[340, 400]])
    expect(options(2180, [0, 0])).toEqual([[2000, 2120]])
    expect(options(2200, [0, 0])).toEqual([[2020, 2200]])
  })

  test("is planned batch by batch as it was counted", () => {
    const plan = planOf()
    const long = { time: 200, perTier: [3, 0], prefillTokens: 90 }
    expect(plan.batches(400, [10, 0], 0)).toEqual([long, long])
    expect(plan.batches(150, [10, 0], 0)).toEqual([{ time: 100, perTier: [1, 0], prefillTokens: 30 }])
    expect(plan.batches(150, [10, 0], 1)).toEqual([{ time: 150, perTier: [3, 0], prefillTokens: 40 }])
    expect(plan.batches(150, [10, 0], 2)).toEqual([])
    expect(plan.batches(400, [41, 0], 0)).toEqual([])
    expect(plan.batches(2180, [0, 0], 0)).toEqual([
      { time: 1060, perTier: [0, 0], prefillTokens: 1000 },
      { time: 1060, perTier: [0, 0], prefillTokens: 1000 },
    ])
  })
})

describe("the steady batch", () => {
  test("verifies each tier's tokens, and takes as long as they and the longest draft do", () => {
    expect(planOf().steady([10, 0])).toEqual({ time: 110, perTier: [3, 0], prefillTokens: 0 })
    expect(planOf().steady([10, 10])).toEqual({ time: 120, perTier: [3, 1], prefillTokens: 0 })
    expect(planOf(1.55).steady([10, 0])).toEqual({ time: 127, perTier: [3, 0], prefillTokens: 0 })
  })

  test("is none without decodes, or with more than there is room for", () => {
    expect(planOf().steady([0, 0])).toBeNull()
    expect(planOf().steady([41, 0])).toBeNull()
  })

  test("is the caller's own", () => {
    const plan = planOf()
    plan.steady([10, 0])!.perTier[0] = 9
    expect(plan.steady([10, 0])!.perTier).toEqual([3, 0])
  })
})

test("no more tokens come out than batches as long as the longest draft allows have", () => {
  // Two tokens at best, so twice the TPOT, and a hundredth.
  expect(planOf().rate(1)).toBeCloseTo((202 - 60) / 202)
  expect(planOf().rate(3)).toBeCloseTo((202 - 60) / 202)
  expect(planOf().rate(2)).toBeCloseTo((404 - 60) / 404)
  // Whole tokens, though rounding says a little less.
  const sure = new SpeculativeSegments(new BatchTime([{ k1: 1, k2: 10, b: 50 }], 1000), TPOTS, 0.5, 64)
  expect(sure.rate(1)).toBeCloseTo((202 - 60) / 202)
})
