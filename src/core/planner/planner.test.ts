/** Admission, against brute force where it is possible. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { DEFAULT_OPTIONS } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, LIMITS, liveOf, runs } from "../testing.ts"
import { Admission } from "./admission.ts"
import { sortByDue, sortByKey } from "./due-order.ts"
import { Demand } from "./feasible.ts"
import { Speculator } from "./speculation/speculator.ts"
import { byDue } from "./work.ts"

const prompts = fc.array(
  fc.record({ promptTokens: fc.integer({ min: 1, max: 900 }), ttftMs: fc.integer({ min: 5, max: 900 }) }),
  { minLength: 1, maxLength: 14 },
)
const requestsOf = (shapes: { promptTokens: number; ttftMs: number }[]) =>
  shapes.map(({ promptTokens, ttftMs }, id) =>
    liveOf(id, {
      promptTokens,
      maxOutputTokens: 1,
      slo: { ttftUs: ttftMs * 1000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity },
    }),
  )

describe("admission", () => {
  const options = { ...DEFAULT_OPTIONS, margin: 0 }
  const exact = (limits = LIMITS) => contextOf(limits, options)
  const running = (...decodes: LiveRequest[]) => ({
    decodes,
    overdue: [],
    slackNeeded: 0,
    speculator: new Speculator(options),
  })

  /** Feasible by the same fluid test, prefix by prefix of the deadline order. */
  function feasible(set: readonly ReturnType<typeof liveOf>[]): boolean {
    const demand = new Demand(COST, LIMITS)
    demand.reset(0, options.maxBatchUs, 1, 0)
    const last = Math.max(...set.map((r) => r.dueUs))
    for (const request of [...set].sort(byDue)) {
      demand.addPrefill(0, request.owed, 1)
      const { dueUs, tpotUs, known } = request
      demand.addStream({ startUs: dueUs, tpotUs, remaining: 1, contextTokens: known, length: 1, expected: 1 })
      if (!demand.fits(request.dueUs)) return false
    }
    return demand.fits(last + 2 * options.maxBatchUs) && demand.fits(last + 10 * options.maxBatchUs)
  }

  test("what it keeps can be done in time", () => {
    fc.assert(
      fc.property(prompts, (shapes) => {
        const requests = requestsOf(shapes).sort(byDue)
        const kept = [...new Admission(options).select(running(), requests, exact(), 0)]
        expect(kept.length === 0 || feasible(kept)).toBe(true)
      }),
    )
  })

  test("keeps nearly as many as the best subset", () => {
    // Moore–Hodgson is optimal for one machine and total work; the fluid test's shared iterations cost one now and
    // then, very rarely two.
    let [total, best] = [0, 0]
    for (const shapes of fc.sample(
      prompts.filter(({ length }) => length <= 8),
      { numRuns: runs(120), seed: 1 },
    )) {
      const requests = requestsOf(shapes).sort(byDue)
      const context = exact({ ...LIMITS, maxSequences: 16 })
      const kept = new Admission(options).select(running(), requests, context, 0).size
      let most = 0
      for (let bits = 1; bits < 1 << requests.length; bits++) {
        const subset = requests.filter((_, i) => bits & (1 << i))
        if (subset.length > most && feasible(subset)) most = subset.length
      }
      expect(kept).toBeGreaterThanOrEqual(most - 2)
      total += kept
      best += most
    }
    expect(total / best).toBeGreaterThan(0.97)
  })

  test("revokes the largest for two small ones, unless admission is firm", () => {
    const large = liveOf(1, {
      promptTokens: 900,
      slo: { ttftUs: 110_000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity },
    })
    const small = [2, 3].map((id) =>
      liveOf(id, {
        promptTokens: 300,
        slo: { ttftUs: 120_000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity },
      }),
    )
    large.admitted = true
    const all = [large, ...small]
    expect(new Admission(options).select(running(), all, exact(), 0)).toEqual(new Set(small))
    expect(
      new Admission({ ...options, admission: "firm" }).select(running(), all, exact(), 0).has(large),
    ).toBe(true)
  })

  test("turns down what takes most time for its worth", () => {
    const slo = { ttftUs: 110_000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
    const chosen = (worth: number, admission: "revocable" | "firm") => {
      const large = liveOf(1, { promptTokens: 900, slo, worth })
      const small = [2, 3].map((id) => liveOf(id, { promptTokens: 300, slo, worth: 2 }))
      const all = [large, ...small]
      const kept = new Admission({ ...options, admission }).select(running(), all, exact(), 0)
      return all.map((request) => kept.has(request))
    }
    for (const admission of ["revocable", "firm"] as const) {
      expect(chosen(2, admission)).toEqual([false, true, true])
      expect(chosen(7, admission)).toEqual([true, false, false])
    }
  })

  test("leaves room for the decodes that run", () => {
    const request = liveOf(9, {
      promptTokens: 500,
      slo: { ttftUs: 70_000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity },
    })
    expect(new Admission(options).select(running(), [request], exact(), 0).size).toBe(1)
    const decode = liveOf(1, {
      slo: { ttftUs: 0, ttftSlowdown: 0, tpotUs: 10_000, thinkingTpotUs: 10_000, maxGapUs: Infinity },
    })
    decode.computed = 100
    decode.emit(1, -1, 0, () => {})
    // Seven iterations of 5 ms for the decode in 70 ms: 500 tokens of 0.1 ms do not fit beside them.
    expect(new Admission(options).select(running(decode), [request], exact(), 0).size).toBe(0)
  })

  test.each([
    ["counts on the slack of a decode that is ahead", Infinity, 1],
    ["counts on it whatever its longest gap", 12_000, 1],
    ["counts on none where the gap is shorter than the TPOT", 9000, 0],
  ])("%s", (_, maxGapUs, kept) => {
    const slo = { ttftUs: 70_000, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
    const request = liveOf(9, { promptTokens: 500, slo })
    const pace = { ttftUs: 1_000_000, ttftSlowdown: 0, tpotUs: 10_000, thinkingTpotUs: 10_000, maxGapUs }
    const decode = liveOf(1, { slo: pace })
    decode.computed = 100
    decode.emit(1, -1, 0, () => {})
    expect(new Admission(options).select(running(decode), [request], contextOf(), 0).size).toBe(kept)
  })

  test("drops for memory what could never be held at once", () => {
    const limits = { ...LIMITS, kvTokens: 1024 }
    const requests = [1, 2, 3].map((id) =>
      liveOf(id, {
        promptTokens: 400,
        slo: { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity },
      }),
    )
    expect(new Admission(options).select(running(), requests, exact(limits), 0).size).toBe(2)
  })
})

