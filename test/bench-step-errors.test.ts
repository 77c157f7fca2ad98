/** What the step-errors bench makes of served steps. */
import { expect, test } from "vitest"
import { errorsChart } from "../bench/step-errors/chart.ts"
import { BINS, findingsOf, repredicted } from "../bench/step-errors/findings.ts"
import type { Step } from "../bench/step-errors/window.ts"
import { Calibration } from "../src/core/learn/calibration.ts"

const step = (us: number, more: Partial<Step> = {}): Step => ({
  ...{
    sequences: 1,
    tokens: 1,
    prefill: false,
    idleUs: 0,
    modelUs: 100_000,
    predictedUs: 100_000,
    us,
    waitedUs: 0,
    gcUs: 0,
  },
  ...more,
})

test("every step is in one bin of the histogram, the last of which is open", () => {
  const { histogram, steps } = findingsOf(
    [40_000, 50_000, 50_001, 100_000, 180_000, 181_000, 9e6].map((us) => step(us)),
  )
  expect(steps).toBe(7)
  expect(histogram.reduce((a, b) => a + b, 0)).toBe(7)
  expect([histogram[0], histogram[1], histogram[BINS.indexOf(1)], histogram[BINS.indexOf(1.8)]]).toEqual([
    2, 1, 1, 1,
  ])
  expect(histogram.at(-1)).toBe(2)
})

test("shares above count what is longer, by kind, too", () => {
  const { over, overByKind } = findingsOf([
    step(110_000),
    step(121_000),
    step(120_000, { prefill: true }),
    step(131_000, { prefill: true }),
  ])
  expect(over).toEqual({ "1.1": 0.75, "1.2": 0.5, "1.3": 0.25 })
  expect(overByKind).toEqual({ decode: 0.5, prefill: 0.5 })
})

test("a long step has one reason, the first that explains it", () => {
  const { why } = findingsOf([
    step(150_000, { waitedUs: 30_000, gcUs: 30_000, idleUs: 1e6 }),
    step(150_000, { waitedUs: 10_000, gcUs: 20_000 }),
    step(150_000, { waitedUs: 29_000, idleUs: 600_000 }),
    step(150_000, { idleUs: 499_999 }),
    step(119_000, { waitedUs: 50_000 }),
  ])
  expect(why).toEqual({ waited: 0.25, collected: 0.25, idle: 0.25, slow: 0.25 })
})

test("correlation tells spells from scatter", () => {
  const spells = Array.from({ length: 100 }, (_, i) => step(i % 20 < 10 ? 80_000 : 125_000))
  const scatter = Array.from({ length: 100 }, (_, i) => step(i % 2 === 0 ? 80_000 : 125_000))
  expect(findingsOf(spells).correlation).toBeGreaterThan(0.7)
  expect(findingsOf(scatter).correlation).toBeLessThan(-0.9)
  expect(findingsOf([step(100_000)]).correlation).toBe(0)
})

test("the same steps are predicted anew by what a calibration learns of them", () => {
  const steps = Array.from({ length: 400 }, (_, i) =>
    step(i % 20 < 10 ? 80_000 : 125_000, { predictedUs: 1 }),
  )
  const ours = repredicted(steps, new Calibration())
  expect(ours[0]!.predictedUs).toBe(100_000)
  const without = new Calibration()
  const plain = { ratio: without.ratio.bind(without), observe: without.observe.bind(without) }
  expect(findingsOf(ours).over["1.2"]).toBeLessThan(findingsOf(repredicted(steps, plain)).over["1.2"] / 2)
})

test("the chart is one SVG that names both codes", async () => {
  const svg = await errorsChart(
    { before: findingsOf([step(130_000)]), after: findingsOf([step(100_000)]) },
    "title",
  )
  expect(svg.trim()).toMatch(/^<svg.*<\/svg>$/s)
  for (const text of ["before: 100.0% above 1.2", "after: 0.0% above 1.2"]) expect(svg).toContain(text)
})
