/** The fluid test: its sweep against sums made anew at each horizon, and its rules one by one. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { attentionPairs, type CostModel } from "../cost.ts"
import type { EngineLimits } from "../protocol.ts"
import { COST, LIMITS, runs } from "../testing.ts"
import { Demand } from "./feasible.ts"
import type { Stream } from "./streams.ts"

const NOW_US = 7_000
const MAX_BATCH_US = 100_000
const CAUTION = 0.5

interface Prefill {
  position: number
  tokens: number
  requests: number
  rows: number
}

/** What is asked of a Demand, one after another. */
type Step =
  | { kind: "stream"; stream: Stream }
  | { kind: "drop"; nth: number }
  | { kind: "prefill"; prefill: Prefill }
  | { kind: "takeBack"; nth: number }
  | { kind: "ask"; atUs: number }

interface Case {
  running: Stream[]
  steps: Step[]
  cost: CostModel
  limits: EngineLimits
  margin: number
}

/** What the oracle knows of a stream: times since NOW_US. */
type Known = Stream & { dropped: boolean }

/** The largest calibration at which everything due `horizon` after now fits: everything summed anew. */
function thresholdAt(
  horizon: number,
  { cost, limits, running, margin }: Case,
  streams: readonly Known[],
  prefills: readonly Prefill[],
): number {
  const here = streams.filter(({ dropped }) => !dropped)
  const since = ({ startUs }: Stream) => horizon - (startUs - NOW_US)
  const alive = here.filter((one) => since(one) < one.remaining * one.tpotUs).length
  if (alive > limits.maxSequences) return 0
  let [steps, verified, pairs, most] = [0, 0, 0, 0]
  for (const one of here) {
    const spanUs = Math.max(0, Math.min(since(one), one.remaining * one.tpotUs))
    const needs = spanUs / (one.tpotUs * one.expected)
    steps += needs
    verified += needs * one.length
    pairs += needs * one.length * one.contextTokens
    most = Math.max(most, needs)
  }
  const longest = Math.max(1, ...streams.map(({ length }) => length))
  const owed = { tokens: 0, requests: 0, rows: 0, fast: 0, slow: 0 }
  for (const { position, tokens, requests, rows } of prefills) {
    owed.tokens += tokens
    owed.requests += requests
    owed.rows += rows
    owed[tokens >= cost.fastPassTokens ? "fast" : "slow"] += attentionPairs(position, tokens)
  }
  const least = (features: Record<string, number>, scale: number) =>
    Math.min(
      ...cost.pieces.map((piece) => {
        let timeUs = 0
        for (const [name, coefficient] of Object.entries(piece)) timeUs += coefficient * features[name]!
        return timeUs === 0 ? Infinity : horizon / (timeUs * scale)
      }),
    )
  const iterations = Math.max(horizon / MAX_BATCH_US, most) + 0.5
  const chunked =
    owed.tokens > 0 ? Math.min(iterations, Math.max(owed.requests, owed.tokens / limits.minChunkTokens)) : 0
  const split = limits.unifiedKv || steps < 1e-9 ? 0 : chunked
  const evenedOut = longest > 1 ? 1 : CAUTION / Math.sqrt(Math.max(1, iterations))
  const spread = least(
    {
      step: iterations,
      passes: iterations + split,
      tokens: owed.tokens + verified,
      sequences: steps + chunked,
      fastPairs: owed.fast,
      slowPairs: owed.slow + pairs,
      outputs: owed.rows + verified,
      specSteps: (longest - 1) * iterations,
    },
    1 + margin * evenedOut,
  )
  const tokens = owed.tokens + running.reduce((sum, { length }) => sum + length, 0)
  if (most > 1 || longest > 1 || tokens > limits.maxBatchTokens) return spread
  const oneBatch = least(
    {
      step: 1,
      passes: 1 + (limits.unifiedKv || running.length === 0 ? 0 : owed.requests),
      tokens,
      sequences: owed.requests + running.length,
      fastPairs: owed.fast,
      slowPairs: owed.slow + running.reduce((sum, { contextTokens }) => sum + contextTokens, 0),
      outputs: owed.rows + running.length,
      specSteps: 0,
    },
    1,
  )
  return Math.max(spread, oneBatch)
}

/** Plays a case; answers what Demand said at each horizon. */
function play({ running, steps, cost, limits, margin }: Case, calibration: number): boolean[] {
  const demand = new Demand(cost, limits)
  // Used before: nothing of that may stay.
  demand.reset(0, 50_000, 2, 0.3)
  demand.addRunning({ startUs: 0, tpotUs: 10, remaining: 9, contextTokens: 50, length: 2, expected: 1.5 })
  demand.drop(
    demand.addStream({ startUs: 0, tpotUs: 10, remaining: 9, contextTokens: 50, length: 1, expected: 1 }),
  )
  demand.addPrefill(3, 40, 1)
  demand.fits(60)
  demand.reset(NOW_US, MAX_BATCH_US, calibration, margin)
  for (const stream of running) demand.addRunning(stream)
  const rows: number[] = []
  const prefills: Prefill[] = []
  const answers: boolean[] = []
  for (const step of steps) {
    if (step.kind === "stream") rows.push(demand.addStream(step.stream))
    else if (step.kind === "drop") demand.drop(rows.splice(step.nth % rows.length, 1)[0]!)
    else if (step.kind === "prefill") {
      const { position, tokens, requests, rows } = step.prefill
      prefills.push(step.prefill)
      demand.addPrefill(position, tokens, 1, requests, rows)
    } else if (step.kind === "takeBack") {
      const [{ position, tokens, requests, rows }] = prefills.splice(step.nth % prefills.length, 1) as [
        Prefill,
      ]
      demand.addPrefill(position, tokens, -1, requests, rows)
    } else answers.push(demand.fits(step.atUs))
  }
  return answers
}

