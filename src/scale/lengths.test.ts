/** What is not known of arrivals is filled in from requests like them. */
import { expect, it } from "vitest"
import { completed } from "./lengths.ts"
import { arrival } from "./testing.ts"

const ended = (tokens: number, tookS: number, app = 0) =>
  arrival(0, {
    app,
    outputTokens: tokens,
    promptTokens: 10 * tokens,
    cachedTokens: tokens,
    endUs: tookS * 1e6,
  })
const live = (atS: number, more = {}) =>
  arrival(atS, { end: "live", endUs: 0, outputTokens: 0, promptTokens: 0, ...more })

it("leaves what is known as it is", () => {
  const all = [ended(5, 1), ended(6, 2)]
  expect(completed(all, 9e6)).toEqual(all)
})

it("takes those that still run for as long as one that took at least their time", () => {
  const all = [ended(5, 1), ended(50, 20), live(6), live(9.5)]
  const [, , long, young] = completed(all, 10e6)
  // It has run for 4 s already: only the long one took that.
  expect(long).toMatchObject({ outputTokens: 50, promptTokens: 500, cachedTokens: 50 })
  // Turn 3 of the two that took half a second.
  expect(young!.outputTokens).toBe(50)
  expect(completed([ended(5, 1), ended(50, 20), live(9.5)], 10e6)[2]!.outputTokens).toBe(5)
})

it("takes one that runs longer than any for the longest there was", () => {
  expect(completed([ended(50, 2), ended(5, 2), live(0)], 10e6)[2]!.outputTokens).toBe(50)
})

it("keeps to its own class, its limit, and what is known of it", () => {
  const all = [ended(5, 9, 0), ended(80, 9, 1), live(1, { app: 1, maxOutputTokens: 60, promptTokens: 33 })]
  const [, , one] = completed(all, 2e6)
  expect(one).toMatchObject({ outputTokens: 60, promptTokens: 33, cachedTokens: 0 })
  const given = { ...live(1), end: "cancelled" as const, endUs: 1.5e6, outputTokens: 7 }
  expect(completed([ended(5, 9), given], 2e6)[1]!.outputTokens).toBe(7)
})

it("has a guess where nothing has ended, and plays what was refused", () => {
  expect(completed([live(1), live(2, { end: "refused", endUs: 2e6 })], 3e6)).toMatchObject([
    { outputTokens: 256, promptTokens: 256 },
    { outputTokens: 256, promptTokens: 256 },
  ])
})

it("leaves room for an answer after the thoughts", () => {
  const thought = { ...ended(20, 9), thinking: true, thinkingTokens: 15 }
  const one = live(1, { thinking: true, maxOutputTokens: 10 })
  expect(completed([thought, one], 2e6)[1]).toMatchObject({ outputTokens: 10, thinkingTokens: 9 })
})
