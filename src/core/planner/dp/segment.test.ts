/** The prefill budget of a segment, against one batch after the other. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../../testing.ts"
import { AutoregressiveSegments, BatchTime, tightestTpot, usedTiers } from "./segment.ts"

describe("a batch's time", () => {
  const time = new BatchTime(
    [
      { k1: 0, k2: 0, b: 100 },
      { k1: 2, k2: 10, b: 30 },
    ],
    200,
  )

  test("is the largest piece, a step of drafts at least", () => {
    expect([10, 30, 50].map((tokens) => time.of(tokens, 1))).toEqual([100, 100, 140])
    expect(time.of(50, 4)).toBe(170)
    expect(time.of(0, 9)).toBe(120)
  })

  test("has room for whole tokens, up to the most of a batch", () => {
    expect([99, 100, 101, 103, 439, 440, 900].map((us) => time.tokensWithin(us, 1))).toEqual([
      0, 30, 30, 31, 199, 200, 200,
    ])
    expect([119, 120, 122].map((us) => time.tokensWithin(us, 9))).toEqual([0, 0, 1])
    expect(time.tokensWithin(140, 4)).toBe(35)
  })

  test("yields so many tokens per time in batches of one length, no more in longer ones than the largest", () => {
    expect(time.rate(140)).toBeCloseTo(50 / 140)
    expect(time.rate(40)).toBe(0)
    expect(time.rate(30)).toBe(0)
    expect(time.rate(1000)).toBeCloseTo(200 / 440)
    expect(time.rate(440)).toBeCloseTo(200 / 440)
  })
})

test("tiers in use, and the tightest of them", () => {
  expect([usedTiers([0, 0]), usedTiers([2, 0]), usedTiers([0, 1, 1])]).toEqual([0, 1, 6])
  expect([1, 2, 3, 6].map((mask) => tightestTpot([50, 70, 60], mask))).toEqual([50, 70, 50, 60])
  expect(tightestTpot([50], 0)).toBe(Infinity)
})

interface Given {
  tpots: number[]
  counts: number[]
  time: number
  weight: number
  maxTokens: number
}

/** A batch takes 50 and 1 a token. */
const timeOf = (maxTokens: number) => new BatchTime([{ k1: 1, k2: 0, b: 50 }], maxTokens)

/** Batches, each until the next decode is due or the segment ends, up to one without room for its decodes. What the segment's
 * end cuts short counts only where all of it has room. */
function plain({ tpots, counts, time, weight, maxTokens }: Given) {
  const batchTime = timeOf(maxTokens)
  const used = counts.flatMap((count, tier) => (count > 0 ? [tier] : []))
  const due = [...tpots]
  const batches: { tokens: number; perTier: number[]; time: number }[] = []
  let clock = 0
  let whole = 0
  for (;;) {
    const next = Math.min(...used.map((tier) => due[tier]!))
    const room = batchTime.tokensWithin(Math.min(time, next) - clock, 1)
    if (room === 0) return { batches, failed: false }
    const end = clock + batchTime.of(room, 1)
    const takers = used.filter((tier) => due[tier]! - tpots[tier]! < end)
    const taken = takers.reduce((sum, tier) => sum + counts[tier]!, 0) * weight
    if (taken > room) return { batches: batches.slice(0, whole), failed: true }
    batches.push({
      tokens: room - taken,
      perTier: tpots.map((_, tier) => (takers.includes(tier) ? 1 : 0)),
      time: end - clock,
    })
    for (const tier of takers) due[tier]! += tpots[tier]!
    clock = end
    if (next <= time) whole = batches.length
  }
}

const given: fc.Arbitrary<Given> = fc.record({
  tpots: fc.uniqueArray(fc.integer({ min: 55, max: 400 }), { minLength: 1, maxLength: 3 }),
  counts: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 3, maxLength: 3 }),
  time: fc.integer({ min: 1, max: 3000 }),
  weight: fc.constantFrom(1, 1, 2.5),
  maxTokens: fc.constantFrom(16_384, 120),
})

