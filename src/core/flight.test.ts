/** Batches in the air. */
import { describe, expect, test } from "vitest"
import { Flight } from "./flight.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import type { Batch } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"
import { contextOf, liveOf } from "./testing.ts"

/** A batch with the prefills of requests 1 and 4: 100 tokens, 5 ms and 0.1 ms a token. */
function airborne(): Flight {
  const built = new BatchBuilder(contextOf())
  for (const id of [1, 4]) built.prefill(liveOf(id, { promptTokens: 50 }), 50)
  const batch: Batch = { number: 3, items: built.items, evict: [], release: [], predictedUs: 17_000 }
  const flight = new Flight()
  flight.takeOff(batch, built, 1_000_000)
  return flight
}

test("knows what it carries, how long it should take and when it should land", () => {
  const flight = airborne()
  expect(flight.up).toBe(true)
  expect(flight.batches[0]!.requests.map((request) => request!.id)).toEqual([1, 4])
  expect([1, 2, 4].map((id) => flight.carries(id))).toEqual([true, false, true])
  expect(flight.batches[0]).toMatchObject({
    kind: "mixed",
    shape: { tokens: 100, sequences: 2 },
    endsUs: 1_017_000,
  })
})

test("lands once, as the batch that it is", () => {
  const flight = airborne()
  expect(() => flight.land(2, 0)).toThrow("not in flight")
  const landed = flight.land(3, 1_020_000)
  expect(landed.number).toBe(3)
  expect(flight.up).toBe(false)
  expect(flight.carries(1)).toBe(false)
  // Results are still to be matched with whose they are.
  expect(landed.requests.map((request) => request!.id)).toEqual([1, 4])
  expect(() => flight.land(3, 0)).toThrow("not in flight")
})

test("tells once which requests left, when nothing in flight carries them: but for those that came back", () => {
  const flight = airborne()
  expect(flight.takeLeft()).toEqual([])
  for (const id of [1, 2, 3]) flight.left(id)
  flight.cameBack(2)
  expect(flight.takeLeft()).toEqual([3])
  expect(flight.takeLeft()).toEqual([])
  flight.land(3, 1_020_000)
  expect(flight.takeLeft()).toEqual([1])
  expect(flight.takeLeft()).toEqual([])
})

/** Three batches in the air, of 17, 10 and 20 ms: request 1 in all of them, 4 in the first. */
function three(): Flight {
  const flight = airborne()
  const request = flight.batches[0]!.requests[0]!
  for (const [number, predictedUs] of [
    [4, 10_000],
    [5, 20_000],
  ] as const) {
    const built = new BatchBuilder(contextOf())
    const item = { id: 1, position: 50, tokens: 1, sample: true, draft: 0 }
    built.items.push(item)
    built.requests.push(request)
    flight.takeOff({ number, items: [item], evict: [], release: [], predictedUs }, built, 1_001_000)
  }
  return flight
}
const endsOf = (flight: Flight) => flight.batches.map(({ number, endsUs }) => [number, endsUs / 1000])

test("each begins when the one before it should be over, or is", () => {
  const flight = three()
  expect(endsOf(flight)).toEqual([
    [3, 1017],
    [4, 1027],
    [5, 1047],
  ])
  expect([flight.clearUs(0), flight.clearUs(1_050_000)]).toEqual([1_047_000, 1_050_000])
  flight.land(3, 1_020_000)
  expect(endsOf(flight)).toEqual([
    [4, 1030],
    [5, 1050],
  ])
  flight.retime(flight.batch(4), 40_000)
  expect(endsOf(flight)).toEqual([
    [4, 1060],
    [5, 1080],
  ])
  flight.cancel(flight.batch(4))
  expect(endsOf(flight)).toEqual([[5, 1040]])
})

test("counts in how many a request is", () => {
  const flight = three()
  const [one, four] = flight.batches[0]!.requests
  expect([one!.inAir, four!.inAir]).toEqual([3, 1])
  flight.land(3, 0)
  flight.cancel(flight.batch(5))
  expect([one!.inAir, four!.inAir]).toEqual([1, 0])
})

test("what is written off is lost in every batch that carries it", () => {
  const flight = three()
  flight.writeOff(1)
  expect(flight.batches.map(({ preemptions }) => preemptions)).toEqual([[-1, 0], [-1], [-1]])
})

