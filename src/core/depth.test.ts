/** Several batches in flight: the next one is planned on what those before it should yield, and nothing is judged, ended or
 * given up before it has landed. */
import { describe, expect, test } from "vitest"
import type { PolicyFactory } from "./policy/policy.ts"
import { vllm } from "./policy/vllm.ts"
import type { Batch } from "./protocol.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS, specOf } from "./testing.ts"

const deep = (depth = 2, kvTokens = LIMITS.kvTokens) =>
  new Played({ depth, limits: { ...LIMITS, kvTokens, minChunkTokens: 1 } })
const nothingRuns = (played: Played) => !played.poll().some(({ type }) => type === "run")

describe("planning ahead", () => {
  test("the next batch is for the state after the last one in flight, and there are no more than the depth says", () => {
    const played = deep()
    played.arrives(1)
    expect(played.runs().items).toEqual([{ id: 1, position: 0, tokens: 100, sample: true, draft: 0 }])
    const second = played.runs()
    expect(second.items).toEqual([{ id: 1, position: 100, tokens: 1, sample: true, draft: 0 }])
    expect(nothingRuns(played)).toBe(true)
    expect(played.of("token")).toEqual([])
  })

  test("an engine of depth 1 gets its next batch when the last one has landed", () => {
    const played = deep(1)
    played.arrives(1)
    const first = played.runs()
    expect(nothingRuns(played)).toBe(true)
    played.done(first)
    expect(played.runs().items[0]).toMatchObject({ position: 100, tokens: 1 })
  })

  test("it is decided as of the time at which it can begin", () => {
    const decidedUs: number[] = []
    const policy: PolicyFactory = (options) => ({
      ...vllm(options),
      decide: (requests, batch, nowUs) => {
        decidedUs.push(nowUs)
        vllm(options).decide(requests, batch, nowUs)
      },
    })
    const played = new Played({ depth: 3, policy })
    played.arrives(1)
    played.nowUs = 40
    const first = played.runs()
    // 5 ms a step and 0.1 ms a token.
    expect(first.predictedUs).toBe(15_000)
    played.nowUs = 2000
    const second = played.runs()
    played.runs()
    expect(decidedUs).toEqual([40, 15_040, 15_040 + second.predictedUs])
    // It takes longer than it should: what follows can begin now at the earliest, and after what is still to come.
    played.done(first, {}, 20_000)
    played.runs()
    expect(decidedUs[3]).toBe(22_000 + second.predictedUs + played.of("run")[2]!.batch.predictedUs)
  })

  test("a request that its tokens in the air bring to its end is not planned again", () => {
    const played = deep(3)
    played.arrives(1, { maxOutputTokens: 2 })
    const [first, second] = [played.runs(), played.runs()]
    expect([first, second].map(aboard)).toEqual([[1], [1]])
    expect(nothingRuns(played)).toBe(true)
    played.done(first)
    expect(nothingRuns(played)).toBe(true)
    played.done(second)
    played.poll()
    expect(played.of("finished")).toMatchObject([{ id: 1, reason: "length" }])
  })

  test("drafts count as accepted until they have landed: then the rest is planned from where it really is", () => {
    const played = new Played({ depth: 3, options: { fixedDraft: 2 } })
    played.arrives(1)
    played.done(played.runs())
    const [second, third] = [played.runs(), played.runs()]
    expect(second.items).toMatchObject([{ position: 100, tokens: 1, draft: 2 }])
    expect(third.items).toMatchObject([{ position: 103, tokens: 1, draft: 2 }])
    played.done(second, { 1: { tokens: 1 } })
    // One token of the second, three that the third may yield.
    expect(played.runs().items).toMatchObject([{ position: 104, tokens: 1, draft: 2 }])
    played.done(third, { 1: { tokens: 2 } })
    played.poll()
    expect(played.of("token").map(({ count }) => count)).toEqual([1, 1, 2])
  })

  test("near its end a request is planned for as long as refused drafts may leave it tokens to produce", () => {
    const played = new Played({ depth: 2, options: { fixedDraft: 3 } })
    played.arrives(1, { maxOutputTokens: 4 })
    played.done(played.runs())
    const second = played.runs()
    expect(second.items).toMatchObject([{ position: 100, draft: 2 }])
    const third = played.runs()
    expect(third.items).toMatchObject([{ position: 103, tokens: 1, draft: 0 }])
    played.done(second, { 1: { tokens: 3 } })
    played.done(third)
    played.poll()
    expect(played.of("finished")).toMatchObject([{ outcome: { outputTokens: 4 } }])
  })

  test("a prefix that is being computed is shared by the batch after it", () => {
    const played = deep()
    const prefix = [11, 12, 13]
    played.arrives(1, { promptTokens: 50, prefix })
    played.runs()
    played.arrives(2, { promptTokens: 60, prefix })
    const second = played.runs()
    expect(second.items[1]).toMatchObject({ id: 2, position: 48, tokens: 12, copy: { from: 1, tokens: 48 } })
  })
})

