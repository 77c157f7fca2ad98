/** Messages of an engine as events of its core: which, and in which order. */
import { describe, expect, test } from "vitest"
import type { Event } from "../core/protocol.ts"
import { MessageError } from "../wire/messages.ts"
import { columnOf } from "../wire/planner/columns.ts"
import type { Landed, Ran, StepMessage } from "../wire/planner/messages.ts"
import { EngineEvents, type StepOf } from "./engine-events.ts"

function heard() {
  const events: (Event & { atUs: number })[] = []
  const scheduled: StepOf[] = []
  const unused: number[] = []
  const landed: number[] = []
  const engine = new EngineEvents({
    post: (event, atUs) => events.push({ ...event, atUs }),
    arrived: ({ id }, atUs) => events.push({ type: "arrived", request: { id } as never, atUs }),
    allArrived: () => {},
    scheduled: (of) => scheduled.push(of),
    unused: (batch) => unused.push(batch),
    landed: ({ batch }) => landed.push(batch),
  })
  let seq = 0
  const take = (changes: Partial<StepMessage> = {}) => {
    seq++
    const step: StepMessage = {
      ...{ type: "step", seq, nowUs: 1000 * seq, ran: null, landed: [], arrived: [] },
      ...changes,
    }
    engine.take(step)
    return events.splice(0)
  }
  const planned = (batch: number, ...ids: number[]) => engine.planned({ batch, ids: columnOf(ids) })
  return { planned, take, scheduled, unused, landed }
}

const exact = (batch: number): Ran => ({ batch, atUs: 900, exact: true })
const other = (batch: number, ...ids: number[]): Ran => ({
  ...{ batch, atUs: 900, exact: false, ids: columnOf(ids) },
  positions: columnOf(ids.map(() => 16)),
  tokens: columnOf(ids.map(() => 4)),
})
const landing = (step: number, ids: number[], changes: Partial<Landed> = {}): Landed => ({
  ...{ step, atUs: 1500, durationUs: 500, ids: columnOf(ids), produced: columnOf(ids.map(() => 1)) },
  ...changes,
})
const arrival = (id: number) => ({ id }) as StepMessage["arrived"][number]

describe("whose choice a step was", () => {
  test("the plan's, to the token: nothing is told", () => {
    const { planned, take, scheduled } = heard()
    planned(1)
    expect(take({ ran: exact(1) })).toEqual([])
    expect(scheduled).toEqual(["plan"])
  })
  test("the plan's, with changes: what ran", () => {
    const { planned, take, scheduled } = heard()
    planned(1)
    const items = [{ id: 7, position: 16, tokens: 4, draft: 0 }]
    expect(take({ ran: other(1, 7) })).toEqual([{ type: "ran", batch: 1, items, atUs: 900 }])
    expect(scheduled).toEqual(["changed"])
  })
  test("the engine's own: the plan never ran, and a batch without one did", () => {
    const { planned, take, scheduled, unused } = heard()
    planned(1)
    expect(take({ ran: other(0, 7), lost: columnOf([8]) })).toMatchObject([
      { type: "ran", batch: 1, items: [] },
      { type: "ran", batch: 0, items: [{ id: 7 }], preempted: [8] },
    ])
    expect(scheduled).toEqual(["engine"])
    expect(unused).toEqual([1])
    expect(take({ ran: other(0, 9) })).toMatchObject([{ type: "ran", batch: -1, items: [{ id: 9 }] }])
  })
  test("none: the plan never ran, or nothing of it could", () => {
    const { planned, take, scheduled, unused } = heard()
    planned(1)
    expect(take()).toEqual([{ type: "ran", batch: 1, items: [], atUs: 1000 }])
    planned(2)
    // What it evicts was given up before.
    expect(take({ ran: other(2) })).toEqual([{ type: "ran", batch: 2, items: [], evicted: true, atUs: 900 }])
    expect(scheduled).toEqual([])
    expect(unused).toEqual([1, 2])
    expect(take()).toEqual([])
  })
  test("a plan that was none, or an older one, is nonsense", () => {
    const { planned, take } = heard()
    planned(2)
    expect(() => take({ ran: exact(1) })).toThrow(MessageError)
  })
})

