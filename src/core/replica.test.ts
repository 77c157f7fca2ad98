/** What a replica decides, and what of that is told. */
import { describe, expect, test } from "vitest"
import type { Policy } from "./policy/policy.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

describe("a decision", () => {
  test("waits for the engine, and for something to do", () => {
    const played = new Played()
    expect(played.poll()).toEqual([])
    played.arrives(1)
    const batch = played.runs()
    played.arrives(2)
    expect(played.poll()).toEqual([])
    played.done(batch)
    expect(aboard(played.runs())).toEqual([1, 2])
  })

  test("says how long the batch should take, and numbers it", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 100 })
    expect(played.step()).toMatchObject({ number: 1, predictedUs: 15_000, evict: [], release: [] })
    expect(played.step()).toMatchObject({ number: 2, predictedUs: 5_100 })
  })

  test("marks when a request began: once", () => {
    for (const startUs of [0, 3_000]) {
      const played = new Played()
      played.nowUs = startUs
      played.arrives(1, { maxOutputTokens: 2 })
      played.step()
      played.step()
      played.poll()
      expect(played.of("finished")[0]!.outcome.startedUs).toBe(startUs)
    }
  })
})

test("what a decision makes of requests is told", () => {
  const policy = (): Policy => ({
    name: "spy",
    decide: ([request], { context }) => {
      context.demote(request!, "wontFit")
      context.promote(request!)
      context.admit(request!)
    },
  })
  const played = new Played({ policy })
  played.arrives(1)
  expect(played.poll()).toEqual([
    { type: "demoted", id: 1, reason: "wontFit" },
    { type: "promoted", id: 1 },
    { type: "admitted", id: 1 },
  ])
})

test("a request that gives its KV up to another is told", () => {
  const played = new Played({ limits: { ...LIMITS, kvTokens: 128, contextTokens: 128 } })
  for (const id of [1, 2]) played.arrives(id, { promptTokens: 64 })
  played.step()
  played.step()
  expect(played.of("preempted")).toEqual([{ type: "preempted", id: 2 }])
})

test("a cached request that gives up blocks is trimmed with the batch that needs them, and only with it", () => {
  const played = new Played({ limits: { ...LIMITS, kvTokens: 128, contextTokens: 128 } })
  played.arrives(1, { promptTokens: 64, prefix: [1, 2, 3, 4], maxOutputTokens: 1 })
  expect(played.step()).not.toHaveProperty("trim")
  played.arrives(2, { promptTokens: 90, maxOutputTokens: 20 })
  expect(played.step()).toMatchObject({ trim: [{ id: 1, tokens: 32 }], release: [] })
  expect(played.step()).not.toHaveProperty("trim")
})
