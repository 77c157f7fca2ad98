/** What an engine that owns its KV did is believed: how long it should take, where requests are, and what room they have. */
import { describe, expect, test } from "vitest"
import { STEP_KINDS } from "./learn/calibration.ts"
import { vllm } from "./policy/vllm.ts"
import type { Ran, RanItem, RequestId, StepResult } from "./protocol.ts"
import type { ReplicaConfig } from "./replica.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

const owned = (config: Partial<ReplicaConfig> = {}) =>
  new Played({ depth: 1, engineOwnsKv: true, limits: { ...LIMITS, minChunkTokens: 1 }, ...config })
const item = (id: number, position: number, tokens: number, draft = 0): RanItem => ({
  ...{ id, position, tokens, draft },
})
const tell = (played: Played, ran: Omit<Ran, "type">) =>
  played.replica.handle({ type: "ran", ...ran }, played.nowUs)
const result = (id: RequestId, changes: Partial<StepResult> = {}): StepResult => ({
  ...{ id, tokens: 1, stopped: false, answeringFrom: -1 },
  ...changes,
})
const lands = (played: Played, batch: number, durationUs: number, results: StepResult[]) => {
  played.nowUs += durationUs
  played.replica.handle({ type: "stepDone", batch, durationUs, results }, played.nowUs)
  played.poll()
}
const usedBlocks = (played: Played) => played.replica.snapshot(0).kvUsedTokens / LIMITS.blockTokens
/** The kinds of steps of which something was learnt. */
const learnt = (played: Played) =>
  STEP_KINDS.filter((_, at) => played.replica.snapshot(played.nowUs).calibration[at] !== 1)

describe("how long a step took is learnt of what ran", () => {
  test("of a prompt that was cut to a token, as of decodes", () => {
    const played = owned()
    played.arrives(1)
    const batch = played.runs()
    tell(played, { batch: batch.number, items: [item(1, 0, 1)] })
    // Twice the 5 ms of a step and 0.1 ms of its token.
    lands(played, batch.number, 10_200, [result(1, { tokens: 0 })])
    // Drafted ones are taken to be like them, as long as none was seen.
    expect(learnt(played)).toEqual(["decode", "drafted"])
  })

  test("of decodes with a prompt beside them, as of both", () => {
    const played = owned()
    played.arrives(1)
    played.step()
    const batch = played.runs()
    played.arrives(2)
    tell(played, { batch: batch.number, items: [item(1, 100, 1), item(2, 0, 40)] })
    lands(played, batch.number, 18_200, [result(1), result(2, { tokens: 0 })])
    expect(learnt(played)).toEqual(["mixed"])
  })

  test("and it is expected to take as long as what ran, and those behind it to come then", () => {
    let planFromUs = 0
    const policy: ReplicaConfig["policy"] = (options) => ({
      ...vllm(options),
      decide: (requests, batch, nowUs) => {
        planFromUs = nowUs
        vllm(options).decide(requests, batch, nowUs)
      },
    })
    const played = owned({ depth: 2, policy })
    played.arrives(1, { promptTokens: 200 })
    const first = played.runs()
    expect(first.predictedUs).toBe(25_000)
    tell(played, { batch: first.number, items: [item(1, 0, 50)] })
    played.runs()
    expect(planFromUs).toBe(10_000)
  })
})

describe("where requests are", () => {
  test("one that may yield only so many more tokens yields no more, whatever the engine says", () => {
    const played = owned()
    played.arrives(1, { maxOutputTokens: 3 })
    played.step()
    played.step({ 1: { tokens: 7 } })
    played.poll()
    expect(played.of("token").map(({ count }) => count)).toEqual([1, 2])
  })

  test("one that is taken aboard without a plan has begun then, with what was cached", () => {
    const played = owned({ options: { tokenBudget: 100 } })
    for (const id of [1, 2]) played.arrives(id)
    const batch = played.runs()
    expect(aboard(batch)).toEqual([1])
    played.nowUs = 700
    tell(played, { batch: batch.number, items: [item(1, 0, 100), item(2, 32, 68)] })
    expect(played.replica.startOf(2)).toMatchObject({ queuedUs: 700, cachedTokens: 32 })
    expect(played.replica.startOf(1)).toMatchObject({ queuedUs: 0, cachedTokens: 0 })
  })

  test("one that had begun has begun, also where it was to start afresh and did not run", () => {
    const played = owned()
    played.arrives(1)
    played.step()
    played.nowUs += 50
    played.replica.handle({ type: "kvLost", ids: [1] }, played.nowUs)
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ position: 0, tokens: 101 }])
    tell(played, { batch: batch.number, items: [] })
    expect(played.replica.startOf(1)).toMatchObject({ queuedUs: 0 })
    expect(usedBlocks(played)).toBe(0)
  })

  test("an item that was not planned reaches a token where the batches before it bring it to that", () => {
    const played = owned({ depth: 3 })
    played.arrives(1)
    const [first, second] = [played.runs(), played.runs()]
    // A token short of what it was to compute, which is none of its last.
    tell(played, { batch: second.number, items: [item(1, 99, 1)] })
    expect(played.runs().items).toMatchObject([{ position: 100, tokens: 1 }])
    played.done(first)
  })

  test("what others may share of ended requests stays, where the engine loses only what it names", () => {
    const played = owned()
    const prefix = [1, 2, 3]
    played.arrives(1, { prefix, maxOutputTokens: 1 })
    played.step()
    played.replica.handle({ type: "kvLost", ids: [99] }, played.nowUs)
    played.arrives(2, { prefix })
    expect(played.runs().items).toMatchObject([{ id: 2, position: 48, tokens: 52 }])
  })
})

