import { describe, expect, test } from "vitest"
import { type Pair, paired, slopeOf } from "../bench/real/pairs.ts"

/** Ahead by `lead` at equal speed, and by 20 points less where the machine was e times as slow; `off` scatters. */
const pair = (ratePerSec: number, lead: number, slower: number, off = 0): Pair => ({
  ...{ ratePerSec, slower, ahead: lead - 20 * slower + off },
})

describe("pairs", () => {
  test("what the machine gave is told from what the system did", () => {
    const pairs = [pair(3, 2, 0.1), pair(3, 2, 0.3), pair(4, 2, -0.2), pair(4, 2, -0.4)]
    const [low, high, all] = paired(pairs)
    expect(low).toMatchObject({ rate: 3, pairs: 2, ahead: -2, even: expect.closeTo(2) })
    expect(high).toMatchObject({ rate: 4, pairs: 2, ahead: expect.closeTo(8), even: expect.closeTo(2) })
    expect(all).toMatchObject({ rate: "all", pairs: 4, ahead: expect.closeTo(3), even: expect.closeTo(2) })
    expect(all!.evenError).toBeCloseTo(0)
    expect(all!.error).toBeCloseTo(Math.sqrt(116 / 3) / 2)
  })

  test("where nothing but chance differs the line says so", () => {
    const pairs = [pair(3, 1, 0.1, 1), pair(3, 1, 0.1, -1), pair(3, 1, -0.1, 1), pair(3, 1, -0.1, -1)]
    const { value, error } = slopeOf(pairs)
    expect(value).toBeCloseTo(-20)
    expect(error).toBeCloseTo(Math.sqrt(2) / 0.2)
    // Both met the same machine in the mean: the line's error does not matter.
    expect(paired(pairs)[0]).toMatchObject({
      even: expect.closeTo(1),
      evenError: expect.closeTo(1 / Math.sqrt(3)),
    })
  })

  test("too few pairs are no line, and one is no mean", () => {
    expect(slopeOf([pair(3, 1, 0), pair(3, 1, 1), pair(3, 1, 2)]).value).toBeNaN()
    expect(paired([pair(3, 1, 0)])).toEqual([])
    expect(paired([pair(3, 1, 0), pair(4, 1, 0)]).map(({ rate }) => rate)).toEqual(["all"])
  })
})
