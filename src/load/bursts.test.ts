/** Generators against the real traces they are fitted to: lengths' quantiles, rates and burstiness; and raw arrivals.
 * The traces lie beside the project; without them these tests are skipped. */
import { existsSync } from "node:fs"
import { join, resolve } from "node:path"
import { quantileSorted } from "simple-statistics"
import { describe, expect, test } from "vitest"
import { Random } from "../random.ts"
import { arrivals, arrivalTimes } from "./arrivals.ts"
import { BURSTS, burstTimes } from "./bursts.ts"
import { type PublishedName, published } from "./lengths.ts"
import { sessionsOf } from "./sessions.ts"
import { readTrace } from "./trace.ts"
import { makePlan, type WorkloadOptions } from "./workload.ts"

const DATA = resolve(import.meta.dirname, "../../../shared/data")
const FILES: Record<PublishedName, string> = {
  chat: join(DATA, "azure-conv-2023-first30min.csv"),
  code: join(DATA, "azure-code-2023.csv"),
  summarize: join(DATA, "arxiv-summarization-lengths.csv"),
}
const missing = Object.values(FILES).filter((file) => !existsSync(file))
if (missing.length > 0) console.warn(`skipped, for want of traces: ${missing.join(", ")}`)

const sorted = (values: number[]) => values.sort((a, b) => a - b)

/** Variance over mean of the arrivals per window: 1 for Poisson, more for bursts. */
function dispersion(times: readonly number[], windowMs: number): number {
  const counts = new Array<number>(Math.floor(times.at(-1)! / windowMs)).fill(0)
  for (const time of times) {
    const window = Math.floor(time / windowMs)
    if (window < counts.length) counts[window]!++
  }
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length
  return counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / counts.length / mean
}

describe.skipIf(missing.length > 0)("generators against the traces they are fitted to", () => {
  test.each(["chat", "code", "summarize"] as const)("%s: quantiles of both lengths", (app) => {
    const source = published(app)
    const random = new Random("fit", app)
    const drawn = Array.from({ length: 20_000 }, () => source.draw(random))
    const real = sessionsOf(readTrace(FILES[app]), { scale: 1, maxSequenceTokens: 8192 }).map(
      ({ rounds }) => rounds[0]!,
    )
    for (const side of ["promptTokens", "outputTokens"] as const) {
      const made = sorted(drawn.map((row) => row[side]))
      const were = sorted(real.map((row) => row[side]))
      for (const level of [0.1, 0.25, 0.5, 0.75, 0.9]) {
        const ratio = quantileSorted(made, level) / quantileSorted(were, level)
        expect(Math.abs(Math.log(ratio)), `${side} at ${level}: ${ratio}`).toBeLessThan(Math.log(1.15))
      }
      // The tail beyond the 99th percentile is drawn out to the longest: code answers come out 21% longer on average.
      const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length
      expect(mean(made) / mean(were)).toBeGreaterThan(0.8)
      expect(mean(made) / mean(were)).toBeLessThan(1.25)
    }
  })

  test.each(["chat", "code"] as const)("%s: rate and burstiness", (app) => {
    const real = readTrace(FILES[app]).rows.map((row) => row.atMs!)
    // A single hour of either varies much: the mean over some.
    const hours = Array.from({ length: 12 }, (_, i) => burstTimes(BURSTS[app], new Random("hour", i), 0))
    const mean = (of: (times: number[]) => number) =>
      hours.reduce((sum, times) => sum + of(times), 0) / hours.length
    const rate = (times: readonly number[]) => times.length / times.at(-1)!
    expect(mean(rate) / rate(real)).toBeGreaterThan(0.8)
    expect(mean(rate) / rate(real)).toBeLessThan(1.25)
    for (const windowMs of [1000, 10_000, 60_000]) {
      const ratio = mean((times) => dispersion(times, windowMs)) / dispersion(real, windowMs)
      expect(ratio, `windows of ${windowMs} ms`).toBeGreaterThan(0.6)
      expect(ratio, `windows of ${windowMs} ms`).toBeLessThan(1.67)
    }
  })

  test("raw arrivals of the real trace take its rows, times and lengths together", () => {
    const trace = readTrace(FILES.code)
    const plan = makePlan({ ...options, scenario: "coder", arrivals: "raw", traces: { code: trace } })
    const known = new Set(trace.rows.map((row) => `${row.promptTokens} ${row.outputTokens}`))
    for (const { rounds } of plan.requests)
      expect(known.has(`${rounds[0]!.promptTokens} ${rounds[0]!.outputTokens}`)).toBe(true)
    expect(plan.requests).toHaveLength(180)
  })
})

const options: WorkloadOptions = {
  scenario: "mixed",
  ratePerSec: 3,
  durationMs: 60_000,
  seed: 1,
  scale: 1,
  arrivals: "raw",
  burstiness: 1,
  maxSequenceTokens: 8192,
  traces: {},
}

describe("bursts without a trace", () => {
  test.each(["trace", "superposed", "raw"] as const)(
    "%s: same seed, same plan; says what it used",
    (process) => {
      const plan = makePlan({ ...options, arrivals: process })
      expect(makePlan({ ...options, arrivals: process })).toEqual(plan)
      expect(plan.requests).toHaveLength(180)
      expect(plan.header.sources.code).toContain(`${process}, synthetic bursts, fitted to Azure code 2023`)
      expect(plan.header.sources.summarize).not.toContain("arrivals")
      expect(makePlan({ ...options, arrivals: process, seed: 2 }).requests).not.toEqual(plan.requests)
    },
  )

  test("as many as are needed, however high the rate", () => {
    const plan = makePlan({ ...options, scenario: "chatbot", arrivals: "trace", ratePerSec: 500 })
    expect(plan.requests).toHaveLength(30_000)
  })
})

describe("raw arrivals", () => {
  const times = Array.from({ length: 600 }, (_, i) => i * 100)
  const draw = (count: number, spanMs: number, seed = 1) =>
    arrivals("raw", { count, spanMs, burstiness: 1, trace: { name: "t", times }, random: new Random(seed) })

  test("keep the trace's own gaps at its own rate, or thinned", () => {
    for (const count of [95, 40]) {
      const found = draw(count, 10_000)
      expect(found).toHaveLength(count)
      const gaps = found.slice(1).map(({ atMs }, i) => atMs - found[i]!.atMs)
      for (const gap of gaps) expect(Math.abs(gap / 100 - Math.round(gap / 100))).toBeLessThan(1e-6)
      expect(Math.min(...gaps)).toBeCloseTo(100, 6)
    }
  })

  test("lie in copies over each other above the trace's rate, and go round a short trace", () => {
    const copies = new Set(draw(900, 30_000).map(({ copy }) => Math.floor(copy! / 1000)))
    expect(copies.size).toBeGreaterThanOrEqual(3)
    const turns = new Set(draw(1000, 180_000).map(({ copy }) => copy))
    expect(turns.size).toBeGreaterThanOrEqual(3)
    expect(draw(1000, 180_000).at(-1)!.atMs).toBeGreaterThan(170_000)
  })

  test("refuse a trace that is too sparse", () => {
    const trace = { name: "t", times: [0, 1e9] }
    const impossible = { count: 1000, spanMs: 1000, burstiness: 1, trace, random: new Random(1) }
    expect(() => arrivalTimes("raw", impossible)).toThrow("too few for raw arrivals")
  })
})