describe("in the order in which it happened", () => {
  test("what landed, what came, what left, what was scheduled", () => {
    const { planned, take } = heard()
    planned(1)
    take({ ran: exact(1) })
    planned(2)
    const events = take({
      ...{ landed: [landing(1, [5])], arrived: [arrival(6)], ready: columnOf([3]), cancelled: columnOf([5]) },
      ...{ ran: other(0, 6), lost: columnOf([4]) },
    })
    expect(events.map(({ type }) => type)).toEqual([
      ...["stepDone", "arrived", "grammarReady", "cancelled", "ran", "ran"],
    ])
  })
  test("an aborted request that its step does not name any more has left before it landed", () => {
    const { planned, take } = heard()
    planned(1)
    take({ ran: exact(1) })
    const events = take({ landed: [landing(1, [5])], cancelled: columnOf([4, 5]) })
    expect(events.map((event) => [event.type, "id" in event ? event.id : 0, event.atUs])).toEqual([
      ["cancelled", 4, 1500],
      ["stepDone", 0, 1500],
      ["cancelled", 5, 2000],
    ])
  })
  test("KV that went with a plan that ran is told by itself", () => {
    const { planned, take } = heard()
    planned(1)
    expect(take({ ran: exact(1), lost: columnOf([4]) })).toMatchObject([{ type: "kvLost", ids: [4] }])
  })
})

describe("what landed", () => {
  test("is told of its batch, with all that it says", () => {
    const { planned, take, landed } = heard()
    planned(3)
    take({ ran: exact(3) })
    const says = {
      ...{ produced: columnOf([2, 0]), computed: columnOf([40, 8]), drafted: columnOf([3, 0]) },
      ...{ stopped: columnOf([5]), preempted: columnOf([6]), answeringFrom: columnOf([1, -1]) },
      ...{ filledIds: columnOf([5, 5]), filledHashes: columnOf([11, 12]) },
    }
    expect(take({ landed: [landing(1, [5, 6], says)] })).toEqual([
      {
        ...{ type: "stepDone", batch: 3, durationUs: 500, atUs: 1500 },
        results: [
          { id: 5, tokens: 2, stopped: true, answeringFrom: 1, drafted: 3, computed: 40, prefix: [11, 12] },
          { id: 6, tokens: 0, stopped: false, answeringFrom: -1, drafted: 0, computed: 8 },
        ],
      },
      { type: "kvLost", ids: [6], atUs: 1500 },
    ])
    expect(landed).toEqual([3])
  })
  test("as it nearly always is: a token of each request that ran", () => {
    const { planned, take } = heard()
    planned(3, 5, 6)
    take({ ran: exact(3) })
    const usual = { atUs: 1500, durationUs: 500 }
    const [done, ...others] = take({
      landed: [{ step: 1, ...usual, stopped: columnOf([6]) }],
      ran: other(0, 7),
    })
    expect(done).toMatchObject({
      results: [
        { id: 5, tokens: 1, stopped: false },
        { id: 6, tokens: 1, stopped: true },
      ],
    })
    expect(others).toHaveLength(1)
    expect(take({ landed: [{ step: 2, ...usual }] })).toMatchObject([{ results: [{ id: 7, tokens: 1 }] }])
  })
  test("as it nearly always is, of a request that is aborted at once: its token came before", () => {
    const { planned, take } = heard()
    planned(3, 5)
    take({ ran: exact(3) })
    const events = take({ landed: [{ step: 1, atUs: 1500, durationUs: 500 }], cancelled: columnOf([5]) })
    expect(events.map(({ type }) => type)).toEqual(["stepDone", "cancelled"])
  })
  test("twice, or never was, is nonsense", () => {
    const { planned, take } = heard()
    planned(1)
    take({ ran: exact(1) })
    take({ landed: [landing(1, [5])] })
    expect(() => take({ landed: [landing(1, [5])] })).toThrow("step 1 is not in flight")
    expect(() => take({ landed: [landing(9, [5])] })).toThrow("step 9 is not in flight")
  })
  test("before an older step: that one is given up, and those behind are not", () => {
    const { planned, take, unused, landed } = heard()
    for (const batch of [1, 2, 3]) {
      planned(batch)
      take({ ran: exact(batch) })
    }
    const events = take({ landed: [landing(2, [5])] })
    expect(events).toMatchObject([
      { type: "ran", batch: 1, items: [] },
      { type: "stepDone", batch: 2 },
    ])
    expect(unused).toEqual([1])
    take({ landed: [landing(3, [5])] })
    expect(landed).toEqual([2, 3])
  })
})

test("messages count up", () => {
  const { take } = heard()
  take({ seq: 5 })
  expect(() => take({ seq: 5 })).toThrow("step 5 after step 5")
  expect(() => take({ seq: 4 })).toThrow("step 4 after step 5")
})
