/** The fluid test: its sweep against sums made anew at each horizon, and its rules one by one. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { CostModel } from "../cost.ts"
import type { EngineLimits } from "../protocol.ts"
import { COST, LIMITS, runs } from "../testing.ts"
import { Demand } from "./feasible.ts"
import { caseArbitrary, MAX_BATCH_US, NOW_US, play, thresholds } from "./feasible-testing.ts"
import type { Stream } from "./streams.ts"

describe("Demand", () => {
  test("says what sums made anew at each horizon say, whatever came and went before", () => {
    let [yes, no] = [0, 0]
    fc.assert(
      fc.property(caseArbitrary(true), (all) => {
        const expected = thresholds(all)
        if (expected.length === 0) return
        const target = expected.at(-1)!
        const near = target > 0 && target < Infinity ? target : 1
        // Just fits, and just does not.
        for (const calibration of [near * (1 - 1e-6), near * (1 + 1e-6), 1]) {
          play(all, calibration).forEach((fits, i) => {
            if (!(Math.abs(calibration / expected[i]! - 1) >= 1e-7)) return
            expect(fits, `horizon ${i} at ${calibration} of ${expected[i]}`).toBe(calibration <= expected[i]!)
            if (fits) yes++
            else no++
          })
        }
      }),
      { numRuns: runs(600) },
    )
    expect(Math.min(yes, no)).toBeGreaterThan(runs(600) / 2)
  })

  test("with streams of one pace never finds room that there is not", () => {
    fc.assert(
      fc.property(caseArbitrary(false), (found) => {
        // (A margin evened out over more steps than there are would be less.)
        const all = { ...found, margin: 0 }
        const expected = thresholds(all)
        const target = expected.at(-1) ?? 1
        const calibration = (target > 0 && target < Infinity ? target : 1) * (1 + 1e-6)
        play(all, calibration).forEach((fits, i) => {
          if (fits) expect(calibration).toBeLessThanOrEqual(expected[i]! * (1 + 1e-7))
        })
      }),
      { numRuns: runs(300) },
    )
  })

  /** 5 ms a step, 0.1 ms a token. */
  const reset = (margin: number, changes: Partial<EngineLimits> = {}) => {
    const demand = new Demand(COST, { ...LIMITS, ...changes })
    demand.reset(NOW_US, MAX_BATCH_US, 1, margin)
    return demand
  }
  const decode = (tpotUs: number, remaining: number, startUs = NOW_US): Stream => {
    return { startUs, tpotUs, remaining, contextTokens: 100, length: 1, expected: 1 }
  }

  test("attempts a prefill that one batch reaches in the mean, margin or not", () => {
    for (const margin of [0, 0.3]) {
      const demand = reset(margin)
      demand.addRunning(decode(100_000, 50))
      demand.addPrefill(0, 499, 1)
      // 5 ms and 500 tokens, that of the stream among them.
      expect(demand.fits(NOW_US + 54_999)).toBe(false)
      expect(demand.fits(NOW_US + 55_000)).toBe(true)
    }
  })

  test("not so where the prompts are more than a batch, or a stream needs more than a step", () => {
    const large = reset(0.3)
    large.addPrefill(0, 513, 1)
    expect(large.fits(NOW_US + 57_000)).toBe(false)
    const busy = reset(0.3)
    busy.addRunning(decode(20_000, 50))
    busy.addPrefill(0, 499, 1)
    expect(busy.fits(NOW_US + 55_000)).toBe(false)
  })

  test("evens out the margin over many steps, but not where drafts vary", () => {
    /** The largest margin with which ten tokens a stream fit in as many steps. */
    const most = (steps: number, length: number) => {
      let margin = 0
      for (let more = 0.5; more > 1e-4; more /= 2) {
        const demand = reset(margin + more)
        demand.addRunning({ ...decode(7000, 1000), length, expected: length })
        if (demand.fits(NOW_US + steps * 7000 * length)) margin += more
      }
      return margin
    }
    // 5.1 ms of 7 ms: 37% to spare, a step more or less; half the margin over the root of the steps.
    expect(most(400, 1)).toBeGreaterThan(0.95)
    expect(most(4, 3)).toBeLessThan(2)
    const [few, many] = [most(100, 2), most(400, 2)]
    expect(Math.abs(many - few)).toBeLessThan(0.02)
  })

  test("a stream that ends asks for its tokens and no more, and its place is free", () => {
    const demand = reset(0, { maxSequences: 1 })
    demand.addRunning(decode(10_000, 3))
    demand.addStream(decode(10_000, 3, NOW_US + 50_000))
    // Two streams are alive before the first one ends: one place is not enough.
    expect(demand.fits(NOW_US + 29_000)).toBe(false)
    expect(demand.fits(NOW_US + 30_000)).toBe(true)
    // Both together are six steps' tokens however late it gets: all but these is left for a prompt.
    demand.addPrefill(0, 8000, 1)
    expect(demand.fits(NOW_US + 800_000)).toBe(false)
    expect(demand.fits(NOW_US + 900_000)).toBe(true)
  })

  test("what was dropped asks for nothing, running or over", () => {
    for (const askBefore of [false, true]) {
      const demand = reset(0, { maxSequences: 2 })
      demand.addRunning(decode(10_000, 3))
      const rows = [decode(4000, 100), decode(4000, 2), decode(4000, 100, NOW_US + 15_000)].map((stream) =>
        demand.addStream(stream),
      )
      if (askBefore) expect(demand.fits(NOW_US + 10_000)).toBe(false)
      for (const row of rows) demand.drop(row)
      expect(demand.fits(NOW_US + 20_000)).toBe(true)
      // Nor has it left more places than there are.
      for (let i = 0; i < 2; i++) demand.addStream(decode(1e6, 100, NOW_US + 20_000))
      expect(demand.fits(NOW_US + 25_000)).toBe(false)
      expect(demand.fits(NOW_US + 30_000)).toBe(true)
    }
  })

  test("a stream that runs and was dropped is as it was once it is restored, ended or not", () => {
    /** How long prompts may be that fit by each horizon, beside a stream from 10 to 40 ms and another; the first is dropped
     * and restored where the horizons tested before have come so far. */
    const mostOf = (streams: 1 | 2, changes: { maxSequences?: number }, dropAfter?: number) => {
      const most = (horizon: number) => {
        let tokens = 0
        for (let more = 512; more >= 1; more /= 2) {
          const demand = reset(0.1, { maxBatchTokens: 10, ...changes })
          const row = streams === 2 ? demand.addRunning(decode(10_000, 3, NOW_US + 10_000)) : -1
          demand.addRunning(decode(20_000, 20))
          for (const at of [0, 15_000, 60_000]) {
            if (dropAfter === at) demand.dropRunning(row)
            if (dropAfter === at) demand.restoreRunning(row)
            if (at + 20_000 < horizon) demand.fits(NOW_US + at + 20_000)
          }
          demand.addPrefill(0, tokens + more, 1)
          if (demand.fits(NOW_US + horizon)) tokens += more
        }
        return tokens
      }
      return [15_000, 30_000, 45_000, 70_000, 100_000, 200_000].map(most)
    }
    for (const changes of [{}, { maxSequences: 1 }]) {
      const both = mostOf(2, changes)
      expect(both).not.toEqual(mostOf(1, changes))
      for (const dropAfter of [0, 15_000, 60_000]) expect(mostOf(2, changes, dropAfter)).toEqual(both)
    }
  })

  test("one batch has no token of a stream that was dropped, and that of one that was restored", () => {
    const fits = (horizon: number, change: (demand: Demand, row: number) => void) => {
      const cost = { ...COST, pieces: [{ step: 1000, tokens: 100, slowPairs: 1, sequences: 10 }] }
      const demand = new Demand(cost, LIMITS)
      demand.reset(NOW_US, MAX_BATCH_US, 1, 1000)
      demand.addPrefill(0, 1, 1)
      demand.addRunning(decode(100_000, 50))
      change(demand, demand.addRunning({ ...decode(100_000, 50), contextTokens: 700 }))
      return demand.fits(NOW_US + horizon)
    }
    const nothing = () => {}
    const drop = (demand: Demand, row: number) => demand.dropRunning(row)
    const restore = (demand: Demand, row: number) => {
      demand.dropRunning(row)
      demand.restoreRunning(row)
    }
    // 1,000 + 2 × 110 + 1 + 100, and 810 more.
    for (const [change, us] of [
      [drop, 1321],
      [nothing, 2131],
      [restore, 2131],
    ] as const)
      expect([us - 1, us].map((horizon) => fits(horizon, change))).toEqual([false, true])
  })

  describe("one batch is timed by all that it has", () => {
    /** From when on it fits, with a margin that nothing else does, µs. */
    const from = (piece: CostModel["pieces"][0], unifiedKv: boolean, streams: number) => {
      for (let us = 1000; us < 100_000; us += 1000) {
        const cost = { ...COST, unifiedKv, fastPassTokens: 50, pieces: [piece] }
        const demand = new Demand(cost, { ...LIMITS, unifiedKv })
        demand.reset(NOW_US, MAX_BATCH_US, 1, 1000)
        for (let i = 0; i < streams; i++) demand.addRunning(decode(100_000, 50))
        demand.addPrefill(0, 40, 1)
        demand.addPrefill(100, 60, 1)
        if (demand.fits(NOW_US + us)) return us
      }
      return Infinity
    }
    const slow = 40 * 20.5
    const fast = 60 * 130.5

    test.each<[string, CostModel["pieces"][0], boolean, number, number]>([
      ["a step", { step: 7000 }, true, 1, 7000],
      ["its tokens, one of each stream among them", { tokens: 500 }, true, 2, 51_000],
      ["sequences", { sequences: 1000 }, true, 3, 5000],
      ["outputs", { outputs: 1000 }, true, 3, 5000],
      ["long attention", { fastPairs: 7000 / fast }, true, 3, 7000],
      ["short attention, that of streams too", { slowPairs: 10 }, true, 3, 10 * (slow + 300)],
      ["a pass", { passes: 4000 }, true, 3, 4000],
      ["a pass for each prompt beside streams in a split pool", { passes: 4000 }, false, 3, 12_000],
      ["one pass where there are none", { passes: 4000 }, false, 0, 4000],
      ["the sum of it", { step: 3000, sequences: 1000, tokens: 100 }, true, 0, 15_000],
    ])("%s", (_, piece, unifiedKv, streams, us) => {
      expect(from(piece, unifiedKv, streams)).toBe(Math.ceil(us / 1000) * 1000)
    })

    test("it has no more tokens than a batch may", () => {
      const fits = (tokens: number) => {
        const demand = reset(1000)
        demand.addRunning(decode(100_000, 50))
        demand.addPrefill(0, tokens, 1)
        return demand.fits(NOW_US + 90_000)
      }
      expect([511, 512].map(fits)).toEqual([true, false])
    })

    test("a stream that needs exactly one step by then is in it", () => {
      const fits = (horizon: number) => {
        const demand = reset(1000)
        demand.addRunning(decode(50_000, 50))
        demand.addPrefill(0, 100, 1)
        return demand.fits(NOW_US + horizon)
      }
      expect([50_000, 50_001].map(fits)).toEqual([true, false])
    })
  })

  test("in a split pool counts no second pass where nothing decodes yet", () => {
    // Three requests that came together start to decode at their common deadline: the sum of their lines is 0 there, but for
    // rounding. (So it is with streams that were all dropped.)
    const afterUs = 100_001
    const fitsWith = (streams: number) => {
      // 200 tokens take what the steps leave of the time.
      const tokens = ((afterUs - 6000 * (afterUs / MAX_BATCH_US + 0.5)) / 200) * (1 - 1e-6)
      const cost = { ...COST, unifiedKv: false, pieces: [{ step: 1000, passes: 5000, tokens }] }
      const demand = new Demand(cost, { ...LIMITS, unifiedKv: false, maxBatchTokens: 100 })
      demand.reset(NOW_US, MAX_BATCH_US, 1, 0)
      demand.addPrefill(0, 200, 1)
      for (let i = 0; i < streams; i++) demand.addStream(decode(20_000, 50, NOW_US + afterUs))
      return demand.fits(NOW_US + afterUs)
    }
    expect([0, 1, 2, 3].map(fitsWith)).toEqual([true, true, true, true])
  })

  test("nothing can be owed by a moment that has come", () => {
    const demand = reset(0)
    expect(demand.fits(NOW_US)).toBe(true)
    demand.addPrefill(0, 1, 1)
    expect(demand.fits(NOW_US - 1)).toBe(false)
  })
})
