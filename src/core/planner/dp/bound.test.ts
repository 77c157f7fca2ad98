/** What a partial set may still gain, by memory and by tokens: never less than it can, and no more than it must. */
import { describe, expect, test } from "vitest"
import { Hope } from "./bound.ts"
import type { DpRequest } from "./request.ts"
import { AutoregressiveSegments, BatchTime } from "./segment.ts"

/** A token a unit of time, in batches of any size. */
const plan = new AutoregressiveSegments(new BatchTime([{ k1: 1, k2: 0, b: 0 }], 1e9), [10, 20])
const END = 1000
const request = (changes: Partial<DpRequest>): DpRequest => ({
  ...{ deadline: END, owed: 0, tier: 0, memory: 0, profit: 1, must: false },
  ...changes,
})

interface State {
  place?: number
  at?: number
  leftover?: number
  memory?: number
  counts?: number[]
}

function hopeOf(requests: DpRequest[], freeMemory: number, hope = new Hope()) {
  const order = requests.map((_, i) => i).sort((a, b) => requests[a]!.deadline - requests[b]!.deadline)
  hope.reset(requests, order, freeMemory, plan)
  return ({ place = -1, at = 0, leftover = 0, memory = 0, counts = [0, 0] }: State = {}) =>
    hope.after(place, at, leftover, memory, counts)
}

describe("by memory", () => {
  // Worth 0.5, 0.25 and 0.2 a unit, not in this order.
  const three = [
    request({ memory: 20, profit: 5 }),
    request({ memory: 5, profit: 1 }),
    request({ memory: 10, profit: 5 }),
  ]

  test("the most worth a unit come first, the last one in part", () => {
    const hope = hopeOf(three, 40)
    const free = (tokens: number) => hope({ memory: 40 - tokens })
    expect([0, 9, 10, 12, 30, 32.5, 35, 40].map(free)).toEqual([0, 4.5, 5, 5.5, 10, 10.5, 11, 11])
  })

  test("only those count that are not decided yet", () => {
    const hope = hopeOf(three, 40)
    expect([-1, 0, 1, 2].map((place) => hope({ place }))).toEqual([11, 6, 5, 0])
    // Asked again, of another place in between.
    expect([1, 0, -1].map((place) => hope({ place, memory: 30 }))).toEqual([5, 5, 5])
    expect(hope({ place: 0, memory: 35 })).toBe(2.5)
  })

  test("what must be kept is no gain, nor is what is worth nothing", () => {
    const others = [request({ must: true, profit: 100, memory: 1 }), request({ profit: 0, memory: 1 })]
    const hope = hopeOf([...others, ...three], 40)
    expect([0, 12, 40].map((tokens) => hope({ memory: 40 - tokens }))).toEqual([0, 5.5, 11])
    expect(hopeOf([request({ profit: 0 })], 40)()).toBe(0)
  })

  test("of none there is none", () => {
    expect(hopeOf([], 40)()).toBe(0)
  })

  test("a second instance is its own, larger or smaller", () => {
    const hope = new Hope()
    for (const [requests, most] of [
      [three.slice(0, 1), 5],
      [three, 11],
      [three.slice(1, 2), 1],
      [[...three, ...three], 15],
    ] as const)
      expect(hopeOf([...requests], 40, hope)()).toBe(most)
  })
})

describe("by the tokens until the last deadline", () => {
  const owed = (tokens: number, changes: Partial<DpRequest> = {}) =>
    request({ owed: tokens, profit: 2, ...changes })

  test("those left over, and what can be computed until then", () => {
    // One token more, for rounding.
    const hope = hopeOf([owed(200)], 0)
    expect(hope({ at: 900, leftover: 99 })).toBe(2)
    expect(hope({ at: 900, leftover: 49 })).toBe(1.5)
    expect(hope({ at: 1000, leftover: 49 })).toBe(0.5)
    expect(hope({ at: 1100, leftover: 49 })).toBe(0.5)
  })

  test("less what the decodes take at their pace", () => {
    const hope = hopeOf([owed(200)], 0)
    // Three of ten and two of twenty units a token leave 0.6 of a token.
    expect(hope({ at: 900, leftover: 39, counts: [3, 2] })).toBeCloseTo(1)
    expect(hope({ at: 900, leftover: 39, counts: [0, 2] })).toBeCloseTo(1.3)
    // More than there is time for.
    expect(hope({ at: 900, leftover: 39, counts: [20, 0] })).toBeCloseTo(0.4)
  })

  test("a request that is done before then decodes until then", () => {
    for (const [tier, cost] of [
      [0, 140],
      [1, 120],
    ] as const) {
      // The other, which must be kept, only says when the end is.
      const hope = hopeOf([owed(100, { deadline: 600, tier }), request({ must: true })], 0)
      expect(hope({ at: END, leftover: cost - 1 })).toBe(2)
      expect(hope({ at: END, leftover: cost / 2 - 1 })).toBe(1)
    }
  })

  test("the least tokens for their worth come first", () => {
    const hope = hopeOf([owed(100, { profit: 3 }), owed(50, { profit: 2 })], 0)
    expect([49, 99, 149].map((leftover) => hope({ at: END, leftover }))).toEqual([2, 3.5, 5])
  })
})

test("the tighter of the two counts", () => {
  const hope = hopeOf([request({ owed: 100, memory: 10, profit: 4 })], 10)
  expect(hope({ at: END, leftover: 24, memory: 0 })).toBe(1)
  expect(hope({ at: END, leftover: 99, memory: 8 })).toBeCloseTo(0.8)
})
