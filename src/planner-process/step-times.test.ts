/** Step times of an engine: learnt from what lands, kept for the next one like it. */
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "../core/cost.ts"
import { GPU_GUESS, guessedModel, LAYOUT } from "../fit/guess.ts"
import { startingCost } from "../profile/engine-cost.ts"
import { until } from "../serve/until-testing.ts"
import { StepTimes } from "./step-times.ts"
import { ENGINE } from "./testing.ts"

const TRUTH: CostModel = { pieces: [{ step: 6000, tokens: 50 }], residualSigma: 0, ...LAYOUT }
const said: string[] = []
let cacheDir: string
beforeEach(async () => {
  said.length = 0
  cacheDir = await mkdtemp(join(tmpdir(), "slos-step-times-"))
})
afterEach(() => rm(cacheDir, { recursive: true, force: true }))

const opened = (dir: string | null = cacheDir) =>
  new StepTimes(ENGINE, { cacheDir: dir, log: (message) => said.push(message) })

function batch(i: number) {
  const decodes = Array.from({ length: 1 + (i % 9) }, (_, id) => ({
    id,
    position: 80 + i,
    tokens: 1,
    draft: 0,
  }))
  return i % 4 === 0 ? [...decodes, { id: 99, position: 0, tokens: 20 + 5 * (i % 40), draft: 0 }] : decodes
}
function taught(times: StepTimes, count: number, factor = 1): StepTimes {
  for (let i = 0; i < count; i++) {
    const items = batch(i)
    const shape = shapeOf(
      items.map((item) => ({ ...item, sample: true })),
      LAYOUT,
    )
    times.landed(items, null, factor * stepUs(TRUTH, shape))
    times.learn()
  }
  return times
}
const PROBE = shapeOf(
  [
    { position: 100, tokens: 1, sample: true, draft: 0 },
    { position: 0, tokens: 150, sample: true, draft: 0 },
  ],
  LAYOUT,
)
const off = (cost: CostModel) => Math.abs(stepUs(cost, PROBE) / stepUs(TRUTH, PROBE) - 1)

test("begin with a guess, and are learnt when there is time for it", () => {
  const times = opened()
  expect(times.cost).toEqual(guessedModel(GPU_GUESS))
  for (let i = 0; i < 4; i++) times.landed(batch(i), null, 7000)
  expect(times.cost).toEqual(guessedModel(GPU_GUESS))
  expect(times.learn()).toBe(times.cost)
  expect(times.cost).not.toEqual(guessedModel(GPU_GUESS))
  expect(times.learn()).toBeNull()
  expect(off(taught(times, 300).cost)).toBeLessThan(0.1)
})

test("are kept for the next engine like it, once they are believed", async () => {
  taught(opened(), 50).keep()
  expect(await readdir(cacheDir)).toEqual([])
  const times = taught(opened(), 400)
  await until(() => expect(off(startingCost(ENGINE, cacheDir))).toBeLessThan(0.1))
  times.keep()
  await until(() => expect(startingCost(ENGINE, cacheDir)).toEqual(times.cost))
  expect(opened().cost).toEqual(times.cost)
  expect(opened(null).cost).toEqual(guessedModel(GPU_GUESS))
  expect(said).toEqual([])
})

test("that do not fit any more are forgotten, and said to be", async () => {
  taught(opened(), 400).keep()
  await until(() => expect(off(startingCost(ENGINE, cacheDir))).toBeLessThan(0.1))
  const slower = taught(opened(), 60, 3)
  expect(said).toEqual([expect.stringContaining("do not fit it; they are learnt anew")])
  expect(stepUs(slower.cost, PROBE) / stepUs(TRUTH, PROBE)).toBeGreaterThan(2.5)
  await until(() => expect(startingCost(ENGINE, cacheDir)).toEqual(guessedModel(GPU_GUESS)))
})

test("count the tokens that were really drafted", () => {
  const times = opened()
  const items = [{ id: 1, position: 50, tokens: 1, draft: 7 }]
  const truth = (drafts: number) => 10_000 + 1000 * drafts
  for (let i = 0; i < 200; i++) {
    const drafts = i % 8
    times.landed(items, new Map([[1, drafts]]), truth(drafts))
    times.learn()
  }
  const took = (draft: number) => stepUs(times.cost, shapeOf([{ ...items[0]!, sample: true, draft }], LAYOUT))
  expect(took(7) / took(0)).toBeGreaterThan(1.4)
})

test("that cannot be kept are no reason to stop", async () => {
  const times = taught(
    new StepTimes(ENGINE, { cacheDir: "/dev/null/nowhere", log: (message) => said.push(message) }),
    250,
  )
  times.keep()
  await until(() => expect(said[0]).toContain("could not be kept in /dev/null/nowhere"))
})
