/** What a replica makes of the results of a step, and learns from them. */
import { describe, expect, test } from "vitest"
import { Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

describe("results", () => {
  test("belong to the batch in flight, in any order", () => {
    const played = new Played()
    for (const id of [1, 2, 3]) played.arrives(id)
    const batch = played.runs()
    const results = [3, 1, 2].map((id) => ({ id, tokens: 1, stopped: id === 1, answeringFrom: -1 }))
    const done = { type: "stepDone", durationUs: 1000, results } as const
    expect(() => played.replica.handle({ ...done, batch: 2 }, 1000)).toThrow("not the one in flight")
    played.replica.handle({ ...done, batch: batch.number }, 1000)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2, 3])
    expect(played.of("finished").map(({ id }) => id)).toEqual([1])
  })

  test("of an engine that disagrees are refused", () => {
    const played = new Played({ limits: { ...LIMITS, maxBatchTokens: 64 } })
    played.arrives(1)
    const first = played.runs()
    expect(first.items[0]).toMatchObject({ tokens: 64, sample: false })
    expect(() => played.done(first, { 1: { tokens: 1 } })).toThrow("a token too early")
    const other = new Played()
    other.arrives(1)
    expect(() => other.done(other.runs(), { 1: { tokens: 0 } })).toThrow("yielded no token")
    const drafting = new Played({ options: { fixedDraft: 2 } })
    drafting.arrives(1)
    drafting.step()
    const batch = drafting.runs()
    expect(batch.items[0]!.draft).toBe(2)
    expect(() => drafting.done(batch, { 1: { tokens: 4 } })).toThrow("accepted more than was drafted")
  })

  test("with accepted drafts move a request on by all of them, and give the refused ones' KV back", () => {
    const played = new Played({ options: { fixedDraft: 20 } })
    played.arrives(1, { promptTokens: 100 })
    played.step()
    const batch = played.runs()
    expect(batch.items[0]).toMatchObject({ position: 100, tokens: 1, draft: 20 })
    // 121 tokens are in eight blocks, 105 in seven.
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(128)
    played.done(batch, { 1: { tokens: 5 } })
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(112)
    expect(played.runs().items[0]).toMatchObject({ position: 105, tokens: 1 })
    expect(played.of("token").map(({ count }) => count)).toEqual([1, 5])
    expect(played.replica.snapshot(0).speculation[0]).toMatchObject({ draftedTokens: 20, acceptedTokens: 4 })
  })

  test("of the first token say nothing of drafts", () => {
    const played = new Played({ options: { fixedDraft: 2 } })
    played.arrives(1)
    played.step()
    expect(played.replica.snapshot(0).speculation).toEqual([])
    played.step()
    played.arrives(2)
    played.step()
    // Two decodes that drafted: the mean moves a fiftieth of the way to three tokens with each.
    expect(played.replica.snapshot(0).speculation[0]!.length).toBeCloseTo(3 - 2 * 0.98 ** 2, 6)
  })

  test("say how far the model of step times is off, apart for prefill and decode", () => {
    const played = new Played()
    played.arrives(1)
    played.step({}, 30_000)
    const [decode, mixed] = played.replica.snapshot(0).calibration
    expect(mixed).toBeCloseTo(1.05)
    expect(decode).toBe(1)
    // Twice what the model says, uncalibrated: 5.1 ms.
    for (let i = 0; i < 40; i++) played.step({}, 10_200)
    expect(played.replica.snapshot(0).calibration[0]).toBeCloseTo(2 - 0.95 ** 40)
    expect(played.replica.snapshot(0).calibration[1]).toBe(mixed)
  })

  test("of a step in which nothing was drafted tell of plain decodes, also where drafts were asked for", () => {
    const calibrationAfter = (first: number, second: number) => {
      const played = new Played({ options: { fixedDraft: 2 } })
      for (const id of [1, 2]) played.arrives(id, { maxOutputTokens: 100 })
      played.step()
      // Twice as long as the model says of what was drafted.
      const tokens = 2 + first + second
      played.step({ 1: { drafted: first }, 2: { drafted: second } }, 2 * (5_000 + 100 * tokens))
      return played.replica.snapshot(0).calibration
    }
    expect(calibrationAfter(0, 0)[0]).toBeCloseTo(1.05)
    for (const [first, second] of [
      [0, 2],
      [2, 2],
    ] as const) {
      const [decode, mixed, drafted] = calibrationAfter(first, second)
      expect([decode, mixed]).toEqual([1, 1])
      expect(drafted).toBeCloseTo(1.05)
    }
    const prompts = new Played()
    prompts.arrives(1)
    prompts.step({ 1: { drafted: 0 } }, 30_000)
    expect(prompts.replica.snapshot(0).calibration[0]).toBe(1)
  })

  test("need not be given of a prompt that is not at its end", () => {
    const played = new Played({ limits: { ...LIMITS, maxBatchTokens: 64 } })
    played.arrives(1)
    const { number } = played.runs()
    played.replica.handle({ type: "stepDone", batch: number, durationUs: 1000, results: [] }, 1000)
    expect(played.runs().items).toMatchObject([{ id: 1, position: 64, tokens: 36, sample: true }])
  })

  test("fill blocks that a later prompt shares", () => {
    const played = new Played()
    const hashes = [1, 2, 3, 4, 5, 6]
    played.arrives(1, { promptTokens: 96, prefix: hashes, maxOutputTokens: 17 })
    played.step()
    for (let i = 1; i <= 15; i++) played.step()
    // The sixteenth decode fills a block.
    played.step({ 1: { prefix: [7] } })
    played.arrives(2, { promptTokens: 200, prefix: [...hashes, 7, 8] })
    expect(played.runs().items.find(({ id }) => id === 2)).toMatchObject({ copy: { from: 1, tokens: 112 } })
  })
})

describe("the first token", () => {
  /** Effects of three steps with a token each. */
  const told = (options: object, changes = {}) => {
    const played = new Played({ options })
    played.arrives(1, changes)
    for (let i = 0; i < 3; i++) played.step()
    return played.effects.flatMap(({ type }) => (type === "token" || type === "admitted" ? [type] : []))
  }
  test("is the promise where promises can be revoked until then", () => {
    expect(told({ admission: "revocable" })).toEqual(["token", "admitted", "token"])
    expect(told({ admission: "firm" })).toEqual(["token", "token"])
    expect(told({ admission: "revocable" }, { tier: "bestEffort" })).toEqual(["token", "token"])
  })
})
