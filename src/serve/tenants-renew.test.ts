/** Tenants that change while a server runs: numbers stay, keys come and go, and what was counted of a key stays counted. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { ANY_OBJECTIVES, type ApiKeyConfig, digestOf } from "../config/api-keys.ts"
import { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import { MOST_LABELLED, MOST_NAMED, OTHERS, Tenants } from "./tenants.ts"

const tenant = (name: string, weight = 1) => ({ name, weight, keys: [] })
const key = (name: string, requestsPerMinute: number | null = null): ApiKeyConfig => ({
  ...{ name, tenant: name, weight: null, digest: digestOf(`sk-${name}`), classes: null },
  ...{ tightest: ANY_OBJECTIVES, objectives: null, requestsPerMinute, tokensPerMinute: null },
})
const by = (name: string) => ({ "x-api-key": `sk-${name}` })
const busy = () => false

it("keep their numbers, whatever comes and goes, and no two live ones have the same", () => {
  const names = fc.constantFrom("a", "b", "c", "d", "e", "f")
  const step = fc.oneof(
    fc.record({ named: names }),
    fc.record({
      configured: fc.uniqueArray(fc.tuple(names, fc.integer({ min: 1, max: 9 })), {
        selector: ([name]) => name,
      }),
    }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const tenants = new Tenants({ trustHeader: true, tenants: [tenant("a", 2)] })
      const seen = new Map<string, number>()
      let weights = new Map([["a", 2]])
      for (const one of steps) {
        if ("configured" in one) {
          weights = new Map(one.configured)
          tenants.renew({
            trustHeader: true,
            tenants: one.configured.map(([name, weight]) => tenant(name, weight)),
          })
        } else seen.set(one.named, tenants.of(one.named, busy).number)
        for (const [name, number] of seen) expect(tenants.of(name, busy).number).toBe(number)
        const numbers = tenants.all.map(({ number }) => number)
        expect(new Set(numbers).size).toBe(numbers.length)
        for (const [name, weight] of weights) {
          seen.set(name, tenants.of(name, busy).number)
          expect([tenants.weightOf(name), tenants.weights[tenants.of(name, busy).number]]).toEqual([
            weight,
            weight,
          ])
        }
        const shares = tenants.weights.map((_, number) => tenants.shareOf(number))
        expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1)
        for (const weight of tenants.weights) expect(weight).toBeGreaterThan(0)
      }
    }),
  )
})

it("have room for as many names of the header as before", () => {
  const tenants = new Tenants({ trustHeader: true })
  tenants.renew({ trustHeader: true, tenants: [tenant("new")] })
  for (let i = 0; i < MOST_NAMED; i++) expect(tenants.of(`n${i}`, busy).name).toBe(`n${i}`)
  expect(tenants.of("more", busy).number).toBe(tenants.of(OTHERS, busy).number)
})

it("need keys from when there are some, and only those that there are", () => {
  const tenants = new Tenants({})
  expect(tenants.identify(by("a"))).toBe("default")
  expect(tenants.trustsHeader).toBe(true)
  tenants.renew({ keys: [key("a"), key("b")], tenants: [tenant("a"), tenant("b")] })
  expect([tenants.identify(by("a")), tenants.trustsHeader, tenants.needsKey]).toEqual(["a", false, true])
  expect(() => tenants.identify({})).toThrow("wants an API key")
  tenants.renew({ keys: [key("b")], tenants: [tenant("b")] })
  expect(() => tenants.identify(by("a"))).toThrow("Incorrect API key")
  expect(tenants.configured).toEqual(["default", "b"])
})

it("go on counting a key's requests, also where its bound is another", () => {
  const tenants = new Tenants({ keys: [key("a", 3)] })
  const take = () => tenants.originOf(by("a")).key!.requests!.take(1, performance.now()) !== null
  expect([take(), take()]).toEqual([true, true])
  tenants.renew({ keys: [key("a", 3)] })
  expect([take(), take()]).toEqual([true, false])
  tenants.renew({ keys: [key("a", 5)] })
  expect([take(), take(), take()]).toEqual([true, true, false])
  tenants.renew({ keys: [key("a", 2)] })
  expect(take()).toBe(false)
})

it("of a large config have labels up to a bound", () => {
  const names = Array.from({ length: 1000 }, (_, i) => `t${i}`)
  const tenants = new Tenants({ tenants: names.map((name) => tenant(name)) })
  const figures = new FiguresByTenant({ names: tenants.labelled, mostOthers: MOST_NAMED, rest: OTHERS })
  for (const name of names) figures.of(name).refused++
  expect(figures.all.size).toBe(MOST_LABELLED + MOST_NAMED + 1)
  expect(figures.of(OTHERS).refused).toBe(names.length - (MOST_LABELLED - 1) - MOST_NAMED)
})
