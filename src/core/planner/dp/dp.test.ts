/** The paper's dynamic program against every subset, with the published budget written out plainly. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../../testing.ts"
import { Dp } from "./dp.ts"
import type { DpRequest } from "./request.ts"
import { AutoregressiveSegments, BatchTime } from "./segment.ts"
import { SpeculativeSegments } from "./speculation.ts"

const PIECES = [
  { k1: 7e-5, k2: 1e-6, b: 0.0248 },
  { k1: 7.5e-5, k2: 3.4e-3, b: 0.003 },
]
const TPOTS = [0.05, 0.1]
const ALPHA = 0.7
const MOST_VERIFIED = 4
const time = new BatchTime(PIECES, 16_384)

type Counts = number[]
type Chain = (t: number, n: Counts) => [tokens: number, elapsed: number]

const batch = (tokens: number, steps: number) =>
  Math.max(...PIECES.map(({ k1, k2, b }) => k1 * tokens + k2 * steps + b))
const size = (t: number, steps: number) =>
  batch(0, steps) > t
    ? 0
    : Math.trunc(Math.min(16_384, ...PIECES.map(({ k1, k2, b }) => (t - b - k2 * steps) / k1)))
const alone: Chain = (t) => (size(t, 1) === 0 ? [0, 0] : [size(t, 1), batch(size(t, 1), 1)])

/** Batch by batch, as published. */
const chainAr: Chain = (t, n) => {
  const used = n.flatMap((count, k) => (count > 0 ? [k] : []))
  if (used.length === 0) return alone(t, n)
  const due = [...TPOTS]
  let clock = 0
  let budget = 0
  for (;;) {
    const tokens = size(Math.min(t, ...used.map((k) => due[k]!)) - clock, 1)
    if (tokens === 0) return [budget, clock]
    clock += batch(tokens, 1)
    let taken = 0
    for (const k of used) {
      if (due[k]! - TPOTS[k]! >= clock) continue
      taken += n[k]!
      due[k]! += TPOTS[k]!
    }
    if (taken > tokens) return [0, 0]
    budget += tokens - taken
  }
}

const expected = (s: number) => (1 - ALPHA ** s) / (1 - ALPHA)

/** Every tier's every length, the most tokens win. */
const chainSd: Chain = (t, n) => {
  const used = n.flatMap((count, k) => (count > 0 ? [k] : []))
  if (used.length === 0) return alone(t, n)
  let best: [number, number] = [0, 0]
  for (const i of used) {
    for (let j = 1; j <= MOST_VERIFIED; j++) {
      const s = TPOTS.map((tpot) => {
        const share = (tpot - TPOTS[i]! + ALPHA ** j * TPOTS[i]!) / tpot
        return Math.max(1, Math.ceil(Math.log(share) / Math.log(ALPHA) - 1e-9))
      })
      if (used.some((k) => !(s[k]! <= MOST_VERIFIED))) continue
      const unit = Math.min(t, ...used.map((k) => Math.floor(expected(s[k]!)) * TPOTS[k]!))
      const verified = used.reduce((sum, k) => sum + s[k]! * n[k]!, 0)
      const room = size(unit, Math.max(...used.map((k) => s[k]!))) - verified
      if (unit <= 0 || room < 0) continue
      const steps = Math.floor(t / unit)
      if (steps * room > best[0]) best = [steps * room, steps * unit]
    }
  }
  return best
}

function bestSubset(requests: readonly DpRequest[], memory: number, plan: Chain): number {
  const sorted = [...requests].sort((a, b) => a.deadline - b.deadline)
  let most = -1
  for (let bits = 0; bits < 1 << sorted.length; bits++) {
    const set = sorted.filter((request, i) => request.must || bits & (1 << i))
    if (set.length !== sorted.filter((r, i) => bits & (1 << i) || r.must).length) continue
    if (fits(set, memory, plan))
      most = Math.max(
        most,
        set.reduce((sum, r) => sum + (r.must ? 0 : r.profit), 0),
      )
  }
  return most
}

function fits(set: readonly DpRequest[], memory: number, plan: Chain): boolean {
  const counts = TPOTS.map(() => 0)
  let at = 0
  let left = 0
  let held = 0
  for (const request of set) {
    const [tokens, elapsed] = plan(request.deadline - at, counts)
    left += tokens - request.owed
    at += elapsed
    held += request.memory
    if (left < 0 || held > memory) return false
    counts[request.tier]!++
    if (plan(1, counts)[1] === 0) return false
  }
  return true
}

const newRequest = fc.record({
  deadline: fc.integer({ min: 20, max: 3000 }).map((ms) => ms / 1000),
  owed: fc.integer({ min: 1, max: 6000 }),
  tier: fc.integer({ min: 0, max: 1 }),
  memory: fc.integer({ min: 1, max: 300 }),
  profit: fc.integer({ min: 1, max: 9 }),
  must: fc.constant(false),
})
const running = fc.record({
  deadline: fc.constant(0),
  owed: fc.constant(0),
  tier: fc.integer({ min: 0, max: 1 }),
  memory: fc.constant(0),
  profit: fc.constant(1),
  must: fc.constant(true),
})
const instance = fc.tuple(
  fc.array(running, { maxLength: 3 }),
  fc.array(newRequest, { minLength: 1, maxLength: 7 }),
  fc.integer({ min: 100, max: 1500 }),
)

/** No decodes run. */
const NONE = TPOTS.map(() => 0)

describe("the paper's dynamic program", () => {
  test.each([
    { name: "autoregressive", chain: chainAr, plan: () => new AutoregressiveSegments(time, TPOTS) },
    {
      name: "speculative",
      chain: chainSd,
      plan: () => new SpeculativeSegments(time, TPOTS, ALPHA, MOST_VERIFIED),
    },
  ])("earns at least what the best of all subsets does, $name", ({ chain, plan }) => {
    const dp = new Dp()
    fc.assert(
      fc.property(instance, ([held, fresh, memory]) => {
        const requests = [...held, ...fresh]
        const answer = dp.solve(requests, 0, memory, plan(), NONE)
        expect(answer?.profit ?? -1).toBeGreaterThanOrEqual(bestSubset(requests, memory, chain))
      }),
      { numRuns: runs(80) },
    )
  })

  test("budgets a segment as published: batches end at the earliest due decode", () => {
    const plan = new AutoregressiveSegments(new BatchTime([{ k1: 1, k2: 0, b: 50 }], 16_384), [500])
    expect([plan.plan(1050, [0]), plan.tokens[0], plan.elapsed[0]]).toEqual([1, 1000, 1050])
    // Two batches of 500: 450 tokens each, one of them a decode.
    expect([plan.plan(1000, [1]), plan.tokens[0], plan.elapsed[0]]).toEqual([1, 898, 1000])
    // No room for the decodes: nothing, or what came before (nothing as well).
    expect(plan.plan(1000, [500])).toBe(2)
    expect(plan.sustains([500])).toBe(false)
  })

  test("keeps what must be kept, or says that it cannot", () => {
    const dp = new Dp()
    const must = { deadline: 0.1, owed: 500, tier: 0, memory: 0, profit: 1, must: true }
    const tempting = { deadline: 0.09, owed: 500, tier: 0, memory: 1, profit: 100, must: false }
    const plan = () => new AutoregressiveSegments(time, TPOTS)
    expect(dp.solve([must, tempting], 0, 9, plan(), NONE)?.steps.map((step) => step.request)).toEqual([0])
    expect(dp.solve([{ ...must, owed: 5000 }], 0, 9, plan(), NONE)).toBeNull()
  })
})
