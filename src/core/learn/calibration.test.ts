/** How far off the cost model is, in the mean and step by step. */
import { describe, expect, test } from "vitest"
import { Calibration, type StepKind, stepKind } from "./calibration.ts"

/** After `count` steps that took `ratio` times what was predicted. */
function after(count: number, ratio: number, kind: StepKind = "mixed", calibration = new Calibration()) {
  for (let i = 0; i < count; i++) calibration.observe(kind, 1000, 1000 * ratio)
  return calibration
}

test("a step with prefill is mixed, whatever is drafted besides", () => {
  expect(stepKind(true, true)).toBe("mixed")
  expect(stepKind(true, false)).toBe("mixed")
  expect(stepKind(false, true)).toBe("drafted")
  expect(stepKind(false, false)).toBe("decode")
})

describe("the mean ratio", () => {
  test("moves a twentieth of the way with each step", () => {
    expect(after(1, 1.2).ratio("mixed")).toBeCloseTo(1.01)
    expect(after(2, 1.2).ratio("mixed")).toBeCloseTo(1.01 + 0.05 * 0.19)
    expect(after(1, 1.2).snapshot()).toEqual([1, after(1, 1.2).ratio("mixed"), 1])
  })

  test("is moved by one stall, or one step that took no time, as by a factor of three at most", () => {
    expect(after(1, 1000).ratio("mixed")).toBeCloseTo(1.1)
    expect(after(1, 0.001).ratio("mixed")).toBeCloseTo(1 - 0.05 * (2 / 3))
  })

  test("stays within a factor of eight: further off the profile is wrong", () => {
    expect(after(1000, 100).ratio("mixed")).toBe(8)
    expect(after(1000, 0.01).ratio("mixed")).toBe(1 / 8)
    expect(after(1000, 7.5).ratio("mixed")).toBeCloseTo(7.5)
  })

  test("learns nothing from times that are none", () => {
    const calibration = new Calibration()
    for (const [predicted, actual] of [
      [0, 1000],
      [1000, 0],
      [-1, 1000],
      [1000, -1],
    ] as const)
      calibration.observe("mixed", predicted, actual)
    expect(calibration.snapshot()).toEqual([1, 1, 1])
  })

  test("of drafted steps is that of plain ones until there are some, and then follows them slowly", () => {
    const calibration = after(1, 1.2, "decode")
    expect(calibration.ratio("drafted")).toBe(calibration.ratio("decode"))
    after(1, 2, "drafted", calibration)
    const drafted = calibration.ratio("drafted")
    expect(drafted).toBeCloseTo(1.01 + 0.05 * 0.99)
    after(1, 1.2, "decode", calibration)
    const { decode } = { decode: calibration.ratio("decode") }
    expect(calibration.ratio("drafted")).toBeCloseTo(drafted + 0.0005 * (decode - drafted), 9)
    // Prefill says nothing of them.
    const before = calibration.ratio("drafted")
    after(1, 1.2, "mixed", calibration)
    expect(calibration.ratio("drafted")).toBe(before)
  })
})

describe("the margin", () => {
  test("is three spreads of what the profile found, within bounds, before any step", () => {
    for (const sigma of [0.02, 0.05, 0.08])
      expect(new Calibration(sigma).margin("decode")).toBeCloseTo(3 * sigma, 2)
    expect(new Calibration(0).margin("decode")).toBe(0.04)
    expect(new Calibration(0.5).margin("decode")).toBe(0.3)
    expect(new Calibration().margin("decode")).toBe(new Calibration(0.05).margin("decode"))
  })

  test("is of steps around the mean: a machine that is twice as slow needs no more of it", () => {
    const steady = after(2000, 2)
    expect(steady.ratio("mixed")).toBeCloseTo(2)
    expect(steady.margin("mixed")).toBe(0.04)
  })

  test("is so large that a twentieth of the steps may exceed 1.645 spreads", () => {
    const calibration = new Calibration(0.05)
    // Of ten steps one takes a tenth longer, the others a little less: the mean is 1.
    for (let i = 0; i < 4000; i++) calibration.observe("decode", 1000, i % 10 === 0 ? 1090 : 990)
    expect(calibration.ratio("decode")).toBeCloseTo(1, 1)
    // The 95th percentile lies among the long ones.
    expect(calibration.margin("decode")).toBeGreaterThan((3 * 0.08) / 1.645)
    expect(calibration.margin("decode")).toBeLessThan((3 * 0.11) / 1.645)
    const rare = new Calibration(0.05)
    for (let i = 0; i < 4000; i++) rare.observe("decode", 1000, i % 40 === 0 ? 1200 : 995)
    expect(rare.margin("decode")).toBe(0.04)
  })

  test("forgets: what scatters no longer needs no margin any more", () => {
    const calibration = new Calibration(0.1)
    for (let i = 0; i < 2000; i++) calibration.observe("decode", 1000, i % 2 === 0 ? 850 : 1150)
    const wild = calibration.margin("decode")
    expect(wild).toBeGreaterThan(0.2)
    after(400, 1, "decode", calibration)
    expect(calibration.margin("decode")).toBeGreaterThan(0.04)
    after(1600, 1, "decode", calibration)
    expect(calibration.margin("decode")).toBe(0.04)
  })

  test("is the same after a day of steps", () => {
    const calibration = new Calibration(0.1)
    const scatter = (steps: number) => {
      for (let i = 0; i < steps; i++) calibration.observe("decode", 1000, i % 2 === 0 ? 930 : 1070)
      return calibration.margin("decode")
    }
    const early = scatter(5000)
    expect(early).toBeGreaterThan(0.1)
    expect(scatter(1000)).toBeCloseTo(early, 2)
    expect(scatter(300_000)).toBeCloseTo(early, 2)
  })
})
