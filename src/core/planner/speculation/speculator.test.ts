/** Which length a request gets: by its own TPOT while there are few; by its tier's, hardly worse, of many; by the
 * plan's. */
import { describe, expect, test } from "vitest"
import { DEFAULT_OPTIONS } from "../../options.ts"
import { contextOf, LIMITS, liveOf, specOf } from "../../testing.ts"
import { Speculator } from "./speculator.ts"
import { bestLengths, usefulRate } from "./useful-rate.ts"

const OPTIONS = { ...DEFAULT_OPTIONS, speculation: "on" as const }
const COST = {
  pieces: [{ step: 8000, tokens: 40, specSteps: 1500 }],
  residualSigma: 0.05,
  fastPassTokens: 64,
  unifiedKv: true,
}
const context = contextOf({ ...LIMITS, maxSequences: 512, maxBatchTokens: 4096 }, { cost: COST, margin: 0.1 })
const decodesOf = (tpotsUs: readonly number[]) =>
  tpotsUs.map((tpotUs, id) => liveOf(id, { slo: { ...specOf(0).slo, tpotUs } }))
const waiting = Array.from({ length: 20 }, (_, i) => liveOf(1000 + i, { promptTokens: 400 }))

function lengthsFor(tpotsUs: readonly number[]): number[] {
  const decodes = decodesOf(tpotsUs)
  const speculator = new Speculator(OPTIONS)
  // With a TPOT of the decodes, so that the prompts add no tier.
  const prefills = waiting.map(({ spec }) => liveOf(spec.id, { ...spec, slo: decodes[0]!.spec.slo }))
  speculator.planFor({ decodes, prefills, bestEffort: [] }, context)
  return decodes.map((request) => speculator.lengthOf(request))
}

const settingFor = (tpotsUs: readonly number[]) => ({
  setting: {
    cost: COST,
    scale: context.calibration("mixed") * (1 + context.margin("mixed")),
    maxBatchUs: OPTIONS.maxBatchUs,
    maxBatchTokens: 4096,
    waitingTokens: 20 * 400,
    maxLength: OPTIONS.maxSpeculation,
  },
  tiers: tpotsUs.map((tpotUs) => ({
    ...{ tpotUs, acceptance: context.acceptance.of(0), hitRate: 1 },
    ...{ count: 1, contextTokens: 100 },
  })),
})

describe("speculator", () => {
  test("few TPOTs: the best lengths of each", () => {
    for (const tpotsUs of [[15_000], [15_000, 30_000], [18_000, 25_000, 200_000]]) {
      const { setting, tiers } = settingFor(tpotsUs)
      const lengths = lengthsFor(tpotsUs)
      expect(lengths).toEqual(bestLengths(setting, tiers))
      expect(Math.max(...lengths)).toBeGreaterThan(1)
    }
  })

  test("many TPOTs: hardly less useful than with a tier for each", () => {
    for (const [leastUs, mostUs] of [
      [15_000, 16_000],
      [15_000, 40_000],
      [15_000, 300_000],
    ] as const) {
      const tpotsUs = Array.from({ length: 60 }, (_, i) => leastUs * (mostUs / leastUs) ** (i / 59))
      const { setting, tiers } = settingFor(tpotsUs)
      const exact = usefulRate(setting, tiers, bestLengths(setting, tiers))
      const shared = usefulRate(setting, tiers, lengthsFor(tpotsUs))
      expect(exact).toBeGreaterThan(0)
      expect(shared / exact).toBeGreaterThan(0.95)
    }
  })

  test("a plan of few TPOTs has the next tighter one's length for every other", () => {
    const speculator = new Speculator(OPTIONS)
    speculator.follow(
      new Map([
        [50_000, 4],
        [30_000, 6],
        [90_000, 2],
      ]),
    )
    const lengths = decodesOf([20_000, 30_000, 49_999, 50_000, 70_000, 500_000, Infinity]).map((request) =>
      speculator.lengthOf(request),
    )
    expect(lengths).toEqual([1, 6, 6, 4, 4, 2, 1])
  })
})
