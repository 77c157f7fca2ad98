/** What is played of a recording. */
import { expect, it } from "vitest"
import { scoreOf } from "./score.ts"
import { arrival } from "./testing.ts"

const every = (gapS: number, count: number, more = (_: number) => ({})) =>
  Array.from({ length: count }, (_, i) => arrival(gapS * i, more(i)))
const OPTIONS = { windowS: 100, coldStartS: 0, most: 1000, replicas: 1 }

it("plays the window, the first fifth uncounted and once more at the end", () => {
  const arrivals = every(1, 200)
  const score = scoreOf({ arrivals, sinceUs: 0, nowUs: 200e6 }, OPTIONS)
  expect(score).toMatchObject({ fromUs: 20e6, toUs: 100e6, each: 1, growth: 1, spanS: 100 })
  expect(score.arrivals.map(({ atUs }) => atUs / 1e6)).toEqual(Array.from({ length: 120 }, (_, i) => i))
})

it("has no more of it than was recorded", () => {
  const score = scoreOf({ arrivals: every(1, 60), sinceUs: 30e6, nowUs: 60e6 }, OPTIONS)
  expect(score).toMatchObject({ fromUs: 6e6, toUs: 30e6, spanS: 30 })
  expect(score.arrivals).toHaveLength(36)
})

it("shortens the window where more came than is played", () => {
  const score = scoreOf({ arrivals: every(0.5, 400), sinceUs: 0, nowUs: 200e6 }, { ...OPTIONS, most: 150 })
  expect(score.spanS).toBeCloseTo(75, 6)
  expect(score.each).toBe(1)
})

it("plays a part of a large fleet rather than less than a minute of it, whole sessions", () => {
  const arrivals = every(0.01, 12_000, (i) => (i % 2 === 0 ? { session: i >> 3 } : {}))
  const recording = { arrivals, sinceUs: 0, nowUs: 120e6 }
  const score = scoreOf(recording, { ...OPTIONS, most: 1000, replicas: 64 })
  expect(score).toMatchObject({ spanS: 60, each: 6 })
  expect(score.arrivals.length).toBeGreaterThan(900)
  expect(score.arrivals.length).toBeLessThan(1300)
  const sessions = new Map<number, number>()
  for (const { session, atUs } of score.arrivals)
    if (session >= 0 && atUs < 59e6) sessions.set(session, (sessions.get(session) ?? 0) + 1)
  expect(new Set([...sessions.values()].slice(1, -1))).toEqual(new Set([4]))
  // A part of eight replicas would be two: less of the time is played instead.
  expect(scoreOf(recording, { ...OPTIONS, most: 1000, replicas: 8 })).toMatchObject({ spanS: 20, each: 2 })
})

it("is denser where load rises and a replica takes its time", () => {
  const arrivals = [60, 120, 180, 240, 300, 360].flatMap((count, part) =>
    Array.from({ length: count }, (_, i) => arrival(60 * part + (60 * i) / count)),
  )
  const recording = { arrivals, sinceUs: 0, nowUs: 360e6 }
  const flat = scoreOf(recording, { windowS: 360, coldStartS: 0, most: 10_000, replicas: 1 })
  const grown = scoreOf(recording, { windowS: 360, coldStartS: 1, most: 10_000, replicas: 1 })
  expect(flat.growth).toBe(1)
  expect(grown.growth).toBeGreaterThan(1.8)
  expect(grown.toUs).toBeCloseTo(360e6 / grown.growth, 3)
  expect(grown.arrivals[0]!.promptTokens).toBe(flat.arrivals[0]!.promptTokens)
})

it("has nothing of nothing", () => {
  expect(scoreOf({ arrivals: [], sinceUs: 5, nowUs: 5 }, OPTIONS)).toMatchObject({
    arrivals: [],
    toUs: 0,
    each: 1,
  })
})
