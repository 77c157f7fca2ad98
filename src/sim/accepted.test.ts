/** The luck of simulated speculation: the stated rate, the same every time, capped by what was drafted. */
import { expect, test } from "vitest"
import { acceptedTokens } from "./accepted.ts"

test("accepts each token with the stated probability until the first refusal", () => {
  const counts = [0, 0, 0, 0, 0]
  const draws = 40_000
  for (let i = 0; i < draws; i++) counts[acceptedTokens(5, i % 200, Math.floor(i / 200) * 5, 4, 0.7)]!++
  const expected = [0.3, 0.21, 0.147, 0.1029, 0.2401]
  for (const [n, share] of expected.entries())
    expect(Math.abs(counts[n]! / draws - share)).toBeLessThan(0.008)
})

test("depends on seed, request and place alone", () => {
  const run = (seed: number) => Array.from({ length: 64 }, (_, i) => acceptedTokens(seed, i, 3, 6, 0.6))
  expect(run(1)).toEqual(run(1))
  expect(run(1)).not.toEqual(run(2))
  expect(acceptedTokens(1, 1, 0, 0, 0.9)).toBe(0)
  expect(acceptedTokens(1, 1, 0, 8, 1)).toBe(8)
  expect(acceptedTokens(1, 1, 0, 8, 0)).toBe(0)
})
