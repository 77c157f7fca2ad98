/** Answers of the dynamic program, played back: they hold, and none is worth more. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { Random } from "../../../random.ts"
import { runs } from "../../testing.ts"
import { Dp, type DpAnswer } from "./dp.ts"
import type { DpRequest } from "./request.ts"
import { AutoregressiveSegments, BatchTime, type SegmentPlan } from "./segment.ts"
import { SpeculativeSegments } from "./speculation.ts"

/** A batch takes 50, a token 1 and a draft step 10. */
const time = new BatchTime([{ k1: 1, k2: 10, b: 50 }], 400)
const TPOTS = [100, 200]
const plans = {
  autoregressive: () => new AutoregressiveSegments(time, TPOTS),
  speculative: () => new SpeculativeSegments(time, TPOTS, 0.7, 4),
}

/** Plays an answer back; answers what is left of the prompts' tokens. */
function playBack(
  { steps, profit, counts }: DpAnswer,
  requests: readonly DpRequest[],
  memory: number,
  plan: SegmentPlan,
  running: readonly number[],
): number {
  const decodes = running.slice()
  let [at, left, held, gained] = [0, 0, 0, 0]
  for (const { request: index, from, time, option } of steps) {
    const request = requests[index]!
    expect(from).toBeCloseTo(at)
    expect(time).toBeCloseTo(request.deadline - at)
    expect(option).toBeLessThan(plan.plan(time, decodes))
    left += plan.tokens[option]! - request.owed
    at += plan.elapsed[option]!
    held += request.memory
    gained += request.must ? 0 : request.profit
    decodes[request.tier]!++
    expect(left).toBeGreaterThanOrEqual(0)
    expect(plan.sustains(decodes)).toBe(true)
  }
  expect(held).toBeLessThanOrEqual(memory)
  expect(profit).toBeCloseTo(gained)
  expect(counts).toEqual(decodes)
  const taken = steps.map(({ request }) => request)
  expect(new Set(taken).size).toBe(taken.length)
  for (const [index, { must }] of requests.entries()) if (must) expect(taken).toContain(index)
  const deadlines = taken.map((index) => requests[index]!.deadline)
  expect(deadlines).toEqual([...deadlines].sort((a, b) => a - b))
  return left
}

/** The most profit of any set, spent in any way, and the most tokens left over with it; null where there is none. */
function best(requests: readonly DpRequest[], memory: number, plan: SegmentPlan, running: readonly number[]) {
  const order = [...requests].sort((a, b) => a.deadline - b.deadline)
  let found: { profit: number; left: number } | null = null
  const look = (
    i: number,
    at: number,
    left: number,
    held: number,
    profit: number,
    counts: number[],
  ): void => {
    const request = order[i]
    if (request === undefined) {
      if (found === null || profit > found.profit || (profit === found.profit && left > found.left))
        found = { profit, left }
      return
    }
    if (!request.must) look(i + 1, at, left, held, profit, counts)
    if (held + request.memory > memory) return
    const count = plan.plan(request.deadline - at, counts)
    const options = Array.from({ length: count }, (_, k) => [plan.tokens[k]!, plan.elapsed[k]!] as const)
    const next = counts.with(request.tier, counts[request.tier]! + 1)
    if (!plan.sustains(next)) return
    const gain = request.must ? 0 : request.profit
    for (const [tokens, elapsed] of options)
      if (left + tokens >= request.owed)
        look(i + 1, at + elapsed, left + tokens - request.owed, held + request.memory, profit + gain, next)
  }
  if (plan.sustains(running)) look(0, 0, 0, 0, 0, [...running])
  return found as { profit: number; left: number } | null
}

