/** QoServe: the order of prefills, what is relegated, and how long its batches are. */
import { describe, expect, test } from "vitest"
import type { PolicyOptions } from "../options.ts"
import type { Batch, EngineLimits } from "../protocol.ts"
import { Played } from "../replica-testing.ts"
import { COST, LIMITS } from "../testing.ts"

/** Without a margin: 100 tokens take 15 ms alone, 300 take 35. */
function playedWith(options: Partial<PolicyOptions> = {}, limits: Partial<EngineLimits> = {}): Played {
  const given = { margin: 0, ...options }
  return new Played({
    policy: "qoserve",
    options: given,
    limits: { ...LIMITS, minChunkTokens: 1, ...limits },
  })
}
const slo = (ttftMs: number, tpotMs = 1000) => {
  const tpotUs = tpotMs * 1000
  return { ttftUs: ttftMs * 1000, ttftSlowdown: 0, maxGapUs: Infinity, tpotUs, thinkingTpotUs: tpotUs }
}
const shapeOf = (batch: Batch) => batch.items.map(({ id, tokens }) => [id, tokens])
const demoted = (played: Played) => played.of("demoted").map(({ id, reason }) => [id, reason])

describe("prefills", () => {
  /** A long prompt that is due 10 ms before a short one that takes 20 ms less. */
  const order = (hybridAlpha: number) => {
    const played = playedWith({ hybridAlpha })
    played.arrives(1, { promptTokens: 300, slo: slo(200) })
    played.arrives(2, { promptTokens: 100, slo: slo(210) })
    return played.step().items.map(({ id }) => id)
  }
  test("go by deadline, or the shorter first, as far as the weight says", () => {
    expect(order(0)).toEqual([1, 2])
    expect(order(0.4)).toEqual([1, 2])
    expect(order(0.6)).toEqual([2, 1])
    // Equal: by arrival.
    expect(order(0.5)).toEqual([1, 2])
    const played = playedWith()
    for (const id of [3, 1, 2]) played.arrives(id, { promptTokens: 50, slo: slo(100) })
    expect(played.step().items.map(({ id }) => id)).toEqual([3, 1, 2])
  })

  test("under way are not overtaken when they could not wait for one more batch", () => {
    const rest = (ttftMs: number, margin = 0) => {
      const played = playedWith({ hybridAlpha: 10, maxBatchUs: 25_000, margin })
      played.arrives(1, { promptTokens: 400, slo: slo(ttftMs) })
      expect(shapeOf(played.step())).toEqual([[1, margin === 0 ? 200 : 158]])
      // Much shorter: it would go first.
      played.arrives(2, { promptTokens: 10, slo: slo(200) })
      return played.step().items[0]!.id
    }
    // 25 ms have gone, it takes 25 ms more; one batch of 25 ms before it is just possible.
    expect(rest(75)).toBe(2)
    expect(rest(74)).toBe(1)
    // 20.8 ms have gone, it takes 29.2 ms more and a fifth, and one batch.
    expect(rest(80.9, 0.2)).toBe(2)
    expect(rest(80.8, 0.2)).toBe(1)
  })

  test("that have not begun can be overtaken however little time is left", () => {
    const played = playedWith({ hybridAlpha: 10, maxBatchUs: 25_000 })
    played.arrives(1, { promptTokens: 300, slo: slo(59) })
    played.arrives(2, { promptTokens: 10, slo: slo(100) })
    expect(played.step().items[0]!.id).toBe(2)
  })
})

