/** Keys' rates over several processes: as much as over one. */
import { expect, test } from "vitest"
import type { Elsewhere } from "../siblings/hub.ts"
import { linked } from "../siblings/testing.ts"
import { answerRates, countTogether } from "./shared-rates.ts"

function counters(limit: number, what: "requests" | "tokens" = "requests") {
  const { hub, all } = linked(3)
  answerRates(hub)
  return all.map((one) => countTogether(one)({ key: "k", what }, limit, undefined))
}

test("of many at once, over all, exactly so many are taken", async () => {
  const all = counters(10)
  const asked = Array.from({ length: 40 }, (_, i) => all[i % 3]!.take(1, 0))
  const slots = await Promise.all(asked)
  expect(slots.filter((slot) => slot !== null)).toHaveLength(10)
  expect(all[0]!.used(0)).toBe(10)
  expect(all[0]!.waitMs(1, 0)).toBeGreaterThan(55_000)
  expect(all[0]!.waitMs(10, 0)).toBeGreaterThan(55_000)
})

test("what is given back at one may be taken at another", async () => {
  const [one, other] = counters(100, "tokens")
  const slot = await one!.take(80, 0)
  expect(await other!.take(50, 0)).toBeNull()
  expect(other!.waitMs(50, 0)).toBeGreaterThan(0)
  one!.add(-60, slot!)
  await expect.poll(() => other!.take(50, 0)).not.toBeNull()
  expect(other!.used(0)).toBe(70)
  expect(await other!.take(101, 0)).toBeNull()
  expect(other!.waitMs(101, 0)).toBe(Infinity)
})

test("another limit counts what was taken under the one before", async () => {
  const { hub, all } = linked(2)
  answerRates(hub)
  const of = { key: "k", what: "requests" as const }
  const before = countTogether(all[0]!)(of, 10, undefined)
  for (let i = 0; i < 4; i++) await before.take(1, 0)
  const after = countTogether(all[1]!)(of, 5, before)
  expect(await after.take(1, 0)).not.toBeNull()
  expect(await after.take(1, 0)).toBeNull()
})

/** Two gateways that hear of each other at once. */
function gateways(limit: number, what: "requests" | "tokens") {
  const both = [linked(2), linked(1)]
  for (const [i, { hub }] of both.entries()) {
    answerRates(hub)
    const say = (topic: string, word: unknown) => both[1 - i]!.hub.saidElsewhere(topic, structuredClone(word))
    hub.elsewhere = { say, told() {}, left() {}, again() {}, ask: async () => [] } satisfies Elsewhere
  }
  return both.map(({ all }) =>
    all.map((one) => countTogether(one)({ key: "k", what }, limit, undefined)),
  ) as [ReturnType<typeof counters>, ReturnType<typeof counters>]
}

test("what was taken at another gateway counts as if it were here, and what was given back does not", async () => {
  const [[one], [other]] = gateways(10, "requests")
  for (let i = 0; i < 6; i++) expect(await one!.take(1, 0)).not.toBeNull()
  for (let i = 0; i < 4; i++) expect(await other!.take(1, 0)).not.toBeNull()
  expect(await other!.take(1, 0)).toBeNull()
  expect(await one!.take(1, 0)).toBeNull()
  expect(one!.waitMs(1, 0)).toBeGreaterThan(55_000)

  const [[tokens, same], [there]] = gateways(100, "tokens")
  const slot = await tokens!.take(80, 0)
  expect(await there!.take(50, 0)).toBeNull()
  tokens!.add(-60, slot!)
  await expect.poll(() => there!.take(50, 0)).not.toBeNull()
  expect(await same!.take(31, 0)).toBeNull()
  expect(await same!.take(30, 0)).not.toBeNull()
})

test("a gateway that comes later counts what was taken before, of whichever of the others it hears it, once", async () => {
  const { hub, all } = linked(1)
  const [later, another] = [linked(1), linked(1)]
  for (const one of [hub, later.hub, another.hub]) answerRates(one)
  const counter = (one: (typeof all)[number], what: "requests" | "tokens") =>
    countTogether(one)({ key: "k", what }, 100, undefined)
  const [requests, tokens] = [counter(all[0]!, "requests"), counter(all[0]!, "tokens")]
  for (let i = 0; i < 60; i++) await requests.take(1, 0)
  tokens.add(-10, (await tokens.take(50, 0))!)
  const tell = (from: typeof hub, to: typeof hub) => {
    for (const { topic, word } of structuredClone(from.firstWords)) to.saidElsewhere(topic, word)
  }
  const counts = () => hub.firstWords.map(({ word }) => (word as { taken: [number, number][] }).taken)
  const sums = () => counts().map((taken) => taken.reduce((sum, [, count]) => sum + count, 0))
  await expect.poll(sums).toEqual([60, 40])
  tell(hub, later.hub)
  tell(hub, another.hub)
  for (let i = 0; i < 3; i++) {
    tell(another.hub, later.hub)
    tell(hub, later.hub)
    tell(later.hub, hub)
  }
  const here = counter(later.all[0]!, "requests")
  expect(await here.take(41, 0)).toBeNull()
  expect(await here.take(40, 0)).not.toBeNull()
  expect(await counter(later.all[0]!, "tokens").take(61, 0)).toBeNull()
  expect(await counter(later.all[0]!, "tokens").take(60, 0)).not.toBeNull()
  // What one took meanwhile is all that is new to the other.
  expect(await requests.take(40, 0)).not.toBeNull()
  tell(later.hub, hub)
  expect(await requests.take(1, 0)).toBeNull()
})

test("words of another gateway that make no sense are refused", () => {
  const { hub } = linked(1)
  answerRates(hub)
  const all = { key: "k", what: "requests", limit: 10, taken: [[0, 3]] }
  expect(() => hub.saidElsewhere("rates: all", all)).not.toThrow()
  for (const wrong of [{ taken: [[-1, 3]] }, { taken: [[0, Number.NaN]] }, { taken: 3 }, { limit: 0 }])
    expect(() => hub.saidElsewhere("rates: all", { ...all, ...wrong })).toThrow()
  const said = { key: "k", what: "requests", count: 1, limit: 10, slots: 0 }
  expect(() => hub.saidElsewhere("rates: taken", said)).not.toThrow()
  for (const wrong of [{ what: "money" }, { count: Number.NaN }, { limit: 0 }, { slots: -1 }, { key: 7 }])
    expect(() => hub.saidElsewhere("rates: taken", { ...said, ...wrong })).toThrow()
})