describe("what has not landed has not happened", () => {
  test("tokens are judged by when they landed, not by when they should have", () => {
    const played = deep()
    played.arrives(1, {
      slo: { ttftUs: 20_000, ttftSlowdown: 0, tpotUs: 10_000, thinkingTpotUs: 1, maxGapUs: Infinity },
    })
    const [first, second] = [played.runs(), played.runs()]
    played.done(first, {}, 23_000)
    played.done(second, {}, 4000)
    played.poll()
    expect(played.of("token").map(({ lateUs }) => lateUs)).toEqual([3000, 27_000 - 33_000])
    expect(played.replica.surrender()[0]!.progress).toMatchObject({ firstTokenUs: 23_000, output: 2 })
  })

  test("a request whose first token in the air comes too late is not promised anything for it", () => {
    const played = new Played({ depth: 2, policy: "slos-serve" })
    const slo = { ttftUs: 10_000, ttftSlowdown: 0, tpotUs: 50_000, thinkingTpotUs: 1, maxGapUs: Infinity }
    played.arrives(1, { slo })
    // 15 ms for its prompt.
    const [first, second] = [played.runs(), played.runs()]
    expect([first, second].map(aboard)).toEqual([[1], [1]])
    expect(played.of("demoted")).toMatchObject([{ id: 1, reason: "wontFit" }])
    played.done(first)
    played.poll()
    expect(played.of("promoted")).toEqual([])
    expect(played.of("admitted")).toEqual([])
  })

  test("a decision ahead leaves requests as they are", () => {
    const played = deep()
    played.arrives(1)
    played.runs()
    const before = played.replica.surrender()
    played.runs()
    expect(played.replica.surrender()).toEqual(before)
  })

  test("what stops in the air yields no more, and its KV is free when its last batch has landed", () => {
    const played = deep()
    played.arrives(1)
    const [first, second] = [played.runs(), played.runs()]
    played.done(first, { 1: { stopped: true } })
    played.poll()
    expect(played.of("finished")).toMatchObject([{ id: 1, reason: "stop", outcome: { outputTokens: 1 } }])
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(112)
    played.done(second)
    played.poll()
    expect(played.of("token")).toHaveLength(1)
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(0)
  })

  test("another request gets the KV of one that ended only when no batch in flight carries it", () => {
    const played = deep(2, 112)
    played.arrives(1, { maxOutputTokens: 12 })
    const [first, second] = [played.runs(), played.runs()]
    played.arrives(2, { promptTokens: 60, maxOutputTokens: 20 })
    played.done(first, { 1: { stopped: true } })
    expect(nothingRuns(played)).toBe(true)
    played.done(second)
    expect(played.runs().items).toMatchObject([{ id: 2, position: 0, tokens: 60 }])
  })

  test("one that left without being aboard is forgotten at the next landing", () => {
    const played = deep(2, 256)
    played.arrives(1)
    played.arrives(2)
    const [first, second] = [played.runs(), played.runs()]
    played.done(first)
    played.done(second)
    const third = played.runs()
    played.cancels(2)
    const fourth = played.runs()
    expect(aboard(fourth)).toEqual([1])
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(224)
    played.done(third)
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(112)
  })

  test("a request that loses its KV keeps its token in the air, and is resumed when that is known", () => {
    const played = deep(2, 128)
    played.arrives(1, { promptTokens: 47, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 70, maxOutputTokens: 20 })
    const [first, second] = [played.runs(), played.runs()]
    expect(second.items.map(({ id, position }) => [id, position])).toEqual([
      [1, 47],
      [2, 70],
    ])
    played.done(first)
    // The first needs a block more: the second gives way, though its token is being computed.
    const third = played.runs()
    expect(third.evict).toEqual([2])
    expect(aboard(third)).toEqual([1])
    played.cancels(1)
    expect(nothingRuns(played)).toBe(true)
    played.done(second)
    // The third still carries the first, so that its four blocks are not free.
    const resumed = played.runs()
    expect(resumed.items).toMatchObject([{ id: 2, position: 0, tokens: 64, sample: false }])
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2, 2])
    played.done(third)
    expect(played.runs().items).toMatchObject([{ id: 2, position: 64, tokens: 8, sample: true }])
  })
})

