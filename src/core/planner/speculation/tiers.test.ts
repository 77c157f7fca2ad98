/** Tiers: one for every TPOT while there are few; of many TPOTs, those that are close share one. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { contextOf, liveOf, specOf } from "../../testing.ts"
import { MOST_TIERS, Tiers } from "./tiers.ts"
import { paceUs } from "./useful-rate.ts"

const withTpot = (tpotUs: number, id = 0, app = 0, promptTokens = 100) =>
  liveOf(id, { app, promptTokens, slo: { ...specOf(0).slo, tpotUs } })
const tiersOf = (tpotsUs: readonly number[], apps = 1) =>
  new Tiers(
    { decodes: tpotsUs.map((tpotUs, id) => withTpot(tpotUs, id, id % apps)), expected: [] },
    contextOf(),
  )
const tpots = fc.array(
  fc.oneof(
    { weight: 20, arbitrary: fc.integer({ min: 5000, max: 2_000_000 }) },
    { weight: 1, arbitrary: fc.constant(Infinity) },
  ),
  { minLength: 1, maxLength: 60 },
)

describe("tiers", () => {
  test("of few TPOTs: one for each, however close", () => {
    const tpotsUs = Array.from({ length: MOST_TIERS }, (_, i) => 50_000 + i)
    const { list } = tiersOf([...tpotsUs, ...tpotsUs])
    expect(list.map(({ tpotUs }) => tpotUs)).toEqual(tpotsUs)
    expect(list.every(({ count }) => count === 2)).toBe(true)
  })

  test("are no more than the most, and have room for every request at its pace", () => {
    fc.assert(
      fc.property(tpots, fc.integer({ min: 1, max: 4 }), (tpotsUs, apps) => {
        const tiers = tiersOf(tpotsUs, apps)
        expect(tiers.list.length).toBeLessThanOrEqual(MOST_TIERS)
        expect(tiers.list.reduce((sum, { count }) => sum + count, 0)).toBe(tpotsUs.length)
        for (const [id, tpotUs] of tpotsUs.entries()) {
          const tier = tiers.list[tiers.placeOf(id % apps, tpotUs)]!
          expect(tier.app).toBe(id % apps)
          for (let length = 1; length <= 8; length++)
            expect(paceUs(tier, length)).toBeLessThanOrEqual(paceUs({ ...tier, tpotUs }, length))
        }
      }),
    )
  })

  test("count TPOTs hardly tighter than the tightest of theirs", () => {
    fc.assert(
      fc.property(tpots, (tpotsUs) => {
        const tiers = tiersOf(tpotsUs)
        for (const [place, { tpotUs }] of tiers.list.entries()) {
          const own = tpotsUs.filter((each) => tiers.placeOf(0, each) === place)
          const tightestUs = Math.min(...own)
          expect(tightestUs === tpotUs || tightestUs / tpotUs < 1.051).toBe(true)
        }
      }),
    )
  })

  test("of TPOTs that are close: one, apart from the others and from having none", () => {
    const close = Array.from({ length: 20 }, (_, i) => 50_000 + 10 * i)
    const tiers = tiersOf([...close, 100_000, Infinity])
    expect(new Set(close.map((tpotUs) => tiers.placeOf(0, tpotUs))).size).toBe(1)
    expect(tiers.list.map(({ count }) => count)).toEqual([20, 1, 1])
    expect(tiers.list.map(({ tpotUs }) => tpotUs).slice(2)).toEqual([Infinity])
  })

  test("stay the same as requests with other TPOTs of the same kind come and go", () => {
    const drawn = (shift: number) =>
      tiersOf(Array.from({ length: 256 }, (_, i) => 60_000 + ((i * 7 + shift) % 500)))
    const [before, after] = [drawn(0), drawn(3)]
    for (const tier of after.list) expect(before.matching(tier, after)).toBeDefined()
    expect(tiersOf([60_000]).matching(before.list[0]!, before)).toBeUndefined()
  })

  test("know the mean context of their decodes; the expected count once, where there are none", () => {
    const decodes = [withTpot(50_000, 0, 0, 100), withTpot(50_000, 1, 0, 300)]
    const expected = [withTpot(50_000, 2, 0, 900), withTpot(70_000, 3, 0, 500), withTpot(70_000, 4, 0, 700)]
    const { list } = new Tiers({ decodes, expected }, contextOf())
    expect(list.map(({ count, contextTokens }) => [count, contextTokens])).toEqual([
      [2, 200],
      [1, 500],
    ])
  })

  test("of many apps: theirs alone, so that each has its own acceptance", () => {
    const apps = MOST_TIERS + 3
    const tpotsUs = Array.from({ length: 10 * apps }, (_, i) => 20_000 + 1000 * i)
    expect(tiersOf(tpotsUs, apps).list).toHaveLength(apps)
  })
})