/** The oracle's threshold at each horizon. */
function thresholds(all: Case): number[] {
  const known: Known[] = all.running.map((stream) => ({ ...stream, dropped: false }))
  const rows: Known[] = []
  const prefills: Prefill[] = []
  const found: number[] = []
  for (const step of all.steps) {
    if (step.kind === "stream") {
      const one = { ...step.stream, dropped: false }
      known.push(one)
      rows.push(one)
    } else if (step.kind === "drop") rows.splice(step.nth % rows.length, 1)[0]!.dropped = true
    else if (step.kind === "prefill") prefills.push(step.prefill)
    else if (step.kind === "takeBack") prefills.splice(step.nth % prefills.length, 1)
    else found.push(thresholdAt(step.atUs - NOW_US, all, known, prefills))
  }
  return found
}

const coefficient = (max: number) =>
  fc.oneof(fc.constant(0), fc.double({ min: 0.01 * max, max, noNaN: true }))
const piece = fc.record({
  step: fc.double({ min: 10, max: 5000, noNaN: true }),
  passes: coefficient(1000),
  tokens: coefficient(100),
  sequences: coefficient(500),
  fastPairs: coefficient(0.5),
  slowPairs: coefficient(2),
  outputs: coefficient(50),
  specSteps: coefficient(1000),
})
const streamShape = fc.record({
  startsAfterUs: fc.integer({ min: 0, max: 200_000 }),
  remaining: fc.integer({ min: 1, max: 40 }),
  contextTokens: fc.integer({ min: 1, max: 2000 }),
  pace: fc.integer({ min: 0, max: 40_000 }),
})
const move = fc.record({
  kind: fc.constantFrom("stream", "stream", "drop", "prefill", "prefill", "takeBack", "ask", "ask"),
  stream: streamShape,
  prefill: fc
    .record({
      position: fc.nat(500),
      tokens: fc.integer({ min: 1, max: 400 }),
      requests: fc.nat(1),
      allRows: fc.boolean(),
    })
    .map(({ allRows, ...one }) => ({ ...one, rows: allRows ? one.tokens : one.requests })),
  nth: fc.nat(20),
  laterUs: fc.integer({ min: 0, max: 300_000 }),
})
const caseArbitrary = (distinctPaces: boolean) =>
  fc
    .record({
      pieces: fc.array(piece, { minLength: 1, maxLength: 2 }),
      unifiedKv: fc.boolean(),
      length: fc.constantFrom(1, 1, 3),
      margin: fc.constantFrom(0, 0.04, 0.3),
      maxSequences: fc.constantFrom(4, 40),
      running: fc.array(streamShape, { maxLength: 5 }),
      moves: fc.array(move, { minLength: 1, maxLength: 30 }),
    })
    .map(({ pieces, unifiedKv, length, margin, maxSequences, running, moves }): Case => {
      let streams = 0
      const tpotOf = (pace: number) =>
        distinctPaces ? 1000 + 64 * pace + (streams++ % 64) : 1000 * (1 + (pace % 2))
      const streamOf = ({ remaining, contextTokens, pace }: (typeof moves)[0]["stream"], startUs: number) => {
        const expected = length === 1 ? 1 : 2.1
        return { startUs, tpotUs: tpotOf(pace), remaining, contextTokens, length, expected }
      }
      // Those that run may have begun before now.
      const before = running.map((shape) => streamOf(shape, NOW_US + 100_000 - shape.startsAfterUs))
      let atUs = NOW_US
      let [rows, prefills] = [0, 0]
      const steps: Step[] = []
      for (const { kind, stream, prefill, nth, laterUs } of moves) {
        if (kind === "stream") {
          rows++
          steps.push({ kind, stream: streamOf(stream, atUs + stream.startsAfterUs) })
        } else if (kind === "drop" && rows > 0) {
          rows--
          steps.push({ kind, nth })
        } else if (kind === "prefill") {
          prefills++
          steps.push({ kind, prefill })
        } else if (kind === "takeBack" && prefills > 0) {
          prefills--
          steps.push({ kind, nth })
        } else if (kind === "ask") {
          atUs += laterUs + (atUs === NOW_US ? 1 : 0)
          steps.push({ kind, atUs })
        }
      }
      const cost = { pieces, residualSigma: 0.05, fastPassTokens: 64, unifiedKv }
      const limits = { ...LIMITS, unifiedKv, maxSequences }
      return { running: before, steps, cost, limits, margin }
    })

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