describe("requests that are not live here", () => {
  test("run, or do not, as any others", () => {
    const played = owned()
    played.arrives(1)
    const batch = played.runs()
    tell(played, { batch: batch.number, items: [item(77, 0, 5), item(1, 0, 100)], preempted: [78] })
    tell(played, { batch: batch.number, items: [item(1, 0, 100)] })
    tell(played, { batch: batch.number, items: [item(1, 0, 100), item(77, 0, 5)] })
    lands(played, batch.number, 1, [result(1), result(77)])
    expect(played.of("token").map(({ id }) => id)).toEqual([1])
  })

  test("nor are those that were cancelled in the air and did not run", () => {
    const played = owned()
    for (const id of [1, 2]) played.arrives(id)
    const batch = played.runs()
    played.cancels(2)
    tell(played, { batch: batch.number, items: [item(1, 0, 100)] })
    played.poll()
    lands(played, batch.number, 1, [result(1)])
    expect(usedBlocks(played)).toBe(7)
    expect(played.of("run").at(-1)!.batch.items).toMatchObject([{ id: 1, position: 100 }])
  })
})

describe("what room they have", () => {
  test("what is in place after a step, where that is less than was taken", () => {
    const played = owned()
    played.arrives(1)
    const batch = played.runs()
    lands(played, batch.number, 1, [result(1, { computed: 60 })])
    expect(played.of("run").at(-1)!.batch.items).toMatchObject([{ position: 60, tokens: 41 }])
    const again = owned()
    again.arrives(1)
    const only = again.runs()
    again.replica.handle(
      { type: "stepDone", batch: only.number, durationUs: 1, results: [result(1, { computed: 60 })] },
      1,
    )
    expect(usedBlocks(again)).toBe(4)
  })

  test("but what batches in flight count on stays with them", () => {
    const played = owned({ depth: 2 })
    played.arrives(1)
    const [first] = [played.runs(), played.runs()]
    played.replica.handle(
      { type: "stepDone", batch: first.number, durationUs: 1, results: [result(1, { computed: 60 })] },
      1,
    )
    expect(usedBlocks(played)).toBe(7)
    played.replica.check()
  })

  test("more than was planned, where the engine ran more", () => {
    const played = owned({ options: { tokenBudget: 64 } })
    played.arrives(1, { promptTokens: 200 })
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ position: 0, tokens: 64 }])
    tell(played, { batch: batch.number, items: [item(1, 0, 120)] })
    expect(usedBlocks(played)).toBe(8)
    played.replica.check()
  })

  test("as much as there is of that, where the engine has more than is accounted for", () => {
    const played = owned({
      limits: { ...LIMITS, kvTokens: 128, minChunkTokens: 1 },
      options: { tokenBudget: 64 },
    })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 64, maxOutputTokens: 9 })
    const batch = played.runs()
    expect(aboard(batch)).toEqual([1])
    tell(played, { batch: batch.number, items: [item(1, 0, 64), item(2, 0, 64, 2)] })
    expect(usedBlocks(played)).toBe(8)
    played.replica.check()
  })

  test("none that it had, where it was taken aboard anew from further back than what it shared", () => {
    const played = owned()
    const prefix = [1, 2, 3, 4, 5, 6]
    played.arrives(1, { prefix, maxOutputTokens: 1 })
    played.step()
    played.arrives(2, { prefix })
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ id: 2, position: 96, tokens: 4 }])
    // The seven blocks are kept, and it computes its own.
    tell(played, { batch: batch.number, items: [item(2, 0, 20)] })
    expect(usedBlocks(played)).toBe(7 + 2)
    played.replica.check()
  })
})
