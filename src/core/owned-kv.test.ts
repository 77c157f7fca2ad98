/** An engine that owns its KV: the core believes what it says. */
import { describe, expect, test } from "vitest"
import type { Ran, RanItem } from "./protocol.ts"
import type { ReplicaConfig } from "./replica.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

const owned = (config: Partial<ReplicaConfig> = {}) =>
  new Played({ depth: 2, engineOwnsKv: true, limits: { ...LIMITS, minChunkTokens: 1 }, ...config })
const item = (id: number, position: number, tokens: number, draft = 0): RanItem => ({
  ...{ id, position, tokens, draft },
})
const tell = (played: Played, ran: Omit<Ran, "type">) =>
  played.replica.handle({ type: "ran", ...ran }, played.nowUs)
const nothing = { tokens: 0 }

describe("what ran in place of a plan", () => {
  test("an item that is shorter than planned goes on from where it is", () => {
    const played = owned()
    played.arrives(1)
    const first = played.runs()
    tell(played, { batch: first.number, items: [item(1, 0, 60)] })
    const second = played.runs()
    expect(second.items).toMatchObject([{ position: 60, tokens: 40, sample: true }])
    played.done(first, { 1: nothing })
    played.done(second)
    played.poll()
    expect(played.of("token")).toHaveLength(1)
    expect(played.of("run").at(-1)!.batch.items).toMatchObject([{ position: 100, tokens: 1 }])
  })

  test("the plan itself, said again, changes nothing", () => {
    const [told, untold] = [owned(), owned()]
    for (const played of [told, untold]) played.arrives(1)
    const [first, same] = [told.runs(), untold.runs()]
    tell(told, { batch: first.number, items: first.items })
    expect(told.runs()).toEqual(untold.runs())
    for (const [played, batch] of [
      [told, first],
      [untold, same],
    ] as const)
      played.done(batch)
    expect(told.runs()).toEqual(untold.runs())
  })

  test("a prefix that the engine has less of is computed from where it ends", () => {
    const played = owned({ depth: 1 })
    const prefix = [1, 2, 3, 4, 5, 6]
    played.arrives(1, { prefix, maxOutputTokens: 1 })
    played.step()
    played.arrives(2, { prefix })
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ id: 2, position: 96, tokens: 4 }])
    tell(played, { batch: batch.number, items: [item(2, 32, 4)] })
    played.done(batch, { 2: nothing })
    const next = played.runs()
    expect(next.items).toMatchObject([{ id: 2, position: 36, tokens: 64, sample: true }])
    played.done(next)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2])
  })

  test("a prefix that the engine has more of is not computed again", () => {
    const played = owned({ depth: 1 })
    played.arrives(1)
    const batch = played.runs()
    tell(played, { batch: batch.number, items: [item(1, 48, 20)] })
    played.done(batch, { 1: nothing })
    played.poll()
    expect(played.replica.snapshot(0).kvUsedTokens).toBeGreaterThanOrEqual(68)
    expect(played.of("run").at(-1)!.batch.items).toMatchObject([{ position: 68, tokens: 32 }])
  })

  test("an item that did not run is planned again", () => {
    const played = owned()
    for (const id of [1, 2]) played.arrives(id)
    const first = played.runs()
    expect(aboard(first)).toEqual([1, 2])
    tell(played, { batch: first.number, items: [item(1, 0, 100)] })
    const second = played.runs()
    expect(second.items).toMatchObject([
      { id: 1, position: 100 },
      { id: 2, position: 0, tokens: 100 },
    ])
    played.done(first, { 2: nothing })
    played.done(second)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 1, 2])
  })

  test("a request that is taken aboard without a plan is one of the batch", () => {
    const played = owned({ depth: 1, options: { tokenBudget: 100 } })
    for (const id of [1, 2]) played.arrives(id)
    const batch = played.runs()
    expect(aboard(batch)).toEqual([1])
    tell(played, { batch: batch.number, items: [item(1, 0, 100), item(2, 0, 100)] })
    const results = [1, 2].map((id) => ({ id, tokens: 1, stopped: false, answeringFrom: -1 }))
    played.replica.handle({ type: "stepDone", batch: batch.number, durationUs: 1, results }, 1)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2])
  })

  test("a batch that never ran leaves everything as it was, and its evictions are still to be made", () => {
    const played = owned({ limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second] = [played.runs(), played.runs()]
    played.done(first)
    const third = played.runs()
    expect(third.evict).toEqual([2])
    tell(played, { batch: third.number, items: [] })
    const again = played.runs()
    expect(again.evict).toEqual([2])
    expect(again.items).toMatchObject([{ id: 1, position: 48, tokens: 1 }])
    played.done(second)
    expect(() => played.done(third)).toThrow("not in flight")
  })

  test("a batch of which nothing ran but its evictions leaves none to be made, and what they freed is free once", () => {
    const played = owned({ limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second] = [played.runs(), played.runs()]
    played.done(first)
    const third = played.runs()
    expect(third.evict).toEqual([2])
    tell(played, { batch: third.number, items: [], evicted: true })
    // Of its eight blocks request 1 has three.
    played.replica.handle({ type: "kvFree", tokens: 80 }, played.nowUs)
    expect(played.replica.freeKvTokens).toBe(80)
    expect(played.runs()).toMatchObject({ evict: [], items: [{ id: 1, position: 48, tokens: 1 }] })
    played.done(second)
  })

  test("the room that a batch was to take for a running request is free when it never ran", () => {
    const played = owned({ depth: 1 })
    const used = () => played.replica.snapshot(0).kvUsedTokens
    played.arrives(1, { promptTokens: 6 * LIMITS.blockTokens })
    played.step()
    const before = used()
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ id: 1, position: 6 * LIMITS.blockTokens, tokens: 1 }])
    expect(used()).toBe(before + LIMITS.blockTokens)
    tell(played, { batch: batch.number, items: [] })
    expect(used()).toBe(before)
    // And is taken anew.
    played.done(played.runs())
    expect(used()).toBe(before + LIMITS.blockTokens)
  })

  /** Its third batch is in the air, planned as if the drafts of the second were accepted: a block further than it comes. */
  function refused() {
    const played = owned({ depth: 3 })
    played.arrives(1, { promptTokens: 27 })
    const first = played.runs()
    tell(played, { batch: first.number, items: first.items })
    const second = played.runs()
    tell(played, { batch: second.number, items: [item(1, 27, 1, 4)] })
    const third = played.runs()
    expect(third.items).toMatchObject([{ position: 32, tokens: 1 }])
    played.done(first)
    played.done(second)
    return { played, third: third.number, used: () => played.replica.snapshot(0).kvUsedTokens }
  }

  test("an item that begins further back than planned has room up to its own end", () => {
    const { played, third, used } = refused()
    tell(played, { batch: third, items: [item(1, 28, 1)] })
    expect(used()).toBe(2 * LIMITS.blockTokens)
    played.replica.check()
  })

  test("a batch that never ran, planned as if drafts were accepted that were not, has taken no room", () => {
    const { played, third, used } = refused()
    tell(played, { batch: third, items: [] })
    expect(used()).toBe(2 * LIMITS.blockTokens)
    expect(played.runs().items).toMatchObject([{ position: 28, tokens: 1 }])
  })

  test("a request whose eviction never ran, and that starts afresh in the next batch, is evicted for it", () => {
    const played = owned({ limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second] = [played.runs(), played.runs()]
    played.done(first)
    const third = played.runs()
    expect(third.evict).toEqual([2])
    tell(played, { batch: third.number, items: [] })
    played.done(second)
    played.cancels(1)
    expect(played.runs()).toMatchObject({ evict: [2], items: [{ id: 2, position: 0 }] })
    expect(played.runs().evict).toEqual([])
  })

  test("a request that was to start in a batch that never ran has not started", () => {
    const played = owned({ depth: 1 })
    played.arrives(1)
    const first = played.runs()
    tell(played, { batch: first.number, items: [] })
    expect(played.replica.startOf(1)).toBeNull()
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(0)
    const again = played.runs()
    expect(again).toMatchObject({ evict: [], items: [{ position: 0, tokens: 100 }] })
  })
})

