/** What planning knows of time, and how it changes a request's tier. */
import { describe, expect, test } from "vitest"
import { shapeOf } from "../cost.ts"
import { Acceptance } from "../learn/acceptance.ts"
import { Calibration } from "../learn/calibration.ts"
import { Tenants } from "../learn/tenants.ts"
import { COST, contextOf, LIMITS, liveOf } from "../testing.ts"

function slow(): Calibration {
  const calibration = new Calibration()
  for (let i = 0; i < 100; i++) {
    calibration.observe("drafted", 1000, 1200)
    calibration.observe("decode", 1000, 2000)
  }
  // Slow and fast ones in rows of ten.
  for (let i = 0; i < 400; i++) calibration.observe("mixed", 1000, i % 20 < 10 ? 1000 : 1500, i * 2000)
  return calibration
}

describe("the time of a step", () => {
  test("is the model's, by the calibration of its kind", () => {
    const calibration = slow()
    const context = contextOf(LIMITS, { calibration })
    const shape = (draft: number) => shapeOf([{ position: 9, tokens: 1, sample: true, draft }], COST)
    // 5 ms and 0.1 ms a token.
    expect(context.stepUs(shape(0), false)).toBeCloseTo(5_100 * calibration.ratio("decode"))
    expect(context.stepUs(shape(2), false)).toBeCloseTo(5_300 * calibration.ratio("drafted"))
    expect(context.stepUs(shape(2), true)).toBeCloseTo(5_300 * calibration.ratio("mixed"))
    for (const kind of ["decode", "mixed", "drafted"] as const)
      expect(context.calibration(kind)).toBe(calibration.ratio(kind))
  })

  test("that is decided now goes by what the last one says, too", () => {
    const calibration = slow()
    const context = contextOf(LIMITS, { calibration })
    expect(context.nextCalibration("mixed")).toBe(calibration.ratio("mixed"))
    context.begin(800_000)
    const now = calibration.momentary(800_000)
    expect(Math.abs(now - 1)).toBeGreaterThan(0.01)
    expect(context.nextCalibration("mixed")).toBeCloseTo(calibration.ratio("mixed") * now)
    expect(context.calibration("mixed")).toBe(calibration.ratio("mixed"))
  })

  test("has the margin that was set, or the one that steps teach", () => {
    const calibration = slow()
    expect(contextOf(LIMITS, { calibration, margin: 0 }).margin("mixed")).toBe(0)
    expect(contextOf(LIMITS, { calibration, margin: null }).margin("mixed")).toBe(calibration.margin("mixed"))
  })
})

test("what was learnt is shared; where nothing was, there is something to begin with", () => {
  const [acceptance, tenants] = [new Acceptance(0.3), new Tenants()]
  const context = contextOf(LIMITS, { acceptance, tenants })
  expect([context.acceptance, context.tenants]).toEqual([acceptance, tenants])
  expect(context.acceptance).toBe(acceptance)
  expect(context.tenants).toBe(tenants)
  expect(contextOf().acceptance.of(0)).toBeCloseTo(0.7)
  expect(contextOf().tenants.several).toBe(false)
})

describe("a change of tier", () => {
  function told() {
    const log: string[] = []
    const context = contextOf(LIMITS, {
      actions: {
        demoted: ({ id }, reason) => void log.push(`${id} demoted: ${reason}`),
        promoted: ({ id }) => void log.push(`${id} promoted`),
        admitted: ({ id }) => void log.push(`${id} admitted`),
        preempted: ({ id }) => void log.push(`${id} preempted`),
      },
    })
    return { log, context }
  }

  test("is told once, and ends a promise", () => {
    const { log, context } = told()
    const request = Object.assign(liveOf(1), { admitted: true })
    context.demote(request, "wontFit")
    context.demote(request, "revoked")
    expect([request.tier, request.admitted, log]).toEqual(["bestEffort", false, ["1 demoted: wontFit"]])
    context.promote(request)
    expect([request.tier, request.admitted, log.at(-1)]).toEqual(["slo", false, "1 promoted"])
  })

  test("a promise is made once", () => {
    const { log, context } = told()
    const request = liveOf(1)
    context.admit(request)
    context.admit(request)
    expect([request.admitted, log]).toEqual([true, ["1 admitted"]])
  })

  test("one that came without an SLO has none to lose", () => {
    const { log, context } = told()
    const request = Object.assign(liveOf(1, { tier: "bestEffort" }), { admitted: true })
    context.demote(request, "wontFit")
    expect([request.admitted, log]).toEqual([true, []])
  })

  test("it starts where what others hold of its prompt ends", () => {
    const { context } = told()
    context.kv.attach(9, [1], -1, null)
    context.kv.grow(9, 16)
    context.kv.computed(9, 16)
    expect(context.startOf(liveOf(1, { prefix: [1, 2] }))).toBe(16)
    expect(context.startOf(liveOf(1, { prefix: [3, 2] }))).toBe(0)
  })
})
