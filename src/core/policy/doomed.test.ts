/** What cannot be on time any more, and what still can. */
import { describe, expect, test } from "vitest"
import { KvAccount } from "../kv/account.ts"
import { Calibration } from "../learn/calibration.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { aloneUs, demoteDoomed, isDoomed } from "./doomed.ts"

/** 100 tokens take 15 ms alone, and are due after 20 ms. */
const slo = { ttftUs: 20_000, ttftSlowdown: 0, maxGapUs: Infinity, tpotUs: 10_000, thinkingTpotUs: 10_000 }
const short = () => liveOf(1, { promptTokens: 100, slo })

describe("a request without its first token", () => {
  test("is doomed once its prefill alone would end too late, not before", () => {
    expect(isDoomed(short(), contextOf(), 5_000)).toBe(false)
    expect(isDoomed(short(), contextOf(), 5_001)).toBe(true)
    expect(isDoomed(short(), contextOf(), 20_001)).toBe(true)
  })

  test("is doomed sooner where steps with prefill were seen to take longer", () => {
    const calibration = new Calibration()
    for (let i = 0; i < 500; i++) calibration.observe("mixed", 1000, 1500)
    const context = contextOf(LIMITS, { calibration })
    expect(isDoomed(short(), context, 0)).toBe(true)
    for (let i = 0; i < 500; i++) calibration.observe("mixed", 1000, 500)
    expect(isDoomed(short(), context, 12_000)).toBe(false)
  })

  test("needs only the rest of its prefill: what is in place, or can be shared, takes no time", () => {
    const begun = short()
    begun.computed = 60
    expect(isDoomed(begun, contextOf(), 11_000)).toBe(false)
    expect(isDoomed(begun, contextOf(), 11_001)).toBe(true)

    const prefix = [1, 2, 3]
    const kv = new KvAccount(LIMITS)
    kv.attach(9, prefix, -1, null)
    kv.grow(9, 48)
    kv.computed(9, 48)
    const sharing = liveOf(1, { promptTokens: 100, slo, prefix })
    // 52 tokens are left.
    expect(isDoomed(sharing, contextOf(LIMITS, { kv }), 9_800)).toBe(false)
    expect(isDoomed(sharing, contextOf(LIMITS, { kv }), 9_801)).toBe(true)
  })

  test("needs all of it again when its KV was lost, whatever was asked before", () => {
    const request = short()
    for (const [computed, lastUs] of [
      [60, 11_000],
      [0, 5_000],
      [60, 11_000],
    ] as const) {
      request.computed = computed
      expect(isDoomed(request, contextOf(), lastUs)).toBe(false)
      expect(isDoomed(request, contextOf(), lastUs + 1)).toBe(true)
    }
  })

  test("takes as many steps as the engine's batches make of it", () => {
    // 600 tokens: two steps of 5 ms, and 60 ms.
    const long = liveOf(1, { promptTokens: 600, slo: { ...slo, ttftUs: 70_000 } })
    expect(isDoomed(long, contextOf(), 0)).toBe(false)
    expect(isDoomed(long, contextOf(), 1)).toBe(true)
  })
})

test("the time of a prefill alone is of what is left now, whatever was asked before", () => {
  const request = short()
  const context = contextOf()
  const asked = () => [aloneUs(request, context), aloneUs(request, context)]
  expect(asked()).toEqual([15_000, 15_000])
  request.computed = 50
  expect(asked()).toEqual([10_000, 10_000])
  request.output = 1
  expect(asked()).toEqual([10_100, 10_100])
})

describe("a request that has begun to answer", () => {
  const none = () => {}

  test("is not doomed while no token of it was late, however late it is now", () => {
    const request = short()
    request.computed = 100
    request.emit(1, -1, 20_000, none)
    expect(isDoomed(request, contextOf(), 1e9)).toBe(false)
  })

  test("is doomed when one was", () => {
    const request = short()
    request.computed = 100
    request.emit(1, -1, 20_001, none)
    expect(isDoomed(request, contextOf(), 20_001)).toBe(true)
  })
})

test("the doomed are demoted, once, and told why", () => {
  const demoted: [number, string][] = []
  const context = contextOf(LIMITS, {
    actions: {
      demoted: (request, reason) => demoted.push([request.id, reason]),
      ...{ promoted() {}, admitted() {}, preempted() {} },
    },
  })
  const [inTime, tooLong, late] = [
    liveOf(1, { slo }),
    liveOf(2, { promptTokens: 500, slo }),
    liveOf(3, { slo }),
  ]
  const flex = liveOf(4, { promptTokens: 500, slo, tier: "bestEffort" })
  late.emit(1, -1, 30_000, () => {})
  const all = [inTime, tooLong, late, flex]
  demoteDoomed(all, context, 0)
  demoteDoomed(all, context, 0)
  expect(demoted).toEqual([
    [2, "wontFit"],
    [3, "violated"],
  ])
  expect(all.map(({ tier }) => tier)).toEqual(["slo", "bestEffort", "bestEffort", "bestEffort"])
})