describe("what an engine does by itself", () => {
  test("a batch without a plan counts as one in flight, and yields tokens", () => {
    const played = owned()
    played.arrives(1)
    tell(played, { batch: -1, items: [item(1, 0, 100)] })
    const next = played.runs()
    expect(next.items).toMatchObject([{ id: 1, position: 100, tokens: 1 }])
    expect(played.poll().some(({ type }) => type === "run")).toBe(false)
    const results = [{ id: 1, tokens: 1, stopped: false, answeringFrom: -1 }]
    played.replica.handle({ type: "stepDone", batch: -1, durationUs: 15_000, results }, 15_000)
    played.poll()
    expect(played.of("token")).toMatchObject([{ id: 1, count: 1 }])
  })

  test("what it preempts is computed anew, after its tokens in the air are known", () => {
    const played = owned()
    for (const id of [1, 2]) played.arrives(id)
    const [first, second] = [played.runs(), played.runs()]
    tell(played, { batch: second.number, items: [item(1, 100, 1)], preempted: [2] })
    expect(played.poll().map(({ type }) => type)).toEqual(["preempted"])
    played.done(first)
    const third = played.runs()
    expect(third.evict).toEqual([])
    expect(third.items).toMatchObject([
      { id: 1, position: 101, tokens: 1 },
      { id: 2, position: 0, tokens: 101 },
    ])
  })

  test("KV that is in place after a step counts as the engine says", () => {
    const played = owned({ depth: 1 })
    played.arrives(1)
    played.step({ 1: { computed: 80 } })
    expect(played.runs().items).toMatchObject([{ position: 80, tokens: 21, sample: true }])
  })

  test("a step that yields no token, or more than was planned, is no error; nor is a request that may produce no more", () => {
    const played = owned({ depth: 1 })
    played.arrives(1, { maxOutputTokens: 3 })
    played.step({ 1: nothing })
    expect(played.of("token")).toEqual([])
    const next = played.runs()
    expect(next.items).toMatchObject([{ position: 99, tokens: 1, sample: true }])
    played.done(next, { 1: { tokens: 7 } })
    played.poll()
    expect(played.of("finished")).toMatchObject([{ reason: "length", outcome: { outputTokens: 3 } }])
  })

  test("KV that it lost is computed anew, without an order to drop it", () => {
    const played = owned({ depth: 1 })
    played.arrives(1)
    played.step()
    played.replica.handle({ type: "kvLost", ids: [1, 99] }, played.nowUs)
    const batch = played.runs()
    expect(batch).toMatchObject({ evict: [], items: [{ position: 0, tokens: 101 }] })
    expect(played.of("preempted")).toMatchObject([{ id: 1 }])
  })

  test("a prefix cache that was emptied is shared no more", () => {
    const played = owned({ depth: 1 })
    const prefix = [1, 2, 3]
    played.arrives(1, { prefix, maxOutputTokens: 1 })
    played.step()
    played.replica.handle({ type: "kvLost", ids: [], cached: true }, played.nowUs)
    played.arrives(2, { prefix })
    expect(played.runs().items).toMatchObject([{ id: 2, position: 0, tokens: 100 }])
  })
})

