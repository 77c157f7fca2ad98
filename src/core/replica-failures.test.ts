/** What a replica makes of steps that failed: nothing of them happened, and each member of the batch runs alone. */
import { describe, expect, test } from "vitest"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

/** Requests 1 and 2 have their first tokens, 3 has just come. */
function threeAboard(played = new Played()): Played {
  for (const id of [1, 2]) played.arrives(id, { promptTokens: 40 })
  played.step()
  played.arrives(3, { promptTokens: 40 })
  return played
}
const preempted = (played: Played) => played.of("preempted").map(({ id }) => id)

describe("after a failed step", () => {
  test("what was in place before it is kept; what began with it begins anew", () => {
    const played = threeAboard()
    played.fails(played.runs(), "kvFull")
    expect(preempted(played)).toEqual([])
    const alone = [played.runs()]
    played.done(alone[0]!)
    for (let i = 0; i < 2; i++) alone.push(played.step())
    expect(alone.map((batch) => batch.items)).toMatchObject([
      [{ id: 1, position: 40, tokens: 1 }],
      [{ id: 2, position: 40, tokens: 1 }],
      [{ id: 3, position: 0, tokens: 40 }],
    ])
    expect(preempted(played)).toEqual([3])
    expect(aboard(played.runs())).toEqual([1, 2, 3])
  })

  test("a copied prefix is copied anew: it may not be there", () => {
    const played = new Played()
    const prefix = [1, 2, 3]
    played.arrives(1, { promptTokens: 60, prefix })
    played.step()
    played.arrives(2, { promptTokens: 60, prefix })
    const batch = played.runs()
    expect(batch.items[1]).toMatchObject({ id: 2, position: 48, copy: { from: 1, tokens: 48 } })
    played.fails(batch, "kvFull")
    played.step()
    expect(preempted(played)).toEqual([2])
    expect(played.step().items).toMatchObject([{ id: 2, copy: { from: 1, tokens: 48 } }])
  })

  test("the cache goes: the engine had less room than was accounted for", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 60, prefix: [1, 2, 3], maxOutputTokens: 1 })
    played.step()
    played.arrives(2, { promptTokens: 60, prefix: [7, 8, 9] })
    const batch = played.runs()
    expect(played.replica.snapshot(0).kvCachedTokens).toBe(64)
    played.fails(batch, "kvFull")
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(0)
    expect(played.runs()).toMatchObject({ release: [1] })
  })

  test("requests that ended in the air are not tried again, and their KV is free", () => {
    const played = threeAboard()
    const batch = played.runs()
    played.cancels(2)
    played.fails(batch, "kvFull")
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(48)
    expect(aboard(played.step())).toEqual([1])
    expect(aboard(played.step())).toEqual([3])
    expect(preempted(played)).toEqual([3])
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(48 + 48)
  })

  test("a request that ended in the air lost nothing", () => {
    const played = threeAboard()
    const batch = played.runs()
    played.cancels(3)
    played.fails(batch, "kvFull")
    played.step()
    expect(preempted(played)).toEqual([])
  })

  test("an engine error pauses all of them, ever longer", () => {
    const played = threeAboard()
    played.fails(played.runs(), "engineError")
    const failedUs = played.nowUs
    expect(played.poll().filter(({ type }) => type === "run" || type === "wake")).toEqual([
      { type: "wake", atUs: failedUs + 10_000 },
    ])
    played.nowUs = failedUs + 9_999
    expect(played.poll()).toEqual([{ type: "wake", atUs: failedUs + 10_000 }])
    played.nowUs = failedUs + 10_000
    const again = played.runs()
    expect(aboard(again)).toEqual([1])
    played.fails(again, "engineError")
    expect(played.poll()).toEqual([{ type: "wake", atUs: failedUs + 30_000 }])
    played.nowUs = failedUs + 30_000
    played.step()
    // A step that was done ends the row of failures.
    played.fails(played.runs(), "engineError")
    played.poll()
    expect(played.of("wake").at(-1)).toEqual({ type: "wake", atUs: played.nowUs + 10_000 })
  })

  test("full KV pauses nothing", () => {
    const played = threeAboard()
    played.fails(played.runs(), "kvFull")
    expect(aboard(played.runs())).toEqual([1])
  })
})

describe("a request that fails alone", () => {
  test("twice has failed itself; the others go on", () => {
    const played = threeAboard()
    played.fails(played.runs(), "kvFull")
    played.fails(played.runs(), "kvFull")
    played.poll()
    expect(played.of("finished")).toEqual([])
    // The others lost their KV to it, and it is tried alone once more.
    expect(preempted(played)).toEqual([3, 2])
    const again = played.effects.findLast((effect) => effect.type === "run")!
    expect(aboard(again.batch)).toEqual([1])
    played.fails(again.batch, "kvFull")
    expect(aboard(played.runs())).toEqual([2, 3])
    expect(played.of("finished")).toMatchObject([
      { id: 1, reason: "failed", outcome: { attained: false, outputTokens: 1 } },
    ])
  })

  test("takes the others' KV only where the KV was full", () => {
    const played = threeAboard()
    played.fails(played.runs(), "kvFull")
    played.fails(played.runs(), "engineError")
    played.nowUs += 10_000
    expect(aboard(played.runs())).toEqual([1])
    expect(preempted(played)).toEqual([3])
  })

  test("did so the first time where the others had ended in the air", () => {
    const played = threeAboard()
    const batch = played.runs()
    for (const id of [2, 3]) played.cancels(id)
    played.fails(batch, "kvFull")
    played.fails(played.runs(), "kvFull")
    played.poll()
    expect(played.of("finished").at(-1)).toMatchObject({ id: 1, reason: "failed" })
  })

  test("and leaves nothing behind needs no wake", () => {
    const played = new Played()
    played.arrives(1)
    played.fails(played.runs(), "engineError")
    played.nowUs += 10_000
    played.fails(played.runs(), "engineError")
    expect(played.poll().map(({ type }) => type)).toEqual(["preempted", "finished"])
  })

  test("is forgiven once it was computed", () => {
    const played = new Played()
    played.arrives(1)
    for (let i = 0; i < 3; i++) {
      played.fails(played.runs(), "kvFull")
      played.step()
    }
    played.poll()
    expect(played.of("finished")).toEqual([])
  })

  test("and was preempted as often as it lost its KV", () => {
    const played = new Played()
    played.arrives(1, { maxOutputTokens: 1 })
    const batch = played.runs()
    played.fails(batch, "kvFull")
    played.step()
    played.poll()
    expect(played.of("finished")[0]!.outcome.preemptions).toBe(1)
  })
})

test("a request that has to run alone computes as much as the engine takes, at the cost of others", () => {
  const limits = { ...LIMITS, kvTokens: 512, contextTokens: 512, maxBatchTokens: 300 }
  const played = new Played({ limits })
  played.arrives(1, { promptTokens: 460 })
  played.arrives(2, { promptTokens: 40 })
  const batch = played.runs()
  expect(batch.items).toMatchObject([{ id: 1, tokens: 300 }])
  played.fails(batch, "kvFull")
  expect(played.runs().items).toMatchObject([{ id: 1, position: 0, tokens: 300 }])
})
