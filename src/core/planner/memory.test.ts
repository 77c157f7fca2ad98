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

  test("of one request that may end early: its mean and two spreads, or all of it where that is less", () => {
    // It holds 100 tokens; in eight of ten cases it goes on for 16 more, in none beyond.
    const outlook = Float64Array.from(OUTLOOK_TOKENS, (_, k) => [1, 0.8][k] ?? 0)
    const forecast = new MemoryForecast()
    forecast.add(100, 1000, outlook)
    expect(forecast.peakTokens()).toBe(116)
    // Twenty of them: the spread counts.
    for (let i = 1; i < 20; i++) forecast.add(100, 1000, outlook)
    const sigma = Math.sqrt(20 * 116 * 116 * 0.8 * 0.2)
    expect(forecast.peakTokens()).toBeCloseTo(20 * 0.8 * 116 + 2 * sigma)
    for (let i = 0; i < 10; i++) forecast.add(100, 1000, outlook, -1)
    expect(forecast.peakTokens()).toBeCloseTo(10 * 116)
  })

  test("is zero of nothing, and what is fixed is held, whichever request ends", () => {
    const forecast = new MemoryForecast()
    expect(forecast.peakTokens()).toBe(0)
    forecast.addFixed(64)
    expect(forecast.peakTokens()).toBe(64)
    const half = Float64Array.from(OUTLOOK_TOKENS, () => 0.5)
    for (let i = 0; i < 100; i++) forecast.add(100, 10, half)
    const sigma = Math.sqrt(100 * 110 * 110 * 0.25)
    expect(forecast.peakTokens()).toBeCloseTo(64 + 100 * 55 + 2 * sigma)
    forecast.clear()
    expect(forecast.peakTokens()).toBe(0)
    // Nothing of what was there comes back with the next.
    const fresh = new MemoryForecast()
    for (const one of [forecast, fresh]) for (let i = 0; i < 50; i++) one.add(100, 10, half)
    expect(forecast.peakTokens()).toBe(fresh.peakTokens())
    for (const one of [forecast, fresh]) one.addFixed(1e6)
    expect(forecast.peakTokens()).toBe(fresh.peakTokens())
  })

  test("counts a request no further than it may go", () => {
    // Four tokens: it is gone by the next time that is looked at.
    const forecast = new MemoryForecast()
    forecast.add(100, 4, endless)
    forecast.add(10, 1000, endless)
    // 104 and 26 after 16 tokens; 10 + 1,000 alone at the end.
    expect(forecast.peakTokens()).toBe(1010)
    const both = new MemoryForecast()
    both.add(2000, 4, endless)
    both.add(10, 30, endless)
    expect(both.peakTokens()).toBe(2004 + 26)
  })

  test("has a ceiling of two sums", () => {
    const ceiling = new MemoryCeiling()
    expect(ceiling.peakTokens).toBe(0)
    ceiling.addFixed(64)
    expect(ceiling.peakTokens).toBeCloseTo(64, 6)
    // Of 100 tokens held 40 are output already.
    ceiling.add(100, { tokens: 500, squares: 8000, start: 40 })
    expect(ceiling.peakTokens).toBeCloseTo(64 + 60 + 500 + 2 * Math.sqrt(60 ** 2 / 2 + 2 * 8000), 3)
    // A bin begins after what is held: nothing of it is less than nothing.
    const early = new MemoryCeiling()
    early.add(30, { tokens: 500, squares: 0, start: 40 })
    expect(early.peakTokens).toBeCloseTo(500, 5)
    ceiling.clear()
    expect(ceiling.peakTokens).toBe(0)
  })
})
