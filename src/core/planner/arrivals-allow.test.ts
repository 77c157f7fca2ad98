/** How long arrivals let a batch be. A step is 5 ms and 0.1 ms a token: a prompt in two batches costs 5 ms more. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../cost.ts"
import { ArrivalSlack } from "../learn/arrival-slack.ts"
import { Calibration } from "../learn/calibration.ts"
import { COST, contextOf, LIMITS } from "../testing.ts"
import { arrivalsAllow } from "./arrivals-allow.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { emptyWork } from "./work.ts"

const MOST_US = 100_000
/** Weights are read in 5 ms, whatever is computed; a batch costs 0.1 ms. */
const BENT: CostModel = { ...COST, pieces: [{ step: 5000 }, { step: 100, tokens: 100 }] }

class KnownSlack extends ArrivalSlack {
  readonly #us: number

  constructor(us: number) {
    super()
    this.#us = us
  }

  override get us(): number {
    return this.#us
  }
}

interface Given {
  ahead?: number
  renewsFromUs?: number
  cost?: CostModel
  calibration?: Calibration
}

/** Rounded to µs, for arrivals that can wait so long. */
function allowed(slackUs: number, { renewsFromUs, cost = COST, ...parts }: Given = {}) {
  const limits = { ...LIMITS, maxBatchTokens: 4096 }
  const context = contextOf(limits, { cost, margin: 0, ...parts })
  if (renewsFromUs !== undefined) context.renewsFromUs = renewsFromUs
  const batch = new BatchBuilder(context)
  batch.reset(0)
  const work = emptyWork()
  work.arrivalSlack = new KnownSlack(slackUs)
  const { usualUs, wholeUs } = arrivalsAllow(batch, work, MOST_US)
  return [Math.round(usualUs), Math.round(wholeUs)]
}

describe("an arrival waits for the batch, for those that were planned before it came, and for its own", () => {
  test("each is an equal part of what it can wait", () => {
    const given = { cost: BENT }
    expect(allowed(60_000, given)).toEqual([30_000, 30_000])
    expect(allowed(60_000, { ...given, ahead: 1 })).toEqual([20_000, 20_000])
    expect(allowed(60_000, { ...given, ahead: 2 })).toEqual([15_000, 15_000])
  })

  test("none is longer than the longest", () => {
    expect(allowed(500_000)).toEqual([MOST_US, MOST_US])
    expect(allowed(500_000, { ahead: 1 })).toEqual([MOST_US, MOST_US])
  })

  test("what batches cost is asked of long ones: in short ones weights are all that takes time", () => {
    expect(allowed(10_000, { cost: BENT })).toEqual([1.7 * 5000, 1500])
    expect(allowed(20_000, { cost: BENT })).toEqual([10_000, 10_000])
  })

  test("where a batch has a cost of its own, twenty times that is waited for, whatever is asked", () => {
    expect(allowed(60_000)).toEqual([50_000, 50_000])
    expect(allowed(60_000, { ahead: 1 })).toEqual([33_333, 33_333])
    expect(allowed(120_000, { ahead: 1 })).toEqual([40_000, 40_000])
  })

  test("one that can hardly wait has batches of eight times that, or what is worth a step; a prompt goes whole beside", () => {
    expect(allowed(2000)).toEqual([16_000, 84_000])
    expect(allowed(2000, { ahead: 1 })).toEqual([16_000, 68_000])
    expect(allowed(1)).toEqual([1.7 * 5100, 100_000 - 1.7 * 5100])
  })
})

describe("where the last plan ahead is made anew for what arrived", () => {
  const given = { cost: BENT, ahead: 1 }

  test("from no time on, it is as if none was ahead", () => {
    expect(allowed(60_000, { ...given, renewsFromUs: 0 })).toEqual([30_000, 30_000])
    expect(allowed(60_000, { ...given, ahead: 2, renewsFromUs: 0 })).toEqual([20_000, 20_000])
  })

  test("if it is long, what is not made anew is as short as that", () => {
    expect(allowed(60_000, { ...given, renewsFromUs: 10_000 })).toEqual([25_000, 25_000])
    expect(allowed(60_000, { ...given, ahead: 2, renewsFromUs: 12_000 })).toEqual([16_000, 16_000])
  })

  test("if it is longer than batches are, they are as short as if it never was", () => {
    expect(allowed(60_000, { ...given, renewsFromUs: 20_000 })).toEqual([20_000, 20_000])
    expect(allowed(60_000, { ...given, renewsFromUs: 40_000 })).toEqual([20_000, 20_000])
  })

  test("with none ahead nothing is made anew", () => {
    expect(allowed(60_000, { cost: BENT, ahead: 0, renewsFromUs: 0 })).toEqual([30_000, 30_000])
  })
})

test("a machine that is slower than its model has dearer pieces", () => {
  const calibration = new Calibration()
  for (let i = 0; i < 300; i++) calibration.observe("mixed", 1000, 1500)
  expect(allowed(10_000, { calibration })).toEqual([75_000, 75_000])
})