describe("a step that fails", () => {
  test("undoes the batches behind it, whose requests are no suspects", () => {
    const played = deep()
    played.arrives(1)
    const first = played.runs()
    played.arrives(2)
    const second = played.runs()
    expect(aboard(second)).toEqual([1, 2])
    played.fails(first, "engineError")
    played.fails(second, "engineError")
    expect(played.of("finished")).toEqual([])
    played.nowUs = 1_000_000
    const alone = played.runs()
    expect(alone.items).toMatchObject([{ id: 1, position: 0, tokens: 100 }])
    played.done(alone)
    const both = played.runs()
    expect(both.items).toMatchObject([
      { id: 1, position: 100 },
      { id: 2, position: 0 },
    ])
    played.done(both)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 1, 2])
  })

  test("what has to run alone has no batch before or behind it", () => {
    const played = deep()
    for (const id of [1, 2]) played.arrives(id)
    const [first, second] = [played.runs(), played.runs()]
    for (const batch of [first, second]) played.fails(batch, "engineError")
    played.nowUs = 1_000_000
    const alone: Batch[] = []
    alone.push(played.runs())
    expect(nothingRuns(played)).toBe(true)
    played.done(alone[0]!)
    alone.push(played.runs())
    expect(alone.map(aboard)).toEqual([[1], [2]])
  })
})

describe("a request that waits for its grammar", () => {
  test("runs when it is ready; its objectives count from its arrival", () => {
    const played = deep(1)
    played.arrives(1, { waitsForGrammar: true })
    expect(nothingRuns(played)).toBe(true)
    played.nowUs = 300_000
    played.arrives(2)
    const second = played.runs()
    expect(aboard(second)).toEqual([2])
    played.replica.handle({ type: "grammarReady", id: 1 }, played.nowUs)
    played.done(second)
    const both = played.runs()
    expect(new Set(aboard(both))).toEqual(new Set([1, 2]))
    played.done(both, {}, 800_000)
    played.poll()
    const late = played.of("token").find(({ id }) => id === 1)!.lateUs
    expect(late).toBe(played.nowUs - 1_000_000)
  })

  test.each([1, 2])("counts in offers, with %i batches in flight", (depth) => {
    const slo = (ttftUs: number) => ({ ...specOf(0).slo, ttftUs })
    const takes = (waits: boolean) => {
      const played = new Played({ depth, policy: "slos-serve" })
      if (waits) played.arrives(1, { promptTokens: 900, waitsForGrammar: true, slo: slo(150_000) })
      played.arrives(2, { promptTokens: 16 })
      played.runs()
      return played.replica.offer(specOf(9, { promptTokens: 700, slo: slo(180_000) }), 0)
    }
    expect([takes(false), takes(true)]).toEqual([true, false])
  })

  test("ends as any other when it is cancelled, and a grammar that comes too late is no error", () => {
    const played = deep(1)
    played.arrives(1, { waitsForGrammar: true })
    played.cancels(1)
    played.replica.handle({ type: "grammarReady", id: 1 }, 0)
    played.arrives(2)
    expect(aboard(played.runs())).toEqual([2])
    expect(played.of("finished")).toMatchObject([{ id: 1, reason: "cancelled" }])
  })
})