describe("a segment", () => {
  test("is planned as batch after batch would be, and says which these are", () => {
    const seen = { failed: 0, whole: 0, several: 0 }
    const plans = new Map<string, AutoregressiveSegments>()
    fc.assert(
      fc.property(given, (one) => {
        const counts = one.tpots.map((_, tier) => one.counts[tier]!)
        if (usedTiers(counts) === 0) return
        const { tpots, time, weight, maxTokens } = one
        // What a plan knows from before changes nothing.
        const key = [tpots, weight, maxTokens].join()
        const plan = plans.get(key) ?? new AutoregressiveSegments(timeOf(maxTokens), tpots, weight)
        plans.set(key, plan)
        for (const part of [time, Math.ceil(time / 3), 2 * time]) {
          const { batches, failed } = plain({ ...one, counts, time: part })
          const options = plan.plan(part, counts)
          expect(options).toBe(failed ? 2 : 1)
          const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0)
          expect(plan.tokens[0]).toBeCloseTo(sum(batches.map(({ tokens }) => tokens)))
          expect(plan.elapsed[0]).toBeCloseTo(sum(batches.map((batch) => batch.time)))
          if (failed) expect([plan.tokens[1], plan.elapsed[1]]).toEqual([0, 0])
          const listed = plan.batches(part, counts, 0)
          expect(listed.map(({ perTier }) => perTier)).toEqual(batches.map(({ perTier }) => perTier))
          for (const [i, { tokens, time }] of batches.entries()) {
            expect(listed[i]!.prefillTokens).toBe(Math.max(0, Math.floor(tokens)))
            expect(listed[i]!.time).toBeCloseTo(time)
          }
          expect(plan.batches(part, counts, 1)).toEqual([])
          if (failed) seen.failed++
          else if (batches.length > 1) seen.several++
          else seen.whole++
        }
      }),
      { numRuns: runs(300) },
    )
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(runs(300) / 20)
  })

  test("without decodes is batches as large as they may be", () => {
    const plan = new AutoregressiveSegments(timeOf(400), [100])
    expect([plan.plan(1000, [0]), plan.tokens[0], plan.elapsed[0]]).toEqual([1, 850, 1000])
    expect(plan.batches(1000, [0], 0)).toEqual([
      { time: 450, perTier: [0], prefillTokens: 400 },
      { time: 450, perTier: [0], prefillTokens: 400 },
      { time: 100, perTier: [0], prefillTokens: 50 },
    ])
    expect([plan.plan(50, [0]), plan.tokens[0], plan.elapsed[0]]).toEqual([1, 0, 0])
  })

  test("that is further away than two thousand batches is planned no further", () => {
    const tpot = 100
    const plan = new AutoregressiveSegments(timeOf(16_384), [tpot])
    plan.plan(1e6, [1])
    expect([plan.tokens[0], plan.elapsed[0]]).toEqual([2048 * 49, 2048 * tpot])
    plan.plan(2000 * tpot + 60, [1])
    expect([plan.tokens[0], plan.elapsed[0]]).toEqual([2000 * 49 + 9, 2000 * tpot + 60])
    const prompts = new AutoregressiveSegments(timeOf(1), [tpot])
    prompts.plan(1e9, [0])
    expect([prompts.tokens[0], prompts.elapsed[0]]).toEqual([2048, 2048 * 51])
  })
})

describe("decodes", () => {
  test("go on for ever where a batch of all of them keeps the tightest pace", () => {
    const plan = new AutoregressiveSegments(timeOf(16_384), [100, 200], 2)
    expect(
      [
        [25, 0],
        [26, 0],
        [0, 75],
        [0, 76],
        [20, 5],
        [20, 6],
        [0, 0],
      ].map((counts) => plan.sustains(counts)),
    ).toEqual([...[true, false, true, false, true, false, true]])
    expect(plan.steady([20, 5])).toEqual({ time: 100, perTier: [1, 1], prefillTokens: 0 })
    expect(plan.steady([0, 5])).toEqual({ time: 60, perTier: [0, 1], prefillTokens: 0 })
    expect(plan.steady([0, 0])).toBeNull()
    expect(new AutoregressiveSegments(timeOf(9), [100], 1.5).steady([3])!.time).toBe(55)
  })

  test("leave so many tokens per time at best, their own included: a hundredth more than their pace says", () => {
    const plan = new AutoregressiveSegments(timeOf(16_384), [100, 200])
    expect(plan.rate(1)).toBeCloseTo(51 / 101)
    expect(plan.rate(2)).toBeCloseTo(152 / 202)
    expect(plan.rate(3)).toBeCloseTo(51 / 101)
    expect(plan.tpots).toEqual([100, 200])
  })
})
