/** Random demands for the fluid test, played by it and by sums made anew at each horizon. */
import fc from "fast-check"
import { attentionPairs, type CostModel } from "../cost.ts"
import type { EngineLimits } from "../protocol.ts"
import { LIMITS } from "../testing.ts"
import { Demand } from "./feasible.ts"
import type { Stream } from "./streams.ts"

export const NOW_US = 7_000
export const MAX_BATCH_US = 100_000
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
export function play({ running, steps, cost, limits, margin }: Case, calibration: number): boolean[] {
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
export function thresholds(all: Case): number[] {
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
export const caseArbitrary = (distinctPaces: boolean) =>
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