test("sorts by due time, then by arrival, as a comparison sort does", () => {
  const dues = fc.array(
    fc.oneof(fc.integer({ min: 0, max: 5 }), fc.constant(Infinity), fc.double({ noNaN: true })),
    {
      maxLength: 300,
    },
  )
  fc.assert(
    fc.property(dues, fc.boolean(), (all, backwards) => {
      const requests = all.map((dueUs, id) => Object.assign(liveOf(id), { dueUs }))
      if (backwards) requests.reverse()
      const expected = [...requests].sort((a, b) =>
        a.dueUs === b.dueUs ? a.order - b.order : a.dueUs < b.dueUs ? -1 : 1,
      )
      sortByDue(requests)
      expect(requests.map((r) => r.id)).toEqual(expected.map((r) => r.id))
    }),
  )
})

test("sorts by other numbers in the same way, whatever is due when", () => {
  const keys = fc.array(fc.oneof(fc.integer({ min: 0, max: 5 }), fc.double({ noNaN: true })), {
    maxLength: 300,
  })
  fc.assert(
    fc.property(keys, (all) => {
      const requests = all.map((_, id) => Object.assign(liveOf(id), { dueUs: -id }))
      const expected = requests.map(({ id }) => id).sort((a, b) => all[a]! - all[b]! || a - b)
      sortByKey(requests, Float64Array.from(all))
      expect(requests.map(({ id }) => id)).toEqual(expected)
    }),
  )
})
