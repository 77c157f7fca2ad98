/** What an engine's clock shows, from messages that were on their way for a while. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { EngineClock } from "./engine-clock.ts"

test("before the first message it is taken for ours", () => {
  expect(new EngineClock().at(123.4)).toBe(123)
})

test("the message that took least tells the clocks apart; the others have waited", () => {
  const clock = new EngineClock()
  // Ours is 1 s ahead; messages take 300, 50 and 2000 µs.
  for (const [sentUs, tookUs] of [
    [100, 300],
    [1100, 50],
    [5100, 2000],
  ] as const)
    clock.heard(sentUs, 1_000_000 + sentUs + tookUs)
  expect(clock.at(1_010_050)).toBe(10_000)
  expect(clock.lagUs(5100, 1_000_000 + 5100 + 2000)).toBe(1950)
  expect(clock.lagUs(1100, 1_000_000 + 1100 + 50)).toBe(0)
})

test("a clock that drifts is followed within two minutes", () => {
  const clock = new EngineClock()
  // The engine's runs slow by 100 µs a second: ours gets ahead.
  const engineUs = (ourUs: number) => ourUs - 1_000_000 - ourUs / 10_000
  for (let ourUs = 0; ourUs <= 600e6; ourUs += 1e6) clock.heard(engineUs(ourUs), ourUs)
  expect(Math.abs(clock.at(600e6) - engineUs(600e6))).toBeLessThan(125 * 100)
})

test("it never shows more than the engine's clock does", () => {
  const delays = fc.array(fc.nat(5_000), { minLength: 1, maxLength: 50 })
  fc.assert(
    fc.property(delays, fc.integer({ min: -(10 ** 9), max: 10 ** 9 }), (all, offsetUs) => {
      const clock = new EngineClock()
      let ourUs = 0
      for (const tookUs of all) {
        ourUs += 10_000
        clock.heard(ourUs - offsetUs - tookUs, ourUs)
      }
      const least = Math.min(...all)
      expect(clock.at(ourUs)).toBe(ourUs - offsetUs - least)
    }),
  )
})