const request = fc.record({
  deadline: fc.integer({ min: 50, max: 1500 }),
  owed: fc.integer({ min: 1, max: 400 }),
  tier: fc.nat(1),
  memory: fc.integer({ min: 1, max: 300 }),
  profit: fc.integer({ min: 1, max: 9 }),
  must: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
})
const instance = fc.tuple(
  fc.array(request, { minLength: 1, maxLength: 6 }),
  fc.integer({ min: 100, max: 1500 }),
  fc.tuple(fc.nat(38), fc.nat(38)),
)

describe.each(Object.entries(plans))("%s", (_, plan) => {
  test("an answer holds, and no other is worth more or leaves more with it; none is missed", () => {
    const dp = new Dp()
    let answered = 0
    fc.assert(
      fc.property(instance, ([requests, memory, running]) => {
        const answer = dp.solve(requests, 0, memory, plan(), running)
        const expected = best(requests, memory, plan(), running)
        if (answer === null) {
          expect(expected).toBeNull()
          return
        }
        answered++
        const left = playBack(answer, requests, memory, plan(), running)
        expect({ profit: answer.profit, left }).toEqual(expected)
      }),
      { numRuns: runs(150) },
    )
    expect(answered).toBeGreaterThan(runs(150) / 3)
  })
})

describe("of many requests", () => {
  /** All due at once and long after: a knapsack of memory alone. */
  const knapsack = (seed: number, count: number): { requests: DpRequest[]; memory: number } => {
    const random = new Random("knapsack", seed)
    const requests = Array.from({ length: count }, () => ({
      ...{ deadline: 1e5 + random.below(50), owed: 1, tier: random.below(2), must: false },
      ...{ memory: 20 + random.below(80), profit: 1 + random.below(60) },
    }))
    return { requests, memory: 15 * count }
  }
  function mostProfit(requests: readonly DpRequest[], memory: number): number {
    const most = new Float64Array(memory + 1)
    for (const { memory: takes, profit } of requests)
      for (let at = memory; at >= takes; at--) most[at] = Math.max(most[at]!, most[at - takes]! + profit)
    return most[memory]!
  }

  test("more than are looked at at once: the best all the same, with two tiers and with one", () => {
    const dp = new Dp()
    for (let seed = 0; seed < 6; seed++) {
      const { requests, memory } = knapsack(seed, 20)
      for (const tiers of [2, 1]) {
        const plan = new AutoregressiveSegments(time, TPOTS.slice(0, tiers))
        const given = tiers === 2 ? requests : requests.map((request) => ({ ...request, tier: 0 }))
        const none = Array.from({ length: tiers }, () => 0)
        const answer = dp.solve(given, 0, memory, plan, none)!
        playBack(answer, given, memory, plan, none)
        expect(answer.profit).toBe(mostProfit(given, memory))
      }
    }
  })

  test("where the first look, at few, does not find the best, the second does", () => {
    const random = new Random("tight", 219)
    const requests = Array.from({ length: 16 }, (_, i) => ({
      ...{ deadline: 200 + 100 * i + random.below(100), owed: 20 + random.below(150), tier: random.below(2) },
      ...{ must: false, memory: 20 + random.below(80), profit: 1 + random.below(60) },
    }))
    const answer = new Dp().solve(requests, 0, 384, plans.autoregressive(), [0, 0])!
    playBack(answer, requests, 384, plans.autoregressive(), [0, 0])
    // With 24 states it is 392.
    expect(answer.profit).toBe(396)
  })

  test("what must be kept is, though it comes last and all before it would take its room", () => {
    const { requests } = knapsack(9, 40)
    const must = { deadline: 2e5, owed: 1, tier: 0, memory: 600, profit: 1, must: true }
    const given = [...requests, must]
    const answer = new Dp().solve(given, 0, 600, plans.autoregressive(), [0, 0])!
    expect(answer.steps.map(({ request }) => request)).toEqual([40])
  })
})