describe("relegation", () => {
  test("is of what would be late behind those before it, and only of that", () => {
    const played = playedWith({ hybridAlpha: 0 })
    played.arrives(1, { promptTokens: 300, slo: slo(40) })
    // After 35 ms it would take 25 more.
    played.arrives(2, { promptTokens: 200, slo: slo(59) })
    // The relegated one takes no time: 35 ms and 15.
    played.arrives(3, { promptTokens: 100, slo: slo(60) })
    played.runs()
    expect(demoted(played)).toEqual([[2, "wontFit"]])
    const tight = playedWith({ hybridAlpha: 0 })
    tight.arrives(1, { promptTokens: 300, slo: slo(40) })
    tight.arrives(2, { promptTokens: 200, slo: slo(60) })
    tight.runs()
    expect(demoted(tight)).toEqual([])
  })

  test("leaves a margin", () => {
    const played = playedWith({ hybridAlpha: 0, margin: 0.2 })
    // 15 ms, 18 with the margin.
    played.arrives(1, { promptTokens: 100, slo: slo(17.9) })
    played.arrives(2, { promptTokens: 100, slo: slo(18) })
    played.runs()
    expect(demoted(played)).toEqual([[1, "wontFit"]])
  })

  test("leaves the margin that steps call for where none is set", () => {
    const played = playedWith({ hybridAlpha: 0, margin: null })
    // About 17.2 ms.
    played.arrives(1, { promptTokens: 100, slo: slo(17) })
    played.arrives(2, { promptTokens: 100, slo: slo(17.5) })
    played.runs()
    expect(demoted(played)).toEqual([[1, "wontFit"]])
  })

  test("counts on steps as long as they were of late", () => {
    const second = (ttftMs: number) => {
      const played = playedWith({ hybridAlpha: 0 })
      played.arrives(9, { promptTokens: 100, slo: slo(100), maxOutputTokens: 1 })
      // Twice as long as predicted: a twentieth more from now on.
      played.step({}, 30_000)
      for (const [id, ms] of [
        [1, 20],
        [2, ttftMs],
      ] as const)
        played.arrives(id, { promptTokens: 100, slo: slo(ms) })
      played.runs()
      return demoted(played)
    }
    expect(second(31.6)).toEqual([])
    expect(second(31.4)).toEqual([[2, "wontFit"]])
  })

  test("gives a request what is left of the very batch", () => {
    const played = playedWith({ hybridAlpha: 0 })
    played.arrives(1, { promptTokens: 100, slo: slo(16) })
    played.arrives(2, { promptTokens: 100, slo: slo(24) })
    expect(shapeOf(played.step())).toEqual([
      [1, 100],
      [2, 50],
    ])
    expect(demoted(played)).toEqual([[2, "wontFit"]])
  })

  test("comes at once for what can never be on time, or was late", () => {
    const played = playedWith()
    played.arrives(1, { promptTokens: 100, slo: slo(14) })
    played.arrives(2, { promptTokens: 10, slo: slo(100, 1) })
    played.step()
    played.step({}, 50_000)
    played.step({}, 50_000)
    played.runs()
    expect(demoted(played)).toEqual([
      [1, "wontFit"],
      [2, "violated"],
    ])
  })

  test("is not for a request that only computes lost KV anew", () => {
    const played = playedWith({ hybridAlpha: 0 })
    played.arrives(1, { promptTokens: 10, slo: slo(30, 1) })
    played.step({}, 6_000)
    const { request, progress } = played.replica.withdraw(1)!
    // Due at 31 ms; 500 tokens before it.
    played.arrives(2, { promptTokens: 200, slo: slo(25) })
    played.arrives(request.id, { ...request, slo: slo(30, 1) }, progress)
    played.runs()
    expect(demoted(played)).toEqual([])
  })
})

describe("a batch", () => {
  test("has every decode, and chunks as long as the tightest of them can wait", () => {
    const played = playedWith()
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 10, slo: slo(20 * id, 1000) })
    played.step({}, 10_000)
    played.arrives(3, { promptTokens: 5000, slo: slo(100_000), maxOutputTokens: 1 })
    played.arrives(4, { promptTokens: 900, slo: slo(100_000), maxOutputTokens: 1 })
    played.step()
    expect(played.of("rejected").map(({ id }) => id)).toEqual([3])
    const tight = playedWith()
    // Its first token is out 8 ms early: the next one is due in 8 + 20 ms.
    tight.arrives(1, { promptTokens: 20, slo: slo(15, 20) })
    tight.step({}, 7_000)
    tight.arrives(2, { promptTokens: 900, slo: slo(100_000) })
    expect(shapeOf(tight.step())).toEqual([
      [1, 1],
      [2, 229],
    ])
  })

  test("is never longer than the longest", () => {
    const played = playedWith({ maxBatchUs: 20_000 })
    played.arrives(1, { promptTokens: 900, slo: slo(100_000) })
    expect(shapeOf(played.step())).toEqual([[1, 150]])
  })

  test("gives the relegated what is left", () => {
    const played = playedWith()
    played.arrives(1, { promptTokens: 100, slo: slo(14) })
    played.arrives(2, { promptTokens: 100, slo: slo(100) })
    // 15 ms, and 5 more: so far may work without a promise stretch it.
    expect(shapeOf(played.step())).toEqual([
      [2, 100],
      [1, 50],
    ])
  })

  test("takes KV from the relegated", () => {
    const played = playedWith({}, { kvTokens: 256, contextTokens: 256 })
    played.arrives(1, { promptTokens: 200, slo: slo(1), maxOutputTokens: 20 })
    played.step()
    played.arrives(2, { promptTokens: 100, slo: slo(1000) })
    // What it lost is computed anew in the room that is left.
    expect(played.step().items).toMatchObject([
      { id: 2, tokens: 100 },
      { id: 1, position: 0 },
    ])
    expect(played.of("preempted").map(({ id }) => id)).toEqual([1])
  })

  test("goes on with something where not even a least chunk is short enough", () => {
    const played = playedWith({ maxBatchUs: 6_000 }, { minChunkTokens: 64 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 200, slo: slo(1000 * id) })
    expect(shapeOf(played.step())).toEqual([[1, 65]])
  })

  test("drafts as many tokens as it is told, leaving room for every decode", () => {
    const drafts = (maxBatchTokens: number) => {
      const played = playedWith({ fixedDraft: 3 }, { maxBatchTokens })
      for (const id of [1, 2, 3]) played.arrives(id, { promptTokens: 2, slo: slo(100) })
      played.step()
      return played.step().items.map(({ draft }) => draft)
    }
    expect(drafts(64)).toEqual([3, 3, 3])
    expect(drafts(6)).toEqual([3, 0, 0])
  })

  test("drafts where speculation is on and pays", () => {
    const cost = { ...COST, pieces: [{ step: 20_000, tokens: 10 }] }
    const played = new Played({ policy: "qoserve", cost, options: { speculation: "on" } })
    played.arrives(1, { slo: slo(1000) })
    played.step()
    expect(played.step().items[0]!.draft).toBeGreaterThan(3)
  })
})
