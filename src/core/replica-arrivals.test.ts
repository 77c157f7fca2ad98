/** How requests arrive at a replica, in what order, and when they are due. */
import { describe, expect, test } from "vitest"
import type { Policy } from "./policy/policy.ts"
import { eventRank } from "./replica.ts"
import { Played } from "./replica-testing.ts"
import { LIMITS, specOf } from "./testing.ts"

test("simultaneous events: results, then cancellations, arrivals, timers", () => {
  const [done, cancelled, arrived, woke] = [
    eventRank({ type: "stepDone", batch: 1, durationUs: 1, results: [] }),
    eventRank({ type: "cancelled", id: 1 }),
    eventRank({ type: "arrived", request: specOf(1) }),
    eventRank({ type: "woke" }),
  ]
  expect(eventRank({ type: "stepFailed", batch: 1, reason: "kvFull" })).toBe(done)
  expect(done).toBeLessThan(cancelled)
  expect(cancelled).toBeLessThan(arrived)
  expect(arrived).toBeLessThan(woke)
})

describe("arrivals", () => {
  test("that could never be held are refused, those that just fit are not", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 1000, maxOutputTokens: 24 })
    played.arrives(2, { promptTokens: 1000, maxOutputTokens: 25 })
    played.poll()
    expect(played.of("rejected")).toEqual([{ type: "rejected", id: 2, reason: "promptTooLong" }])
    // The KV is the limit where it is smaller than the context.
    const small = new Played({ limits: { ...LIMITS, kvTokens: 512 } })
    small.arrives(1, { promptTokens: 500, maxOutputTokens: 12 })
    small.arrives(2, { promptTokens: 500, maxOutputTokens: 13 })
    small.poll()
    expect(small.of("rejected").map(({ id }) => id)).toEqual([2])
  })

  test("past the queue are refused, but not what was accepted once", () => {
    const played = new Played({ maxQueue: 2 })
    const other = new Played()
    other.arrives(5)
    const { progress } = other.replica.withdraw(5)!
    for (const id of [1, 2, 3]) played.arrives(id)
    played.arrives(5, {}, progress)
    played.arrives(6, { promptTokens: 2000 }, progress)
    played.poll()
    expect(played.of("rejected").map(({ id, reason }) => [id, reason])).toEqual([
      [3, "queueFull"],
      [6, "promptTooLong"],
    ])
    expect(played.replica.snapshot(0).waiting + played.replica.snapshot(0).running).toBe(3)
  })

  test("are wrong calls when they came before or have nothing to compute", () => {
    const played = new Played()
    played.arrives(1)
    expect(() => played.arrives(1)).toThrow("arrived twice")
    expect(() => played.arrives(2, { promptTokens: 0 })).toThrow("nothing to compute")
    expect(() => played.arrives(2, { maxOutputTokens: 0 })).toThrow("nothing to compute")
    played.arrives(2, { promptTokens: 1, maxOutputTokens: 1 })
    expect(played.step().items).toHaveLength(2)
  })

  test("of one moment keep their order", () => {
    const seen: number[][] = []
    const policy = (): Policy => ({
      name: "spy",
      decide: (requests) => void seen.push(requests.map(({ order }) => order)),
    })
    const played = new Played({ policy })
    for (const id of [8, 3, 5]) played.arrives(id)
    expect(played.poll()).toEqual([])
    expect(seen).toEqual([[0, 1, 2]])
  })

  test("with a slowdown are due after so many prefill times, 100 ms at least", () => {
    const played = new Played()
    const slo = { ttftUs: 0, ttftSlowdown: 5, maxGapUs: Infinity, tpotUs: 1e6, thinkingTpotUs: 1e6 }
    expect(played.replica.zeroLoadPrefillUs(600)).toBe(70_000)
    played.arrives(1, { promptTokens: 600, slo, maxOutputTokens: 1 })
    played.arrives(2, { promptTokens: 100, slo, maxOutputTokens: 1 })
    played.step()
    played.step()
    played.poll()
    expect(played.of("finished").map(({ id, outcome }) => [id, outcome.ttftUs])).toEqual([
      [1, 350_000],
      [2, 100_000],
    ])
  })

  test("with a slowdown are due after multiples of what prefills take here, if the profile is far off", () => {
    const slo = { ttftUs: 0, ttftSlowdown: 5, maxGapUs: Infinity, tpotUs: 1e6, thinkingTpotUs: 1e6 }
    const asked = { promptTokens: 600, slo, maxOutputTokens: 1 }
    const due = (id: number, factor: number, arrivals: number) => {
      const played = new Played()
      for (let n = 0; n < arrivals; n++) {
        played.arrives(id + n, asked)
        for (let batch = played.runs(); ; batch = played.runs()) {
          played.done(batch, {}, Math.round(batch.predictedUs * factor))
          if (batch.items[0]!.sample) break
        }
        played.poll()
      }
      return played.of("finished").map(({ outcome }) => outcome.ttftUs)
    }
    // 70 ms by the profile. All its steps together took a tenth of what was predicted: the next prompt knows.
    const [first, second] = due(1, 0.1, 2)
    expect(first).toBe(350_000)
    expect(second).toBe(100_000)
    // Ten times: believed after three with the engine to themselves.
    expect(due(1, 10, 4)[2]).toBe(350_000)
    expect(due(1, 10, 4)[3]).toBeGreaterThan(2_000_000)
    // Somewhat off is somewhat off: the calibration's business, not that of objectives.
    expect(due(1, 1.4, 5)).toEqual([350_000, 350_000, 350_000, 350_000, 350_000])
  })
})