describe("of sets that come to the same", () => {
  /** Each with what it takes and is worth, all of one tier and due at once; answers how often a segment was planned. */
  function planned(
    kinds: { memory: number; profit: number }[],
    memory = 1e6,
    tier = (_: number) => 0,
  ): number {
    const requests = kinds.map((kind, i) => ({ deadline: 1e5, owed: 1, tier: tier(i), must: false, ...kind }))
    const plan = plans.autoregressive()
    const planSegment = plan.plan.bind(plan)
    let calls = 0
    plan.plan = (time, counts) => {
      calls++
      return planSegment(time, counts)
    }
    const answer = new Dp().solve(requests, 0, memory, plan, [0, 0])!
    expect(answer.profit).toBe(kinds.reduce((sum, { profit }) => sum + profit, 0))
    return calls
  }
  const twenty = (kindOf: (i: number) => { memory: number; profit: number }) =>
    Array.from({ length: 20 }, (_, i) => kindOf(i))

  test("one goes on: after n requests there are n + 1", () => {
    expect(planned(twenty(() => ({ memory: 5, profit: 2 })))).toBe(210)
  })

  test("the better one goes on, whether it was there first or comes later", () => {
    expect(planned(twenty((i) => ({ memory: 100 - i, profit: 2 })))).toBe(210)
    expect(planned(twenty((i) => ({ memory: 100 + i, profit: 2 })))).toBe(210)
    expect(planned(twenty((i) => ({ memory: 5, profit: 2 + i })))).toBe(210)
    expect(planned(twenty((i) => ({ memory: 5, profit: 30 - i })))).toBe(210)
  })

  test("all go on that are better in something, or of other tiers", () => {
    const powers = [1, 2, 4, 8].map((n) => ({ memory: n, profit: n }))
    expect(planned(powers)).toBe(15)
    const same = [1, 2, 3, 4].map(() => ({ memory: 5, profit: 2 }))
    expect(planned(same)).toBe(10)
    // One of each: with two tiers 1, 2, 4 and 6.
    expect(planned(same, 1e6, (i) => i % 2)).toBe(13)
  })

  test("what cannot come to more than was found is left", () => {
    // Memory for all: taking every request is found at once, and nothing else is looked at any more.
    const random = new Random("many", 1)
    const many = Array.from({ length: 24 }, () => ({
      memory: 1 + random.below(90),
      profit: 1 + random.below(90),
    }))
    expect(planned(many)).toBeLessThan(24 * 26)
  })
})

test("decodes that cannot go on leave nothing to choose", () => {
  const easy = { deadline: 1500, owed: 1, tier: 0, memory: 1, profit: 1, must: false }
  // 40 fit into a batch of 100.
  expect(new Dp().solve([easy], 0, 9, plans.autoregressive(), [39, 0])?.profit).toBe(1)
  expect(new Dp().solve([easy], 0, 9, plans.autoregressive(), [40, 0])?.profit).toBe(0)
  expect(new Dp().solve([easy], 0, 9, plans.autoregressive(), [41, 0])).toBeNull()
  expect(new Dp().solve([], 0, 9, plans.autoregressive(), [1, 2])).toEqual({
    steps: [],
    profit: 0,
    counts: [1, 2],
  })
})

test("nothing is taken that would make batches too short for what runs", () => {
  // 130 fit into a batch of 200, and not into one of 100.
  const tight = { deadline: 1500, owed: 5, tier: 0, memory: 1, profit: 1, must: false }
  const of = (tier: number) =>
    new Dp().solve([{ ...tight, tier }], 0, 9, plans.autoregressive(), [0, 130])!.profit
  expect([of(0), of(1)]).toEqual([0, 1])
})

test("time counts from now", () => {
  const later = { deadline: 1000, owed: 300, tier: 0, memory: 1, profit: 1, must: false }
  const of = (now: number) => new Dp().solve([later], now, 9, plans.autoregressive(), [0, 0])!
  expect(of(640).steps).toEqual([{ request: 0, from: 640, time: 360, option: 0 }])
  expect(of(641).steps).toEqual([])
})
