/** Which prompts come before those of tenants ahead. A step is 5 ms and 0.1 ms a token. */
import { expect, test } from "vitest"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { pressingOf } from "./pressing.ts"

const AHEAD = new Set([1])

/** Prompts as [tenant, tokens, due ms]; this batch may last 50 ms. */
function found(...prompts: [tenant: number, tokens: number, dueMs: number][]) {
  const batch = new BatchBuilder(contextOf({ ...LIMITS, kvTokens: 64_000 }, { margin: 0 }))
  batch.reset()
  const requests = prompts.map(([tenant, promptTokens, dueMs], id) => {
    const slo = {
      ttftUs: dueMs * 1000,
      ttftSlowdown: 0,
      tpotUs: 1e9,
      thinkingTpotUs: 1e9,
      maxGapUs: Infinity,
    }
    return liveOf(id, { tenant, promptTokens, slo })
  })
  const { now, othersWaitUs } = pressingOf(requests, AHEAD, batch, 50_000, 0)
  return { ids: now.map(({ id }) => id), waitMs: othersWaitUs / 1000 }
}

test("a prompt waits that the next batch can do in time, and says how long", () => {
  // 100 tokens: 15 ms.
  expect(found([0, 100, 65])).toEqual({ ids: [], waitMs: 50 })
  expect(found([0, 100, 64])).toEqual({ ids: [0], waitMs: Infinity })
})

test("those that are due before it are done first", () => {
  expect(found([0, 100, 70], [0, 100, 74])).toEqual({ ids: [1], waitMs: 55 })
  expect(found([0, 100, 70], [0, 100, 75])).toEqual({ ids: [], waitMs: 50 })
})

test("prompts of tenants ahead neither press nor stand in the way", () => {
  expect(found([1, 100, 20], [0, 100, 65])).toEqual({ ids: [], waitMs: 50 })
})

test("what is late already, or due much later, does not press", () => {
  expect(found([0, 100, 0], [0, 3000, 11_000])).toEqual({ ids: [], waitMs: Infinity })
})
