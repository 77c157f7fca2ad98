/** What best effort leaves to promises to come. */
import { describe, expect, test, vi } from "vitest"
import { specOf } from "../core/testing.ts"
import { ENGINE_RULES } from "./engine-rules.ts"
import { keepsAlone } from "./keeps-alone.ts"
import { TimeReserve } from "./time-reserve.ts"
import { Twin, type TwinSpec } from "./twin.ts"

/** Believed of an engine that was not seen yet: 30 ms a step. */
const newTwin = () => new Twin({ rules: ENGINE_RULES.vllm })
const promised = (app: number, ttftUs: number, tpotUs: number): TwinSpec =>
  specOf(1, { app, promptTokens: 100, maxOutputTokens: 200, slo: { ...specOf(1).slo, ttftUs, tpotUs } })
/** Of a class without objectives. */
const bestEffort: TwinSpec = {
  ...specOf(2, { tier: "bestEffort" }),
  slo: { ...specOf(2).slo, ttftUs: Infinity, tpotUs: Infinity },
}
const FAR_AHEAD_US = 3_600_000_000

describe("keepsAlone", () => {
  test("tells what an idle engine keeps from what none does", () => {
    expect(keepsAlone(promised(0, 1_000_000, 100_000), newTwin())).toBe(true)
    expect(keepsAlone(promised(0, 30_000, 100_000), newTwin())).toBe(false)
    expect(keepsAlone(promised(0, 1_000_000, 20_000), newTwin())).toBe(false)
    // An early first token is slack, which a short answer does not use up.
    expect(keepsAlone({ ...promised(0, 1_000_000, 20_000), maxOutputTokens: 8 }, newTwin())).toBe(true)
  })
})

describe("time for promises to come", () => {
  /** An engine that takes no promise any more once there is more to do. */
  function busy() {
    const twin = newTwin()
    const offer = vi.spyOn(twin, "offer")
    const free = twin.offer(promised(0, 1e6, 1e6), 0)
    offer.mockImplementation((_spec, _nowUs, held) => ({ ...free, takes: held?.before.length !== 1 }))
    return { reserve: new TimeReserve(twin), offer }
  }

  test("is left by what has no objective, however far ahead a deadline it is given", () => {
    const { reserve } = busy()
    reserve.sent(promised(0, 1_000_000, 100_000), 0)
    expect(reserve.leaves(bestEffort, 1000, Infinity)).toBe(false)
    expect(reserve.leaves(bestEffort, 1000, FAR_AHEAD_US)).toBe(false)
  })

  test("need not be left by what may still be in time", () => {
    const { reserve } = busy()
    reserve.sent(promised(0, 1_000_000, 100_000), 0)
    expect(reserve.leaves(promised(1, 1_000_000, 1_000_000), 1000, 1_000_000)).toBe(true)
    expect(reserve.leaves(promised(1, 1_000_000, 1_000_000), 1_000_001, 1_000_000)).toBe(false)
  })

  test("is not kept for what not even an idle engine keeps, but for the latest other", () => {
    const { reserve, offer } = busy()
    const [possible, impossible] = [promised(0, 1_000_000, 100_000), promised(1, 1_000_000, 10_000)]
    reserve.sent(impossible, 0)
    expect(reserve.leaves(bestEffort, 1000, Infinity)).toBe(true)
    reserve.sent(possible, 1000)
    reserve.sent(impossible, 2000)
    expect(reserve.leaves(bestEffort, 3000, Infinity)).toBe(false)
    expect(offer.mock.lastCall![0]).toMatchObject({ app: 0, arrivalUs: 3000 })
    reserve.sent({ ...possible, app: 2, maxOutputTokens: 7 }, 3000)
    reserve.leaves(bestEffort, 4000, Infinity)
    expect(offer.mock.lastCall![0]).toMatchObject({ app: 2 })
  })

  test("is not kept once there was no promise for a minute", () => {
    const { reserve } = busy()
    reserve.sent(promised(0, 1_000_000, 100_000), 0)
    expect(reserve.leaves(bestEffort, 60_000_000, Infinity)).toBe(false)
    expect(reserve.leaves(bestEffort, 60_000_001, Infinity)).toBe(true)
  })
})