describe("room that the others in flight take", () => {
  /** Request 1 in batches of these items: from where on, and how many tokens. */
  function flightWith(...items: [position: number, tokens: number, draft?: number][]): Flight {
    const flight = new Flight()
    const request = liveOf(1)
    for (const [at, [position, tokens, draft = 0]] of items.entries()) {
      const built = new BatchBuilder(contextOf())
      const item = { id: 1, position, tokens, sample: true, draft }
      built.items.push(item)
      built.requests.push(request)
      const batch = { number: at + 1, items: [item], evict: [], release: [], predictedUs: 1000 }
      flight.takeOff(batch, built, 0)
    }
    return flight
  }
  const reach = (flight: Flight, number: number, end?: number) =>
    flight.reachWithout(flight.batch(number), new Map(end === undefined ? [] : [[1, end]])).get(1)

  test("is as much as the furthest of them", () => {
    expect(reach(flightWith([0, 30], [30, 1, 3], [34, 1]), 1, 30)).toBe(35)
    expect(reach(flightWith([0, 30], [30, 1, 3]), 2, 34)).toBe(30)
  })

  test("goes on from where the engine is, where they were planned further on", () => {
    expect(reach(flightWith([64, 20], [84, 1], [85, 1]), 1, 20)).toBe(22)
    expect(reach(flightWith([64, 20], [84, 1, 4], [89, 1]), 1, 20)).toBe(26)
  })

  test("and from where they begin, where they were planned when that was known", () => {
    expect(reach(flightWith([64, 20], [84, 1], [21, 40]), 1, 20)).toBe(61)
  })

  test("of what did not run, goes on from where it was to begin, or is", () => {
    expect(reach(flightWith([64, 20], [84, 1]), 1)).toBe(65)
    expect(reach(flightWith([0, 20], [84, 5], [89, 1]), 2)).toBe(21)
  })

  /** Blocks that each batch takes, after what ran in batch `number` ended with room for `end` tokens. */
  const taken = (flight: Flight, number: number, end: number, computed = 0) => {
    const batch = flight.batch(number)
    flight.takesFrom(batch, { ...batch.requests[0]!, id: 1, computed } as LiveRequest, end, 16)
    return flight.batches.map(({ tookTokens }) => tookTokens / 16)
  }

  test("is taken by each from where it really begins, which may be a block more or less than planned", () => {
    expect(taken(flightWith([64, 20], [84, 8], [92, 4]), 1, 30)).toEqual([0, 1, 0])
    expect(taken(flightWith([64, 16], [80, 8], [88, 4]), 1, 20)).toEqual([0, -1, 0])
    expect(taken(flightWith([64, 20], [84, 4, 4], [92, 1]), 1, 28)).toEqual([0, 1, 0])
    // By what is in place, and what those before it take, where that is more.
    expect(taken(flightWith([64, 20], [84, 8]), 1, 20, 30)).toEqual([0, 1])
    expect(taken(flightWith([20, 10], [64, 20], [84, 8]), 2, 20)).toEqual([0, 0, 1])
    // What was planned when that was known begins there.
    expect(taken(flightWith([64, 20], [84, 1], [21, 40]), 1, 20)).toEqual([0, 0, 0])
  })

  test("is counted anew each time that something ran otherwise", () => {
    const flight = flightWith([64, 20], [84, 8], [92, 4])
    expect(taken(flight, 1, 30)).toEqual([0, 1, 0])
    flight.batches[0]!.items = [{ id: 1, position: 10, tokens: 20, sample: true, draft: 0 }]
    expect(taken(flight, 2, 46)).toEqual([0, 1, 1])
    expect(taken(flight, 2, 46)).toEqual([0, 1, 1])
    expect(taken(flight, 2, 34)).toEqual([0, 1, 0])
  })

  test("is as planned of others, and of what has lost its KV since", () => {
    const flight = flightWith([64, 20], [84, 8])
    flight.batches[1]!.preemptions[0] = -1
    expect(taken(flight, 1, 30)).toEqual([0, 0])
    const others = flightWith([64, 20], [84, 8])
    others.batches[1]!.items = [{ id: 2, position: 84, tokens: 8, sample: true, draft: 0 }]
    expect(taken(others, 1, 30)).toEqual([0, 0])
  })

  test("is none of what has lost its KV since", () => {
    const flight = flightWith([0, 30], [30, 1])
    flight.writeOff(1)
    expect(reach(flight, 1, 30)).toBeUndefined()
  })
})

test("a batch frees no more than there is of what it drops, and so takes more", () => {
  const flight = three()
  const dropped = new Map([
    [7, 5],
    [8, 2],
  ])
  Object.assign(flight.batch(4), { dropped, tookTokens: -112 })
  flight.freesLess(9, 3, 16)
  flight.freesLess(7, 2, 16)
  expect([flight.batch(4).tookTokens, dropped.get(7)]).toEqual([-80, 3])
  flight.freesLess(7, 9, 16)
  expect([flight.batch(4).tookTokens, dropped.get(7), dropped.get(8)]).toEqual([-32, 0, 2])
})
