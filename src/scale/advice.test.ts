/** The least number of replicas that is enough is found with few plays, and nothing is said where too little came. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { adviseNow, atOnce, leastRequests, Search, surely } from "./advice.ts"
import { attainmentOf, play } from "./play.ts"
import { arrival, poisson, SETUP } from "./testing.ts"

const OPTIONS = {
  target: 0.9,
  windowS: 120,
  coldStartS: 0,
  most: 2000,
  mostReplicas: 16,
  seed: 1,
  replicas: 2,
}
const forecast = (replicas: number, kept: number, total: number) => ({
  ...{ replicas, kept, total, idleShare: 0, missedTtftMs: null },
})

describe("the search", () => {
  /** Fleets that keep the target from `need` on. */
  const search = (now: number, most: number, need: number, total = 10_000) => {
    let plays = 0
    const made = new Search(now, most, 0.9, (count) => {
      plays++
      return forecast(count, Math.floor(total * Math.min(1, 0.95 ** Math.max(0, need - count) - 0.01)), total)
    })
    return { best: atOnce(made.run()), forecasts: made.forecasts, plays }
  }

  it("finds the least that is enough, however far away, in steps that double", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 300 }), (now, need) => {
        const { best, plays, forecasts } = search(now, 400, need)
        expect(best).toBe(need - Number(need > 1 && 0.95 - 0.01 >= 0.9))
        expect(plays).toBeLessThanOrEqual(5 + 2 * Math.ceil(Math.log2(2 + Math.abs(now - need))))
        expect(forecasts.map(({ replicas }) => replicas)).toEqual(
          expect.arrayContaining([...(now > 1 ? [now - 1] : []), now, now + 1]),
        )
      }),
    )
  })

  it("asks for the most there may be where none is enough", () => {
    expect(search(2, 12, 300).best).toBe(12)
    expect(search(12, 12, 300).best).toBe(12)
  })

  it("goes down only where few requests leave no doubt, up where they do", () => {
    const all = (kept: number) => new Search(3, 9, 0.9, (count) => forecast(count, kept, 10))
    // All of ten kept: 91% is sure. Nine of ten are enough to stay, not to go down.
    expect(atOnce(all(10).run())).toBe(1)
    expect(atOnce(all(9).run())).toBe(3)
    expect(atOnce(all(8).run())).toBe(9)
  })
})

describe("how sure a share is", () => {
  it("less than the share itself, the more so the fewer requests there are", () => {
    expect(surely({ kept: 0, total: 0 })).toBe(0)
    expect(surely({ kept: 9, total: 9 })).toBeCloseTo(0.9, 10)
    expect(surely({ kept: 950, total: 1000 })).toBeGreaterThan(surely({ kept: 95, total: 100 }))
    expect(surely({ kept: 950, total: 1000 })).toBeLessThan(0.95)
  })

  it("so many requests can show a target at all", () => {
    expect([0.5, 0.9, 0.95, 0.99].map(leastRequests)).toEqual([10, 10, 19, 99])
    for (const target of [0.91, 0.95, 0.99]) {
      const least = leastRequests(target)
      expect(surely({ kept: least, total: least })).toBeGreaterThanOrEqual(target - 1e-9)
    }
  })
})

