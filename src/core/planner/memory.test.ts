/** The memory forecast against runs that are played token by token. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { Random } from "../../random.ts"
import { OUTLOOK_TOKENS, OutputLengths } from "../learn/output-lengths.ts"
import { MemoryCeiling, MemoryForecast } from "./memory.ts"

const endless = OutputLengths.endless(1).outlook(0, 0)

describe("the memory forecast", () => {
  test("of requests whose ends are certain is no less than their peak, and a grid step more at most", () => {
    const requests = fc.array(
      fc.record({ held: fc.integer({ min: 0, max: 2000 }), left: fc.integer({ min: 1, max: 3000 }) }),
      { minLength: 1, maxLength: 8 },
    )
    fc.assert(
      fc.property(requests, (all) => {
        const forecast = new MemoryForecast()
        let [peak, latest] = [0, 0]
        for (const { held, left } of all) {
          forecast.add(held, left, endless)
          const alive = all.filter((other) => other.left >= left)
          peak = Math.max(
            peak,
            alive.reduce((sum, other) => sum + other.held + left, 0),
          )
          latest += held + left
        }
        const grid = Math.max(...all.map(({ left }) => left)) * (Math.SQRT2 - 1) * all.length
        expect(forecast.peakTokens()).toBeGreaterThanOrEqual(peak)
        expect(forecast.peakTokens()).toBeLessThanOrEqual(Math.min(latest, peak + grid + 16 * all.length))
      }),
    )
  })

  test("what is taken back was never there", () => {
    const random = new Random("memory")
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 50; i++) lengths.grew(0, 0, random.integer(1, 3000))
    const [forecast, other] = [new MemoryForecast(), new MemoryForecast()]
    for (let i = 0; i < 30; i++) {
      const [held, left, output] = [random.integer(1, 4000), random.integer(1, 4000), random.integer(0, 4000)]
      forecast.add(held, left, lengths.outlook(0, output))
      if (i % 3 === 0) other.add(held, left, lengths.outlook(0, output))
      else forecast.add(held, left, lengths.outlook(0, output), -1)
    }
    expect(forecast.peakTokens()).toBeCloseTo(other.peakTokens(), 3)
  })

  test("never exceeds its ceiling, and comes near it", () => {
    const lengths = new OutputLengths(1)
    const random = new Random("ceiling")
    for (let round = 0; round < 200; round++) {
      const [forecast, ceiling] = [new MemoryForecast(), new MemoryCeiling()]
      for (let i = random.integer(1, 60); i > 0; i--) {
        const [held, left, output] = [
          random.integer(1, 4000),
          random.integer(1, 4000),
          random.integer(0, 4000),
        ]
        forecast.add(held + output, left, lengths.outlook(0, output))
        ceiling.add(held + output, lengths.bounds(0, output))
      }
      expect(forecast.peakTokens()).toBeLessThanOrEqual(ceiling.peakTokens)
      const [grown, seen] = [random.integer(1, 3000), random.integer(1, 3000)]
      lengths.grew(0, 0, grown)
      lengths.ended(0, seen)
    }
    const [forecast, ceiling] = [new MemoryForecast(), new MemoryCeiling()]
    for (let i = 0; i < 50; i++) {
      forecast.add(1000, 4000, lengths.outlook(0, 8 * i))
      ceiling.add(1000, lengths.bounds(0, 8 * i))
    }
    expect(ceiling.peakTokens).toBeLessThan(2 * forecast.peakTokens())
  })

  test("keeps a smaller share in reserve for many than for few", () => {
    const lengths = new OutputLengths(1)
    const share = (count: number) => {
      const forecast = new MemoryForecast()
      for (let i = 0; i < count; i++) forecast.add(1000, 1e6, lengths.outlook(0, 200))
      return forecast.peakTokens() / count
    }
    expect(share(400)).toBeLessThan(0.95 * share(4))
  })

  test("holds for outputs of thousands of tokens at all stages, within 5% of what they come to need", () => {
    const random = new Random("reasoning")
    const length = () => Math.ceil(random.lognormal(2900, 0.65))
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 500; i++) {
      const tokens = length()
      lengths.grew(0, 0, tokens)
      lengths.ended(0, tokens)
    }
    let enough = 0
    let [forecastSum, peakSum] = [0, 0]
    for (let run = 0; run < 40; run++) {
      const running: { left: number; output: number }[] = []
      while (running.length < 300) {
        const tokens = length()
        // Long ones are met more often.
        const output = random.integer(0, 20_000)
        if (output < tokens) running.push({ output, left: tokens - output })
      }
      const forecast = new MemoryForecast()
      for (const { output } of running) forecast.add(120 + output, 1e6, lengths.outlook(0, output))
      let peak = 0
      for (const grown of OUTLOOK_TOKENS) {
        let held = 0
        for (const { output, left } of running) if (left >= grown) held += 120 + output + grown
        peak = Math.max(peak, held)
      }
      if (forecast.peakTokens() >= peak) enough++
      forecastSum += forecast.peakTokens()
      peakSum += peak
    }
    expect(enough).toBeGreaterThanOrEqual(24)
    expect(forecastSum / peakSum).toBeGreaterThan(1)
    expect(forecastSum / peakSum).toBeLessThan(1.05)
  })
})
