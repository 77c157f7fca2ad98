/** Useful tokens per time of the next batch, in figures. A step is 5 ms, 0.1 ms a token and 1 ms a draft step. */
import { describe, expect, test } from "vitest"
import { type SpeculationSetting, type SpeculationTier, usefulRate } from "./useful-rate.ts"

const setting: SpeculationSetting = {
  cost: { pieces: [{ step: 5000, tokens: 100, specSteps: 1000 }], unifiedKv: true },
  ...{ scale: 1, maxBatchUs: 1e9, maxBatchTokens: 1000, waitingTokens: 0, maxLength: 8 },
}
/** Half of what is drafted is accepted: two verified tokens come to 1.5. */
const tier: SpeculationTier = { tpotUs: 20_000, acceptance: 0.5, hitRate: 1, count: 10, contextTokens: 100 }
const rate = (lengths: number[], changes: Partial<SpeculationSetting> = {}, tiers = [tier]) =>
  usefulRate({ ...setting, ...changes }, tiers, lengths)

describe("of decodes alone it is", () => {
  test("what they are expected to yield, over the time of the step", () => {
    expect(rate([1])).toBeCloseTo(10 / 6000)
    expect(rate([2])).toBeCloseTo(15 / 8000)
  })

  test("less on a machine that is slower", () => {
    expect(rate([2], { scale: 1.25 })).toBeCloseTo(15 / 10_000)
  })

  test("none at all where drafts take more tokens than a batch has", () => {
    expect(rate([2], { maxBatchTokens: 20 })).toBeCloseTo(15 / 8000)
    expect(rate([2], { maxBatchTokens: 19 })).toBe(-Infinity)
    const two = [tier, tier]
    expect(rate([2, 1], { maxBatchTokens: 30 }, two)).toBeCloseTo(25 / 9000)
    expect(rate([2, 1], { maxBatchTokens: 29 }, two)).toBe(-Infinity)
    // One token each is no choice.
    expect(rate([1], { maxBatchTokens: 9 })).toBeCloseTo(10 / 6000)
  })

  test("how far they are behind, where a step takes longer than the pace", () => {
    const tight = (tpotUs: number) => [{ ...tier, tpotUs }]
    expect(rate([1], {}, tight(6000))).toBeCloseTo(10 / 6000)
    expect(rate([1], {}, tight(3000))).toBeCloseTo(1 - 2)
    expect(rate([1], { scale: 1.5 }, tight(6000))).toBeCloseTo(1 - 1.5)
    // Nine tenths of what drafts yield let the pace be longer: 8 ms of 5.517 · 1.45.
    expect(rate([2], {}, tight(5517))).toBeCloseTo(1 - 8000 / (5517 * 1.45))
    expect(rate([2], {}, tight(5518))).toBeCloseTo(15 / 8000)
  })
})

describe("with prompts that wait it is", () => {
  test("theirs as well, as many as the pace has room for", () => {
    // 20 ms: 150 tokens, ten of them the decodes'.
    expect(rate([1], { waitingTokens: 900 })).toBeCloseTo((140 + 10) / 20_000)
    expect(rate([1], { waitingTokens: 50 })).toBeCloseTo((50 + 10) / 11_000)
    expect(rate([1], { waitingTokens: 900, scale: 1.25 })).toBeCloseTo((100 + 10) / 20_000)
    expect(rate([1], { waitingTokens: 900, maxBatchUs: 10_000 })).toBeCloseTo((40 + 10) / 10_000)
    // 29 ms with a draft each: 230 tokens.
    expect(rate([2], { waitingTokens: 900 })).toBeCloseTo((210 + 15) / 29_000)
  })

  test("as many as the batch has room for", () => {
    expect(rate([1], { waitingTokens: 900, maxBatchTokens: 60 })).toBeCloseTo((50 + 10) / 11_000)
    expect(rate([2], { waitingTokens: 900, maxBatchTokens: 60 })).toBeCloseTo((40 + 15) / 12_000)
  })

  test("as many as are free where tokens cost nothing", () => {
    const free = { cost: { pieces: [{ step: 5000 }], unifiedKv: true } }
    expect(rate([1], { ...free, waitingTokens: 900 })).toBeCloseTo((900 + 10) / 5000)
  })
})