describe("an advice", () => {
  const at = (ratePerSec: number, replicas = 2, more = {}) => {
    const arrivals = poisson(() => ratePerSec, 0, 120)
    return adviseNow(SETUP, { arrivals, sinceUs: 0, nowUs: 120e6 }, { ...OPTIONS, replicas, ...more })
  }

  it("says more replicas for more load, and that more keep more", () => {
    const [few, some, many] = [at(0.4), at(1.5), at(3)]
    expect(few.best).toBe(1)
    expect(some.best).toBeGreaterThan(few.best)
    expect(many.best).toBeGreaterThan(some.best)
    for (const { forecasts, best, reached, enough } of [few, some, many]) {
      expect([reached, enough]).toEqual([true, true])
      const kept = forecasts.map(attainmentOf)
      for (let i = 1; i < kept.length; i++) expect(kept[i]!).toBeGreaterThan(kept[i - 1]! - 0.03)
      expect(attainmentOf(forecasts.find(({ replicas }) => replicas === best)!)).toBeGreaterThanOrEqual(0.9)
      const less = forecasts.find(({ replicas }) => replicas === best - 1)
      if (less) expect(surely(less)).toBeLessThan(0.9)
    }
  })

  it("is the same for the same recording, and cut short says the same as played to the end", () => {
    expect(at(1.5)).toEqual(at(1.5))
    const whole = at(1.5, 2, { whole: true })
    const bare = ({ forecasts }: typeof whole) =>
      forecasts.map(({ replicas, kept, total }) => [replicas, kept, total])
    expect(bare(whole)).toEqual(bare(at(1.5)))
    expect(whole.forecasts[0]!.missedTtftMs!.p50).toBeGreaterThan(2000)
  })

  it("leaves the fleet as it is where too few came, but lets it idle with one replica", () => {
    const few = (count: number, more = {}) => {
      const arrivals = Array.from({ length: count }, (_, i) => arrival(30 + 3 * i, more))
      return adviseNow(SETUP, { arrivals, sinceUs: 0, nowUs: 120e6 }, { ...OPTIONS, replicas: 5 })
    }
    expect(few(4)).toMatchObject({ enough: false, best: 1, reached: false, requests: 4 })
    expect(few(0)).toMatchObject({ enough: false, best: 1, measured: null })
    // Nothing could keep these: five replicas are no worse than one, and nothing is known of more.
    const slo = { ...SETUP, ttftUs: 1, ttftSlowdown: 0, tpotUs: 1, thinkingTpotUs: 1, maxGapUs: Infinity }
    expect(few(4, { slo })).toMatchObject({ enough: false, best: 5 })
  })

  it("says what was kept of what it rests on", () => {
    const arrivals = poisson(() => 4, 0, 120).map((one, i) => ({ ...one, attained: i % 4 !== 0 }))
    const { measured } = adviseNow(SETUP, { arrivals, sinceUs: 0, nowUs: 120e6 }, OPTIONS)
    expect(measured).toBeCloseTo(0.75, 1)
  })

  it("of a part of a large fleet is in whole replicas of it", () => {
    const arrivals = poisson(() => 4, 0, 60)
    const options = { ...OPTIONS, most: 130, replicas: 8, mostReplicas: 32 }
    const advice = adviseNow(SETUP, { arrivals, sinceUs: 0, nowUs: 60e6 }, options)
    expect(advice.each).toBe(2)
    for (const { replicas } of advice.forecasts) expect(replicas % 2).toBe(0)
    expect(advice.best % 2).toBe(0)
    expect(advice.best).toBeGreaterThan(2)
  })
})

describe("forecast against what then happened", () => {
  /** What the fleet keeps of the minute after. */
  const then = (all: ReturnType<typeof poisson>, fromS: number, replicas: number) => {
    const arrivals = all.filter(({ atUs }) => atUs >= (fromS - 30) * 1e6 && atUs < (fromS + 75) * 1e6)
    return attainmentOf(
      play(SETUP, { arrivals, fromUs: fromS * 1e6, toUs: (fromS + 60) * 1e6 }, replicas, {
        seed: 9,
        untilDecided: true,
      }),
    )
  }

  it("under even load is off by a few points, and the fleet advised keeps the target", () => {
    // Single minutes of a fleet at its target scatter by five points around it.
    const SEEDS = 16
    const errors: number[] = []
    let kept = 0
    for (let seed = 1; seed <= SEEDS; seed++) {
      const all = poisson(() => 2, 0, 260, seed)
      const arrivals = all.filter(({ atUs }) => atUs < 180e6)
      const advice = adviseNow(SETUP, { arrivals, sinceUs: 0, nowUs: 180e6 }, OPTIONS)
      for (const forecast of advice.forecasts)
        errors.push(Math.abs(attainmentOf(forecast) - then(all, 180, forecast.replicas)))
      kept += then(all, 180, advice.best)
    }
    expect(errors.reduce((sum, one) => sum + one, 0) / errors.length).toBeLessThan(0.07)
    expect(kept / SEEDS).toBeGreaterThan(0.9)
  })

  it("under rising load the trend makes up for a replica's cold start", () => {
    let [flat, ahead] = [0, 0]
    for (const seed of [1, 2, 3]) {
      const all = poisson((s) => 0.2 + s / 60, 0, 320, seed)
      const recording = { arrivals: all.filter(({ atUs }) => atUs < 180e6), sinceUs: 0, nowUs: 180e6 }
      const best = (coldStartS: number) =>
        adviseNow(SETUP, recording, { ...OPTIONS, windowS: 180, coldStartS }).best
      flat += then(all, 240, best(0))
      ahead += then(all, 240, best(60))
    }
    expect(ahead / 3).toBeGreaterThan(0.85)
    expect(ahead - flat).toBeGreaterThan(0.1)
  })
})
