/** Zero-load prefill time. */
import { expect, test } from "vitest"
import type { CostModel } from "../cost.ts"
import { COST } from "../testing.ts"
import { prefillUs, splitUs, tokensWithin } from "./prefill-time.ts"

test("is that of whole batches and of what is left", () => {
  expect(prefillUs(COST, 0, 100, 512)).toBe(15_000)
  expect(prefillUs(COST, 0, 512, 512)).toBe(56_200)
  expect(prefillUs(COST, 0, 513, 512)).toBe(56_200 + 5_100)
  expect(prefillUs(COST, 0, 0, 512)).toBe(0)
})

test("counts the context that is in place before it, and chunks that attention is slow for", () => {
  const cost: CostModel = { ...COST, pieces: [{ fastPairs: 1, slowPairs: 100 }], fastPassTokens: 10 }
  // Ten tokens after 100: 101 + … + 110 pairs.
  expect(prefillUs(cost, 100, 10, 10)).toBe(1055)
  // The second ten attend to the first as well; the last five are a short pass.
  expect(prefillUs(cost, 0, 25, 10)).toBe(55 + 155 + 100 * 115)
})

test("samples one row, at the end; each batch is one sequence and one pass", () => {
  const cost: CostModel = { ...COST, pieces: [{ outputs: 1000, sequences: 10, passes: 1 }] }
  expect(prefillUs(cost, 0, 25, 10)).toBe(1033)
})

test("the other way round: most tokens of one batch that takes so long, at least one", () => {
  expect(tokensWithin(COST, 15_000, 512)).toBe(100)
  expect(tokensWithin(COST, 15_099, 512)).toBe(100)
  expect(tokensWithin(COST, 15_100, 512)).toBe(101)
  expect(tokensWithin(COST, 1e9, 512)).toBe(512)
  expect(tokensWithin(COST, 0, 512)).toBe(1)
})

test("a piece more costs a step, where steps have a fixed cost; where weights are read meanwhile, launches alone", () => {
  expect(splitUs(COST, 40_000, 4096)).toBe(5000)
  const bent: CostModel = { ...COST, pieces: [{ step: 20_000 }, { step: 700, tokens: 100 }] }
  expect(splitUs(bent, 80_000, 4096)).toBe(700)
  // In halves weights are all that takes time.
  expect(splitUs(bent, 20_700, 4096)).toBe(2 * 20_000 - 20_700)
  expect(splitUs(bent, 80_000, 100)).toBe(20_000)
  expect(splitUs(bent, 1, 4096)).toBe(20_000)
  // Attention is the same in pieces.
  const attending: CostModel = { ...COST, pieces: [{ step: 5000, fastPairs: 1 }] }
  expect(splitUs(attending, 40_000, 4096)).toBe(5000)
})
