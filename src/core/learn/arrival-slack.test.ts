/** How long arrivals can wait: the tenth that have least, followed as they change. */
import { describe, expect, test } from "vitest"
import { Random } from "../../random.ts"
import type { CostModel } from "../cost.ts"
import { COST } from "../testing.ts"
import { type Arrival, ArrivalSlack } from "./arrival-slack.ts"

/** The mean of the estimate over the last half of `count` arrivals, as it wanders about the quantile, µs. */
function settledUs(slack: ArrivalSlack, count: number, nextUs: () => number): number {
  let sum = 0
  for (let i = 0; i < count; i++) {
    slack.observe(nextUs())
    if (i >= count / 2) sum += slack.us
  }
  return sum / (count / 2)
}

describe("ArrivalSlack", () => {
  test("keeps nothing short before any arrival, and believes the first one", () => {
    const slack = new ArrivalSlack()
    expect(slack.us).toBeCloseTo(60_000_000, 0)
    slack.observe(200_000)
    expect(slack.us / 200_000).toBeGreaterThan(0.8)
    expect(slack.us / 200_000).toBeLessThan(1.25)
  })

  test.each([
    ["uniform", (random: Random) => random.integer(0, 1_000_000), 100_000],
    ["lognormal", (random: Random) => random.lognormal(500_000, 0.8), null],
    ["one in five in a hurry", (random: Random) => (random.integer(1, 5) === 1 ? 50_000 : 5e6), 50_000],
  ])("comes near the 10%% quantile: %s", (name, draw, knownUs) => {
    const random = new Random(`slack ${name}`)
    const sample = Array.from({ length: 20_000 }, () => draw(random)).sort((a, b) => a - b)
    const quantileUs = knownUs ?? sample[2000]!
    const mean = settledUs(new ArrivalSlack(), 4000, () => draw(random))
    expect(mean / quantileUs).toBeGreaterThan(0.8)
    expect(mean / quantileUs).toBeLessThan(1.25)
  })

  test("is not that of the few in a greater hurry still", () => {
    const random = new Random("hurry")
    const mean = settledUs(new ArrivalSlack(), 8000, () => (random.integer(1, 50) === 1 ? 2000 : 1_000_000))
    expect(mean).toBeGreaterThan(600_000)
  })

  test("follows arrivals that change, down within a few dozen, up within some two hundred", () => {
    const slack = new ArrivalSlack()
    for (let i = 0; i < 200; i++) slack.observe(1_000_000)
    for (let i = 0; i < 40; i++) slack.observe(50_000)
    expect(slack.us).toBeLessThan(70_000)
    for (let i = 0; i < 250; i++) slack.observe(1_000_000)
    expect(slack.us).toBeGreaterThan(700_000)
  })

  test("stays between a millisecond and a minute, whatever arrives", () => {
    for (const [us, bound] of [
      [-5e6, 1000],
      [0, 1000],
      [Infinity, 60_000_000],
    ] as const) {
      const slack = new ArrivalSlack()
      for (let i = 0; i < 300; i++) slack.observe(us)
      expect(slack.us / bound).toBeGreaterThan(0.85)
      expect(slack.us).toBeGreaterThanOrEqual(1000 * (1 - 1e-9))
      expect(slack.us / bound).toBeLessThan(1.15)
      expect(slack.us).toBeLessThanOrEqual(60_000_000 * (1 + 1e-9))
    }
  })

  describe("by a new cost model", () => {
    const [old, truth]: [CostModel, CostModel] = [{ ...COST }, { ...COST }]
    const arrival = (patienceUs: number, owed = 100) => ({ patienceUs, position: 0, owed })
    const taking = (usPerToken: number) => (one: Arrival) => one.owed * usPerToken

    test("is what it would be, had that been known: a guess that is far too slow leaves nothing behind", () => {
      const slack = new ArrivalSlack()
      slack.believe(old, taking(5000))
      for (let i = 0; i < 20; i++) slack.arrived(arrival(300_000), 500_000)
      expect(slack.us).toBeCloseTo(1000, 3)
      slack.believe(truth, taking(200))
      expect(slack.us).toBeCloseTo(280_000, 0)
    })

    test("is that of the tenth that have least", () => {
      const slack = new ArrivalSlack()
      slack.believe(old, taking(1))
      for (let i = 0; i < 40; i++) slack.arrived(arrival(i % 10 === 3 ? 50_000 : 900_000, i % 10), i % 10)
      slack.believe(truth, taking(1000))
      expect(slack.us).toBeCloseTo(900_000 - 9000, 0)
      slack.arrived(arrival(50_000, 3), 3000)
      slack.believe(old, taking(1000))
      expect(slack.us).toBeCloseTo(47_000, 0)
    })

    test("stays as it is by the same model, and where nothing has arrived", () => {
      const slack = new ArrivalSlack()
      slack.believe(old, taking(1000))
      expect(slack.us).toBeCloseTo(60_000_000, 0)
      slack.arrived(arrival(300_000), 100_000)
      const before = slack.us
      slack.believe(old, taking(1))
      expect(slack.us).toBe(before)
    })

    test("is that of the last 64 arrivals", () => {
      const slack = new ArrivalSlack()
      slack.believe(old, taking(0))
      for (let i = 0; i < 20; i++) slack.arrived(arrival(10_000), 0)
      for (let i = 0; i < 58; i++) slack.arrived(arrival(700_000), 0)
      slack.believe(truth, taking(0))
      expect(slack.us).toBeCloseTo(700_000, 0)
    })
  })
})
