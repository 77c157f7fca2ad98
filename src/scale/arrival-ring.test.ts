/** The ring keeps the last arrivals, whatever comes and ends in whatever order, and grows by nothing. */
import fc from "fast-check"
import { expect, it } from "vitest"
import type { Arrival } from "./arrival.ts"
import { ArrivalRing, arrivalsIn, copiesTogether, movedCopy } from "./arrival-ring.ts"
import { arrival, SLO } from "./testing.ts"

const arriving = (atUs: number, more: Partial<Arrival> = {}) => ({
  ...{
    atUs,
    app: 1,
    session: -1,
    maxOutputTokens: 7,
    slo: SLO,
    tier: "slo" as const,
    worth: 2,
    thinking: false,
  },
  ...more,
})

it("gives back what it was told, with objectives that are none", () => {
  const ring = new ArrivalRing(5)
  const slo = { ttftUs: Infinity, ttftSlowdown: 5, tpotUs: 80_000, thinkingTpotUs: Infinity, maxGapUs: 9 }
  const place = ring.arrived(arriving(10, { slo, tier: "bestEffort", thinking: true, session: 2 ** 52 }))
  expect(arrivalsIn(ring.copy())[0]).toMatchObject({
    end: "live",
    endUs: 0,
    promptTokens: 0,
    attained: false,
  })
  const counts = { promptTokens: 40, outputTokens: 6, thinkingTokens: 2, cachedTokens: 16 }
  ring.ended(place, { end: "done", endUs: 99, attained: true, ...counts })
  expect(arrivalsIn(ring.copy())).toEqual([
    {
      ...{
        atUs: 10,
        app: 1,
        session: 2 ** 52,
        maxOutputTokens: 7,
        slo,
        tier: "bestEffort",
        worth: 2,
        thinking: true,
      },
      ...{ end: "done", endUs: 99, attained: true, ...counts },
    },
  ])
  expect(ring.copy().sinceUs).toBe(5)
})

it("leaves out what no fleet has to serve, and puts late ones in their place", () => {
  const ring = new ArrivalRing(0)
  ring.arrived(arriving(30))
  ring.ended(ring.arrived(arriving(20)), { end: "void", endUs: 25 })
  ring.arrived(arriving(10))
  expect(arrivalsIn(ring.copy()).map(({ atUs }) => atUs)).toEqual([10, 30])
})

it("keeps the last so many, and says from when on all are there", () => {
  const steps = fc.array(fc.record({ gap: fc.nat(5), ends: fc.nat(12) }), { maxLength: 60 })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), steps, (capacity, all) => {
      const ring = new ArrivalRing(0, capacity)
      const told: { atUs: number; endUs: number }[] = []
      let nowUs = 0
      for (const { gap, ends } of all) {
        nowUs += gap
        expect(ring.arrived(arriving(nowUs))).toBe(told.length)
        told.push({ atUs: nowUs, endUs: 0 })
        const ending = told[told.length - 1 - ends]
        if (ending === undefined) continue
        ending.endUs = nowUs + 1
        ring.ended(told.length - 1 - ends, { end: "done", endUs: nowUs + 1 })
      }
      const copy = ring.copy()
      const kept = told.slice(-capacity)
      expect(arrivalsIn(copy).map(({ atUs, endUs }) => ({ atUs, endUs }))).toEqual(kept)
      for (const { atUs } of told.slice(0, -kept.length || told.length))
        expect(atUs < copy.sinceUs || kept.some((one) => one.atUs >= atUs)).toBe(true)
      const complete = told.filter(({ atUs }) => atUs >= copy.sinceUs)
      expect(complete.length).toBeLessThanOrEqual(kept.length)
    }),
  )
})

it("a copy is not changed by what comes later", () => {
  const ring = new ArrivalRing(0, 2)
  const place = ring.arrived(arriving(1))
  const copy = ring.copy()
  ring.ended(place, { end: "failed", endUs: 3 })
  ring.arrived(arriving(4))
  ring.arrived(arriving(5))
  expect(arrivalsIn(copy)).toMatchObject([{ atUs: 1, end: "live" }])
  expect(arrival(1).end).toBe("done")
})

it("several rings, each with a clock of its own, are as one from where all have everything", () => {
  const arrivals = fc.array(fc.record({ gap: fc.nat(5), at: fc.nat(2), ends: fc.boolean() }), {
    maxLength: 60,
  })
  const clocks = fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 3, maxLength: 3 })
  fc.assert(
    fc.property(arrivals, clocks, fc.integer({ min: 1, max: 30 }), (all, aheadUs, capacity) => {
      const rings = aheadUs.map((ahead) => new ArrivalRing(2000 + ahead, capacity))
      const whole = new ArrivalRing(2000, all.length + 1)
      let nowUs = 2000
      for (const { gap, at, ends } of all) {
        nowUs += gap
        const [place, same] = [
          rings[at]!.arrived(arriving(nowUs + aheadUs[at]!)),
          whole.arrived(arriving(nowUs)),
        ]
        if (!ends) continue
        rings[at]!.ended(place, { end: "done", endUs: nowUs + 1 + aheadUs[at]! })
        whole.ended(same, { end: "done", endUs: nowUs + 1 })
      }
      const together = copiesTogether(rings.map((ring, i) => movedCopy(ring.copy(), -aheadUs[i]!)))
      const shown = (copy: typeof together) =>
        arrivalsIn(copy)
          .filter(({ atUs }) => atUs >= together.sinceUs)
          .map(({ atUs, endUs, end }) => ({ atUs, endUs, end }))
      const order = (all: ReturnType<typeof shown>) => all.map((one) => JSON.stringify(one)).toSorted()
      expect(order(shown(together))).toEqual(order(shown(whole.copy())))
      expect(arrivalsIn(together).every(({ atUs }) => atUs >= together.sinceUs)).toBe(true)
    }),
  )
})
