/** What is hoped of engines' caches. */
import { expect, test } from "vitest"
import { CacheHopes } from "./cache-hopes.ts"

test("nothing before anything was seen; then a class's usual share", () => {
  const hopes = new CacheHopes()
  expect(hopes.tokens(0, null, 1000)).toBe(0)
  for (let i = 0; i < 60; i++) hopes.saw(0, null, { prompt: 1000, cached: 800, output: 10 })
  expect(hopes.tokens(0, null, 500)).toBeGreaterThan(380)
  expect(hopes.tokens(0, null, 500)).toBeLessThanOrEqual(400)
  expect(hopes.tokens(1, null, 500)).toBe(0)
})

test("a session's next round finds its last one, as far as engines keep those; never the whole prompt", () => {
  const hopes = new CacheHopes()
  hopes.saw(0, "a", { prompt: 1000, cached: 0, output: 100 })
  expect(hopes.tokens(0, "a", 1500)).toBe(1100)
  expect(hopes.tokens(0, "a", 900)).toBe(899)
  expect(hopes.tokens(0, "b", 1500)).toBe(0)
  for (let i = 0; i < 60; i++) hopes.saw(0, "a", { prompt: 1100, cached: 0, output: 0 })
  expect(hopes.tokens(0, "a", 1500)).toBeLessThan(10)
})
