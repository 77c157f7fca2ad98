/** What is learnt of output lengths, against samples whose distribution is known. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { Random } from "../../random.ts"
import { OUTLOOK_TOKENS, OutputLengths } from "./output-lengths.ts"

function learn(lengths: OutputLengths, tokens: number, app = 0): void {
  lengths.grew(app, 0, tokens)
  lengths.ended(app, tokens)
}

describe("output lengths", () => {
  test("takes an unknown app's outputs for moderate, and learns their mean from few", () => {
    const lengths = new OutputLengths(2)
    expect(lengths.remaining(0, 0, 1000)).toBeCloseTo(128, -1)
    for (let i = 0; i < 50; i++) learn(lengths, 500)
    expect(lengths.remaining(0, 0, 5000) / 500).toBeCloseTo(1, 0)
    expect(lengths.remaining(0, 480, 5000)).toBeLessThan(100)
    expect(lengths.remaining(1, 0, 1000)).toBeCloseTo(128, -1)
    expect(lengths.remaining(0, 0, 10)).toBe(10)
  })

  test("expects of outputs with a long tail that those which have come far go on for longer", () => {
    const random = new Random("lengths")
    const all = Array.from({ length: 2000 }, () => Math.ceil(random.lognormal(1000, 0.8)))
    const lengths = new OutputLengths(1)
    for (const tokens of all) learn(lengths, tokens)
    for (const output of [0, 500, 1000, 2000]) {
      const longer = all.filter((tokens) => tokens > output)
      const mean = longer.reduce((sum, tokens) => sum + tokens - output, 0) / longer.length
      expect(lengths.remaining(0, output, 1e6) / mean).toBeGreaterThan(0.75)
      expect(lengths.remaining(0, output, 1e6) / mean).toBeLessThan(1.3)
      const outlook = lengths.outlook(0, output)
      for (const k of [9, 11, 13, 15]) {
        const ahead = output + OUTLOOK_TOKENS[k]!
        const share = longer.filter((tokens) => tokens > ahead).length / longer.length
        expect(Math.abs(outlook[k]! - share)).toBeLessThan(0.12)
      }
    }
  })

  test("outputs under way count: half end at 50, half have come to 2,000", () => {
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 40; i++) {
      learn(lengths, 50)
      lengths.grew(0, 0, 2000)
    }
    expect(lengths.remaining(0, 0, 1e6)).toBeGreaterThan(1000)
  })

  test("does not depend on the steps in which outputs grow", () => {
    const [whole, stepwise] = [new OutputLengths(1), new OutputLengths(1)]
    whole.grew(0, 0, 1234)
    for (let tokens = 0; tokens < 1234; tokens++) stepwise.grew(0, tokens, tokens + 1)
    expect(stepwise.outlook(0, 0)).toEqual(whole.outlook(0, 0))
  })

  test("follows an app that changes", () => {
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 1000; i++) learn(lengths, 2000)
    for (let i = 0; i < 600; i++) learn(lengths, 100)
    expect(lengths.remaining(0, 0, 1e6)).toBeLessThan(250)
  })

  test("an outlook falls from 1; what remains is within what may come", () => {
    const outputs = fc.array(fc.integer({ min: 1, max: 100_000 }), { maxLength: 300 })
    const asked = fc.integer({ min: 0, max: 200_000 })
    fc.assert(
      fc.property(outputs, asked, fc.integer({ min: 1, max: 10_000 }), (seen, output, left) => {
        const lengths = new OutputLengths(1)
        for (const tokens of seen) learn(lengths, tokens)
        const outlook = lengths.outlook(0, output)
        expect(outlook[0]).toBe(1)
        for (let k = 1; k < outlook.length; k++) {
          expect(outlook[k]).toBeGreaterThanOrEqual(0)
          expect(outlook[k]).toBeLessThanOrEqual(outlook[k - 1]!)
        }
        expect(lengths.remaining(0, output, output + left)).toBeGreaterThanOrEqual(Math.min(1, left))
        expect(lengths.remaining(0, output, output + left)).toBeLessThanOrEqual(left)
      }),
    )
  })

  test("endless ones go on for as long as they may", () => {
    expect(OutputLengths.endless(1).remaining(0, 7, 10_000)).toBe(9993)
    expect(Math.min(...OutputLengths.endless(1).outlook(0, 7))).toBe(1)
  })

  test("before any was seen, an output of n tokens goes on for n + 128 more, and comes to 128 in one of four cases", () => {
    const lengths = new OutputLengths(1)
    const outlook = lengths.outlook(0, 0)
    for (const [k, ahead] of OUTLOOK_TOKENS.entries())
      expect(Math.abs(outlook[k]! - (1 + ahead / 128) ** -2)).toBeLessThan(0.02)
    expect(lengths.remaining(0, 1000, 1e6) / 1128).toBeCloseTo(1, 1)
  })

  test("what was asked before changes no later answer", () => {
    const [asked, quiet] = [new OutputLengths(1), new OutputLengths(1)]
    for (const tokens of [40, 700, 90, 3000, 15]) {
      for (const output of [0, 100, 1000]) {
        asked.outlook(0, output)
        asked.bounds(0, output)
        asked.remaining(0, output, 1e6)
      }
      for (const lengths of [asked, quiet]) learn(lengths, tokens)
    }
    for (const output of [0, 100, 1000]) {
      expect(asked.outlook(0, output)).toEqual(quiet.outlook(0, output))
      expect({ ...asked.bounds(0, output) }).toEqual({ ...quiet.bounds(0, output) })
      expect(asked.remaining(0, output, 1e6)).toBe(quiet.remaining(0, output, 1e6))
    }
  })

  test("bounds are never less than what the outlook says, and not much more", () => {
    const random = new Random("bounds")
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 100; i++) learn(lengths, Math.ceil(random.lognormal(600, 1)))
    for (const output of [0, 10, 100, 700, 3000]) {
      const { tokens, squares, start } = { ...lengths.bounds(0, output) }
      const outlook = lengths.outlook(0, output)
      let [most, mostSquares] = [0, 0]
      for (const [k, ahead] of OUTLOOK_TOKENS.entries()) {
        most = Math.max(most, (start + ahead) * outlook[k]!)
        mostSquares = Math.max(mostSquares, (start + ahead) ** 2 * outlook[k]!)
      }
      expect(start).toBeLessThanOrEqual(output)
      expect(output - start).toBeLessThanOrEqual(4 + 0.2 * output)
      expect(tokens).toBeGreaterThanOrEqual(most)
      expect(tokens).toBeLessThan(1.6 * most + 10)
      expect(squares).toBeGreaterThanOrEqual(mostSquares)
      expect(squares).toBeLessThan(2.2 * mostSquares + 100)
    }
  })

  test("lengths beyond its tables are like those within", () => {
    const lengths = new OutputLengths(1)
    for (let i = 0; i < 20; i++) learn(lengths, 3_000_000)
    const [within, beyond] = [16_000, 17_000].map((output) => lengths.remaining(0, output, 1e9)) as [
      number,
      number,
    ]
    expect(within).toBeGreaterThan(100_000)
    expect(Math.abs(beyond / within - 1)).toBeLessThan(0.05)
    expect(lengths.remaining(0, 4_000_000, 1e9)).toBeGreaterThanOrEqual(1)
    expect(lengths.outlook(0, 4_000_000)[0]).toBe(1)
    expect(lengths.bounds(0, 4_000_000).start).toBeGreaterThan(800_000)
  })
})
