/** What is kept of answers, for how long, and what is said of them. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Account, Miss, Outcome } from "../core/protocol.ts"
import { Journal } from "./journal.ts"
import { answerJson, reasonJson } from "./json.ts"
import { logLine } from "./log-line.ts"
import { loadThatKeeps, PART_NAMES } from "./reason.ts"
import { accountOf, missOf, outcomeOf, recordOf, TIME_PARTS, type TimePart } from "./testing.ts"

describe("the journal", () => {
  it("keeps the last ones, in number and in bytes, and finds each by its id", () => {
    const step = fc.record({ id: fc.constantFrom("a", "b", "c", "d"), long: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 9 }), (steps, most) => {
        const mostBytes = 9000
        const journal = new Journal({ most, mostBytes })
        const all = steps.map(({ id, long }, at) => {
          const error = long ? { code: "x", message: "y".repeat(1000) } : null
          return recordOf({ id, endedMs: at, error })
        })
        for (const record of all) journal.add(record)
        const kept = journal.recent({ most: 1000, tenant: null })
        expect(kept).toEqual(all.slice(all.length - kept.length).reverse())
        expect(journal.size).toBe(kept.length)
        expect(kept.length).toBeLessThanOrEqual(most)
        expect(journal.bytes).toBeLessThanOrEqual(mostBytes)
        // No more are forgotten than have to be.
        if (kept.length < Math.min(most, all.length)) expect(journal.bytes).toBeGreaterThan(mostBytes - 3000)
        for (const id of ["a", "b", "c", "d"])
          expect(journal.find(`chatcmpl-${id}`, null)).toEqual(kept.filter((one) => one.id === id).reverse())
      }),
      { numRuns: 100 },
    )
  })

  it("tells what was missed, since when, and only what is a tenant's", () => {
    const journal = new Journal()
    journal.add(recordOf({ id: "kept", endedMs: 1, tenant: "a", outcome: outcomeOf({ attained: true }) }))
    journal.add(recordOf({ id: "missed", endedMs: 2, tenant: "a" }))
    journal.add(recordOf({ id: "refused", endedMs: 3, tenant: "b", end: "refused", outcome: null }))
    journal.add(recordOf({ id: "left", endedMs: 4, tenant: "a", end: "cancelled", outcome: null }))
    journal.add(recordOf({ id: "wrong", endedMs: 4, tenant: "a", end: "invalid", outcome: null }))
    journal.add(recordOf({ id: "free", endedMs: 5, tenant: "a", tier: "bestEffort" }))
    const ids = (asked: Partial<Parameters<Journal["recent"]>[0]>) =>
      journal.recent({ most: 10, tenant: null, ...asked }).map(({ id }) => id)
    expect(ids({})).toEqual(["free", "wrong", "left", "refused", "missed", "kept"])
    expect(ids({ missed: true })).toEqual(["refused", "missed"])
    expect(ids({ tenant: "a" })).toEqual(["free", "wrong", "left", "missed", "kept"])
    expect(ids({ sinceMs: 4 })).toEqual(["free", "wrong", "left"])
    expect(ids({ most: 2 })).toEqual(["free", "wrong"])
    expect(journal.find("missed", "b")).toEqual([])
    expect(journal.find("missed", "a")).toHaveLength(1)
  })
})

describe("the reason", () => {
  it("is none where all was kept, or nothing was asked for", () => {
    expect(reasonJson(outcomeOf({ attained: true }))).toBeNull()
    expect(reasonJson(outcomeOf({ tier: "bestEffort" }))).toBeNull()
  })

  it("names the bound, and what would have been kept", () => {
    const miss = missOf({ cause: "turnedDown", bound: "memory", lateUs: 50_000 }, { queue: 200_000 })
    const account = accountOf({ miss, needs: { ttftUs: 250_000, tpotUs: 0, maxGapUs: 0 } })
    expect(reasonJson(outcomeOf({ account }))).toEqual({
      ...{ code: "turned_down", bound: "memory", late_ms: 50 },
      text: "the first token was 50 ms late by its TTFT: it was turned down for lack of KV memory: with it, what was to be kept would not have fitted",
      would_have_kept: { ttft_ms: 250, load: 0.75 },
    })
  })

  it("says how much of the time the cause took", () => {
    const changes = { cause: "slow", objective: "tpot", token: 9, lateUs: 1500 } as const
    const miss = missOf(changes, { decode: 5000, slow: 7000, others: 1000 })
    expect(reasonJson(outcomeOf({ account: accountOf({ miss }) }))).toMatchObject({
      code: "slow_engine",
      text: "token 9 was 1.5 ms late by its TPOT: steps that took longer than predicted took 7 of the 13 ms since its first token",
      // Less load would not have made the engine faster.
      would_have_kept: { load: null },
    })
  })

  it("is elsewhere where what was late is not known here, and unknown where nothing is", () => {
    expect(reasonJson(outcomeOf({}))).toMatchObject({ code: "unknown", would_have_kept: null })
    expect(reasonJson(outcomeOf({ account: accountOf({}) }))).toMatchObject({
      code: "elsewhere",
      late_ms: null,
    })
  })

  it("has a sentence and a name for every cause", () => {
    const others = TIME_PARTS.filter((part) => part !== "prefill" && part !== "decode")
    for (const cause of ["own", "revoked", ...others] as Miss["cause"][]) {
      const took = TIME_PARTS.includes(cause as TimePart) ? { [cause]: 9000 } : { prefill: 9000 }
      const reason = reasonJson(outcomeOf({ account: accountOf({ miss: missOf({ cause }, took) }) }))!
      expect(reason.text).not.toMatch(/undefined|NaN/)
      expect([...Object.values(PART_NAMES), "own_work", "revoked"]).toContain(reason.code)
    }
  })

  it("counts on less load only for what it waited for", () => {
    expect(loadThatKeeps(missOf({ lateUs: 30 }, { queue: 40, others: 20, prefill: 500 }))).toBe(0.5)
    expect(loadThatKeeps(missOf({ lateUs: 60 }, { queue: 40, others: 20, prefill: 500 }))).toBeNull()
  })
})

it("an answer as JSON has parts that add up, in ms", () => {
  const parts = TIME_PARTS.map((_, i) => 1000 * i)
  const account: Account = { ...accountOf({}), parts, toFirst: null }
  const outcome: Outcome = outcomeOf({ account, arrivalUs: 0, finishedUs: 55_000, attained: true })
  const json = answerJson(recordOf({ outcome }))
  expect(Object.values(json.time!).reduce((sum, ms) => sum + ms, 0)).toBe(json.e2e_ms)
  expect(json).toMatchObject({ attained: true, reason: null, time_to_first_token: null, late_token: null })
  const unknown = answerJson(recordOf({ outcome: null, end: "refused", expectedWaitMs: 1234.5 }))
  expect(Object.keys(unknown).sort()).toEqual(Object.keys(json).sort())
  expect(unknown).toMatchObject({ attained: false, expected_wait_ms: 1235, time: null })
})

it("several answers are one line: all tokens, the first token, the longest gap, kept where all are", () => {
  const first = outcomeOf({ attained: true, firstTokenUs: 30_000, maxGapUs: 5000, outputTokens: 7 })
  const second = outcomeOf({ firstTokenUs: 20_000, maxGapUs: 9000, outputTokens: 5 })
  const records = [first, second].map((outcome, choice) => recordOf({ outcome, choice, choices: 2 }))
  expect(logLine(records)).toMatchObject({
    ...{ id: "r", tenant: "default", class: "chat", end: "stop", prompt_tokens: 100, output_tokens: 12 },
    ...{ ttft_ms: 20, max_gap_ms: 9, kept: false, reason: "unknown" },
  })
  expect(logLine(records.slice(0, 1))).toMatchObject({ kept: true })
  expect(logLine(records.slice(0, 1))).not.toHaveProperty("reason")
  const left = recordOf({ outcome: null, end: "cancelled" })
  expect(logLine([left])).toMatchObject({ kept: null, ttft_ms: null, max_gap_ms: null, end: "cancelled" })
  const error = { code: "queue_full", message: "full" }
  const refused = recordOf({ outcome: null, end: "refused", error })
  expect(logLine([refused])).toMatchObject({ kept: false, reason: "queue_full", why: "full" })
})