describe("what it counts as free", () => {
  const free = (played: Played, tokens: number, batch?: number) =>
    played.replica.handle({ type: "kvFree", tokens, ...(batch !== undefined && { batch }) }, played.nowUs)

  test("is all that the next plan takes", () => {
    const played = owned({ depth: 1, limits: { ...LIMITS, kvTokens: 512, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 100 })
    played.step()
    played.arrives(2, { promptTokens: 300 })
    free(played, 40)
    expect(played.runs().items).toMatchObject([
      { id: 1, position: 100, tokens: 1 },
      { id: 2, position: 0, tokens: 32 },
    ])
  })

  test("holds until it goes on: then the core counts by itself again", () => {
    const played = owned({ limits: { ...LIMITS, kvTokens: 512, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 100 })
    const first = played.runs()
    played.arrives(2, { promptTokens: 300 })
    free(played, 40)
    tell(played, { batch: first.number, items: first.items })
    expect(aboard(played.runs())).toEqual([1, 2])
    expect(played.of("run").at(-1)!.batch.items[1]!.tokens).toBe(300)
  })

  test("is less by what plans have taken that it had not scheduled when it counted", () => {
    const played = owned({ depth: 3, limits: { ...LIMITS, kvTokens: 512, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 100 })
    const first = played.runs()
    played.arrives(2, { promptTokens: 32, maxOutputTokens: 1 })
    expect(aboard(played.runs())).toEqual([1, 2])
    played.arrives(3, { promptTokens: 300 })
    free(played, 64, first.number)
    expect(played.runs().items).toMatchObject([{ id: 1 }, { id: 3, position: 0, tokens: 32 }])
  })

  test("is not to be more by what a plan evicts of a request that has ended since: that is among it", () => {
    const played = owned({ depth: 3, limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second, third] = [played.runs(), played.runs(), played.runs()]
    expect(third).toMatchObject({ evict: [2], items: [{ id: 1, position: 48 }] })
    free(played, 0, first.number)
    played.cancels(2)
    played.done(first)
    // Four of the five blocks that are accounted for, one of which the third batch takes.
    free(played, 64, second.number)
    played.arrives(3, { promptTokens: 100, maxOutputTokens: 9 })
    expect(played.runs().items).toMatchObject([{ id: 1 }, { id: 3, position: 0, tokens: 48 }])
  })

  test("has what an ended request had in it: a prefix of that takes room again", () => {
    const played = owned({ limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 50, prefix: [1, 2, 3] })
    const [first, second] = [played.runs(), played.runs()]
    expect(aboard(second)).toEqual([1])
    free(played, 80, first.number)
    played.done(first, { 1: { stopped: true } })
    free(played, 64, second.number)
    played.arrives(2, { promptTokens: 90, maxOutputTokens: 9, prefix: [1, 2, 3] })
    expect(played.runs().items).toMatchObject([{ id: 2, position: 48, tokens: 16 }])
  })

  test("also a prefix that a plan was to share of it, and takes in its place", () => {
    const played = owned({ depth: 3, limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 50, prefix: [1, 2, 3] })
    const [first, second] = [played.runs(), played.runs()]
    free(played, 80, first.number)
    played.arrives(2, { promptTokens: 60, maxOutputTokens: 9, prefix: [1, 2, 3] })
    expect(played.runs().items).toMatchObject([{ id: 1 }, { id: 2, position: 48, tokens: 12 }])
    played.done(first, { 1: { stopped: true } })
    free(played, 112, second.number)
    played.arrives(3, { promptTokens: 100, maxOutputTokens: 9 })
    expect(played.runs().items).toMatchObject([{ id: 2 }, { id: 3, position: 0, tokens: 48 }])
  })

  test("counts what later plans were to reach from further on: it is taken when they do", () => {
    const played = owned({ depth: 3, limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 50, maxOutputTokens: 1, prefix: [1, 2, 3] })
    played.step()
    played.arrives(2, { promptTokens: 60, maxOutputTokens: 9, prefix: [1, 2, 3] })
    const [first, second] = [played.runs(), played.runs()]
    expect([first.items, second.items]).toMatchObject([
      [{ id: 2, position: 48, tokens: 12 }],
      [{ id: 2, position: 60, tokens: 1 }],
    ])
    // Nothing of the prefix is there any more.
    tell(played, { batch: first.number, items: [item(2, 0, 12)] })
    free(played, 32, first.number)
    expect(played.runs().items).toMatchObject([{ id: 2, position: 13, tokens: 35 }])
  })

  test("of a batch that is told as it ran, requests that a later plan evicts stay evicted", () => {
    const played = owned({ depth: 3, limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 } })
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second] = [played.runs(), played.runs()]
    const third = played.runs()
    expect(third.evict).toEqual([2])
    tell(played, { batch: first.number, items: first.items })
    tell(played, { batch: second.number, items: second.items })
    played.replica.check()
    played.done(first)
    expect(aboard(played.runs())).toEqual([1])
    played.done(second)
    played.done(third)
    expect(played.replica.snapshot(0).running).toBe(1)
  })
})

test("an engine that goes by the plan does nothing by itself, and yields what was planned", () => {
  const played = new Played()
  played.arrives(1)
  const batch = played.runs()
  expect(() => tell(played, { batch: batch.number, items: [] })).toThrow("goes by the plan")
  expect(() => played.done(batch, { 1: nothing })).toThrow("yielded no token")
})
