/** Step times learnt from stretches of work. */
import { expect, test } from "vitest"
import { stepUs } from "../core/cost.ts"
import { chance, normalChance } from "../sim/chance.ts"
import { CostFit, type Stretch } from "./cost-fit.ts"

const TRUTH = { entries: 3000, steps: 12_000, tokens: 80, sequences: 50, pairs: 0.02 }

function stretch(i: number, noise: number, withPrompt = i % 3 === 0): [Stretch, number] {
  const steps = 8
  const streams = 1 + Math.floor(chance(1, i, 0) * 30)
  const promptTokens = withPrompt ? Math.floor(chance(1, i, 1) * 4000) + 200 : 0
  const tokens = steps * streams + promptTokens
  const pairs = steps * streams * 400 * (1 + chance(1, i, 2)) + (promptTokens * promptTokens) / 2
  const entries = withPrompt && i % 2 === 0 ? 1 : 0
  const sequences = steps * streams + (withPrompt ? 2 : 0)
  const parts = { entries, steps, tokens, sequences, pairs }
  let us = 0
  for (const [feature, count] of Object.entries(parts)) us += count * TRUTH[feature as keyof typeof TRUTH]
  return [{ ...parts, us: us * Math.exp(noise * normalChance(2, i, 0)) }, promptTokens]
}

/** A step of 20 decodes of 500 tokens and a chunk of 600. */
const SHAPE = {
  ...{ tokens: 620, sequences: 21, passes: 1, fastPairs: 20 * 500 + 180_000, slowPairs: 0 },
  ...{ outputs: 21, specSteps: 0 },
}
const SHAPE_US = 12_000 + 620 * 80 + 21 * 50 + SHAPE.fastPairs * 0.02

test("finds the step times within a tenth, some stretches being wholly wrong", () => {
  const fit = new CostFit()
  for (let i = 0; i < 200; i++) {
    const [seen, promptTokens] = stretch(i, 0.05)
    fit.observe(i % 11 === 10 ? { ...seen, us: seen.us * 6 } : seen, promptTokens)
  }
  expect(fit.confident).toBe(true)
  expect(Math.abs(stepUs(fit.model, SHAPE) / SHAPE_US - 1)).toBeLessThan(0.1)
})

test("is not sure of itself before it has seen prompts and decodes", () => {
  const fit = new CostFit()
  expect(fit.confident).toBe(false)
  // Rather slow at first: this engine is faster than the guess.
  expect(stepUs(fit.model, SHAPE)).toBeGreaterThan(1.5 * SHAPE_US)
  for (let i = 0; i < 50; i++) fit.observe(...stretch(i, 0.05, false))
  expect(fit.confident).toBe(false)
  for (let i = 0; i < 8; i++) fit.observe(...stretch(i, 0.05, true))
  expect(fit.confident).toBe(true)
})

test("what the stretches do not tell apart stays near the guess", () => {
  const fit = new CostFit({ steps: 10_000, tokens: 100 })
  for (let i = 0; i < 40; i++)
    fit.observe({ entries: 0, steps: 8, tokens: 80, sequences: 80, pairs: 0, us: 96_000 }, 0)
  const shape = { ...SHAPE, tokens: 10, sequences: 10, fastPairs: 0 }
  expect(Math.abs(stepUs(fit.model, shape) / 12_000 - 1)).toBeLessThan(0.1)
  // 1,000 prompt tokens were never seen: not as good as free.
  expect(stepUs(fit.model, { ...shape, tokens: 1000, sequences: 1 })).toBeGreaterThan(30_000)
})

test("equal tiny prompts: no term takes all", () => {
  const fit = new CostFit()
  for (let i = 0; i < 300; i++)
    fit.observe(
      { entries: 1, steps: 9, tokens: 20, sequences: 9, pairs: 170, us: 90_000 + (i % 7) * 500 },
      12,
    )
  const tiny = { ...SHAPE, tokens: 2, sequences: 1, fastPairs: 19, outputs: 1 }
  expect(stepUs(fit.model, tiny)).toBeGreaterThan(5000)
  expect(stepUs(fit.model, tiny)).toBeLessThan(13_000)
  // A long prompt has ten thousand times the pairs of a tiny one.
  const long = { ...tiny, tokens: 2000, fastPairs: 2e6 }
  expect(stepUs(fit.model, long)).toBeGreaterThan(100_000)
  expect(stepUs(fit.model, long)).toBeLessThan(1_000_000)
})

test("many decodes do not push out what is known of prompts; a slower engine is followed", () => {
  const fit = new CostFit()
  for (let i = 0; i < 60; i++) fit.observe(...stretch(i, 0.05, true))
  for (let i = 0; i < 2000; i++) fit.observe(...stretch(i, 0.05, false))
  expect(Math.abs(stepUs(fit.model, SHAPE) / SHAPE_US - 1)).toBeLessThan(0.15)
  for (let i = 0; i < 600; i++) {
    const [seen, promptTokens] = stretch(i, 0.05)
    fit.observe({ ...seen, us: seen.us * 2 }, promptTokens)
  }
  expect(Math.abs(stepUs(fit.model, SHAPE) / (2 * SHAPE_US) - 1)).toBeLessThan(0.15)
})

test("an impossible stretch is not taken", () => {
  const fit = new CostFit()
  const before = fit.model
  fit.observe({ entries: 0, steps: 0, tokens: 10, sequences: 1, pairs: 0, us: 1000 }, 10)
  fit.observe({ entries: 0, steps: 8, tokens: 10, sequences: 1, pairs: 0, us: 0 }, 0)
  fit.observe({ entries: 0, steps: 8, tokens: 10, sequences: 1, pairs: 0, us: Number.NaN }, 0)
  expect(fit.model).toBe(before)
})
