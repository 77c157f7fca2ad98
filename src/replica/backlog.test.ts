/** A backlog is what the planner says of it, and is not asked for at each refusal. */
import { expect, it } from "vitest"
import { Backlog } from "./backlog.ts"

it("is the time of the prompts that are owed, asked for now and then", () => {
  const now = { ms: 0 }
  const snapshot = { prefillBacklogTokens: 3000, prefillUsPerToken: 500 }
  let asked = 0
  const backlog = new Backlog(
    () => {
      asked++
      return snapshot
    },
    () => now.ms,
  )
  expect(backlog.ms).toBe(1500)
  snapshot.prefillBacklogTokens = 100
  now.ms = 49
  expect([backlog.ms, asked]).toEqual([1500, 1])
  now.ms = 50
  expect([backlog.ms, asked]).toEqual([50, 2])
})
