/** Figures of tenants: what counts, and that ever new names have figures together. */
import { expect, it } from "vitest"
import type { Outcome } from "../core/protocol.ts"
import { FiguresByTenant, TenantFigures } from "./tenant-figures.ts"

const OUTCOME: Outcome = {
  ...{
    app: 0,
    arrivalUs: 0,
    startedUs: 0,
    firstTokenUs: 5,
    finishedUs: 9,
    promptTokens: 100,
    cachedTokens: 32,
  },
  ...{ outputTokens: 3, maxGapUs: 1, ttftUs: 9, tier: "slo", servedTier: "slo", preemptions: 0 },
  ...{ attained: true, attainedEvery10: true, stages: [] },
}

it("counts what ended by whether it was kept, and prompts without what they share", () => {
  const figures = new TenantFigures()
  figures.ended("stop", OUTCOME)
  figures.ended("length", { ...OUTCOME, attained: false })
  figures.ended("stop", { ...OUTCOME, attained: false, tier: "bestEffort" })
  figures.ended("cancelled", { ...OUTCOME, attained: false })
  figures.ended("failed", { ...OUTCOME, attained: false, firstTokenUs: -1 })
  expect(figures).toMatchObject({ kept: 1, missed: 1, bestEffort: 1, promptTokens: 4 * 68 })
})

it("has figures for names that are given, and for so many others; the rest share some", () => {
  const all = new FiguresByTenant({ names: ["a", "b"], mostOthers: 2, rest: "rest" })
  for (const name of ["c", "d", "e", "f", "c", "a", "rest"]) all.of(name).refused++
  expect([...all.all].map(([name, { refused }]) => [name, refused])).toEqual([
    ["a", 1],
    ["b", 0],
    ["c", 2],
    ["d", 1],
    ["rest", 3],
  ])
  expect(["a", "d", "e", "rest"].map((name) => all.shownAs(name))).toEqual(["a", "d", "rest", "rest"])
  expect(all.of("g")).toBe(all.of("f"))
})
