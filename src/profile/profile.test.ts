/** Profiling: known costs are recovered from the fake engine, good profiles are kept, bad files are not. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { shapeOf, stepUs } from "../core/cost.ts"
import { type FakeOptions, fakeEngine } from "../engine/fake/engine.ts"
import { type Engine, GREEDY } from "../engine/port.ts"
import { describeProfile, profileSvg } from "./chart.ts"
import { gridFor } from "./grid.ts"
import { loadOrProfile, profileEngine, profilePath } from "./profile.ts"
import { COST, instantTime } from "./testing.ts"

function engine(
  cost = COST,
  noise = 0,
  maxSequences = 32,
  more: Partial<FakeOptions> = {},
): Engine & { steps: number } {
  const limits = {
    kvTokens: maxSequences * 2048,
    blockTokens: 16,
    maxSequences,
    maxBatchTokens: 512,
    contextTokens: 2048,
    minChunkTokens: 16,
    unifiedKv: cost.unifiedKv,
  }
  const fake = fakeEngine({ cost, limits, time: instantTime(), noise, seed: 4, ...more })
  const counted = Object.assign(fake, { steps: 0 })
  const execute = fake.execute.bind(fake)
  fake.execute = (batch) => {
    counted.steps++
    return execute(batch)
  }
  return counted
}

/** Batches that the grid does not contain. */
const UNSEEN = [
  [{ position: 700, tokens: 1, sample: true, draft: 0 }],
  [{ position: 300, tokens: 90, sample: false, draft: 0 }, ...decodes(11, 420)],
  [{ position: 0, tokens: 200, sample: true, draft: 0 }, ...decodes(20, 150)],
  decodes(27, 900),
]

function decodes(count: number, position: number) {
  return Array.from({ length: count }, () => ({ position, tokens: 1, sample: true, draft: 0 }))
}

test("progress grows as the work does, also where its time is up early", async () => {
  const slow = { ...COST, pieces: [{ step: 200_000, tokens: 10_000 }] }
  const subject = engine(slow)
  const told: { percent: number; steps: number }[] = []
  const onProgress = (message: string) => {
    const percent = /(\d+)%/.exec(message)
    if (percent) told.push({ percent: Number(percent[1]), steps: subject.steps })
  }
  await profileEngine(subject, { quick: true, onProgress })
  const percents = told.map(({ percent }) => percent)
  expect(percents).toEqual(percents.toSorted((a, b) => a - b))
  const late = told.find(({ percent }) => percent >= 95)!
  expect(subject.steps - late.steps).toBeLessThan(0.15 * subject.steps)
})

describe("fitting", () => {
  test.each([true, false])(
    "recovers the coefficients of an engine without noise (quick: %s)",
    async (quick) => {
      const { model, r2, mape } = await profileEngine(engine(), { quick })
      expect(r2).toBeGreaterThan(0.999)
      expect(mape).toBeLessThan(0.01)
      expect(model.fastPassTokens).toBe(8)
      for (const [feature, value] of Object.entries(COST.pieces[0]!)) {
        const fitted = model.pieces[0]![feature as keyof (typeof COST.pieces)[0]]
        expect(fitted, feature).toBeGreaterThan(value * 0.9)
        expect(fitted, feature).toBeLessThan(value * 1.1)
      }
    },
  )

  test.each([true, false])("recovers the cost of speculation (quick: %s)", async (quick) => {
    const cost = { ...COST, pieces: [{ ...COST.pieces[0]!, specSteps: 1200 }] }
    const speculating = engine(cost, 0, 32, { speculate: "lookup", acceptance: 0.5 })
    const { model, samples } = await profileEngine(speculating, { quick, maxDraft: 7 })
    expect(model.pieces[0]!.specSteps).toBeGreaterThan(1000)
    expect(model.pieces[0]!.specSteps).toBeLessThan(1400)
    const most = (sample: (typeof samples)[number]) => Math.max(...sample.items.map((item) => item.draft))
    expect(Math.max(...samples.map(most))).toBe(7)
    expect(samples.filter((sample) => most(sample) > 0 && sample.items.length > 8).length).toBeGreaterThan(1)
    const unseen = decodes(5, 800).map((item, i) => ({ ...item, draft: i }))
    const ratio = stepUs(model, shapeOf(unseen, model)) / stepUs(cost, shapeOf(unseen, cost))
    expect(Math.abs(ratio - 1)).toBeLessThan(0.05)
  })

  test("a small context has room for speculation, and what is not drafted is not counted", async () => {
    const cost = { ...COST, pieces: [{ ...COST.pieces[0]!, specSteps: 1200 }] }
    const limits = { ...engine().limits, contextTokens: 160, maxSequences: 4, maxBatchTokens: 64 }
    const small = fakeEngine({ cost, limits, time: instantTime(), speculate: "lookup", acceptance: 1 })
    const { samples } = await profileEngine(small, { quick: true, maxDraft: 7 })
    for (const { items, us } of samples) expect(stepUs(cost, shapeOf(items, cost))).toBeCloseTo(us, -1)
  })

  test("predicts unseen batches of a noisy engine, and knows its noise", async () => {
    const { model, residuals } = await profileEngine(engine(COST, 0.1), { quick: false })
    for (const items of UNSEEN) {
      const ratio = stepUs(model, shapeOf(items, model)) / stepUs(COST, shapeOf(items, COST))
      expect(Math.abs(ratio - 1)).toBeLessThan(0.1)
    }
    expect(model.residualSigma).toBeGreaterThan(0.07)
    expect(model.residualSigma).toBeLessThan(0.13)
    expect(residuals.p5).toBeLessThan(0.9)
    expect(residuals.p95).toBeGreaterThan(1.1)
  })

  test("a few stalls of the machine do not bend it", async () => {
    const stalls = { slowdown: (batch: number) => (batch % 9 === 0 ? 5 : 1) }
    const { model } = await profileEngine(engine(COST, 0.03, 32, stalls), { quick: false })
    for (const items of UNSEEN) {
      const ratio = stepUs(model, shapeOf(items, model)) / stepUs(COST, shapeOf(items, COST))
      expect(Math.abs(ratio - 1)).toBeLessThan(0.1)
    }
  })

  test("never gives a negative coefficient, whatever the noise", async () => {
    for (const noise of [0.3, 0.8]) {
      const { model } = await profileEngine(engine(COST, noise), { quick: true })
      for (const value of Object.values(model.pieces[0]!)) expect(value).toBeGreaterThan(0)
    }
  })

  test.each([1, 2, 4])("works with %i sequences", async (maxSequences) => {
    const { mape } = await profileEngine(engine(COST, 0, maxSequences), { quick: true })
    expect(mape).toBeLessThan(0.05)
  })
})

test("requests of the measurement are gone afterwards", async () => {
  const measured = engine()
  await profileEngine(measured, { quick: true })
  const items = Array.from({ length: 32 }, (_, i) => {
    measured.open(i, new Int32Array(4).fill(7), GREEDY)
    return { id: i, position: 0, tokens: 4, sample: true, draft: 0 }
  })
  const all = { number: 1, items, evict: [], release: [], predictedUs: 0 }
  expect(await measured.execute(all)).toMatchObject({ ok: true })
})

test("a slow engine gets a smaller grid, and every grid fits the engine", () => {
  const { limits } = engine()
  const work = (perSec: number) =>
    gridFor(limits, perSec, true).points.reduce(
      (sum, { decodes: d, chunks }) => sum + d + chunks.reduce((a, b) => a + b, 0),
      0,
    )
  expect(work(100)).toBeLessThan(work(5000))
  for (const perSec of [1, 100, 1e6]) {
    for (const quick of [true, false]) {
      const { points, contexts } = gridFor(limits, perSec, quick)
      expect(contexts.at(-1)!).toBeLessThan(limits.contextTokens)
      for (const { decodes: d, chunks } of points) {
        expect(d + chunks.length).toBeLessThan(limits.maxSequences)
        expect(d + chunks.reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(limits.maxBatchTokens)
      }
    }
  }
})

describe("the cache", () => {
  let cacheDir: string
  beforeEach(async () => {
    cacheDir = await mkdtemp(join(tmpdir(), "slos-profile-"))
  })
  afterEach(() => rm(cacheDir, { recursive: true, force: true }))

  test("measures once per engine, threads and model", async () => {
    const options = { cacheDir, threads: 1, quick: true }
    const first = await loadOrProfile(engine(), options)
    const again = engine()
    expect(await loadOrProfile(again, options)).toEqual(first)
    // The check, no more.
    expect(again.steps).toBeLessThan(20)
    await loadOrProfile(again, { ...options, threads: 2 })
    expect(again.steps).toBeGreaterThan(50)
    await loadOrProfile(engine({ ...COST, pieces: [{ step: 1 }] }), options)
    expect(await readdir(join(cacheDir, "profiles"))).toHaveLength(3)
  })

  test("a thorough profile serves for a quick one, not the other way round", async () => {
    await loadOrProfile(engine(), { cacheDir, threads: 1, quick: true })
    const thorough = engine()
    await loadOrProfile(thorough, { cacheDir, threads: 1, quick: false })
    expect(thorough.steps).toBeGreaterThan(0)
    const quick = engine()
    expect((await loadOrProfile(quick, { cacheDir, threads: 1, quick: true })).quick).toBe(false)
    expect(quick.steps).toBeLessThan(20)
  })

  test("a file that is damaged is replaced", async () => {
    const options = { cacheDir, threads: 1, quick: true }
    await loadOrProfile(engine(), options)
    const path = profilePath(engine(), options)
    const whole = await readFile(path, "utf8")
    for (const text of [
      "",
      "{",
      whole.slice(0, 500),
      "{}",
      whole.replace('"pieces":[{', '"pieces":[{"step":-5},{'),
    ]) {
      await writeFile(path, text)
      const measured = engine()
      await loadOrProfile(measured, options)
      expect(measured.steps).toBeGreaterThan(50)
      expect(JSON.parse(await readFile(path, "utf8")).version).toBe(3)
    }
  })

  test("a folder that cannot be written is told, not fatal", async () => {
    const file = join(cacheDir, "file")
    await writeFile(file, "")
    const messages: string[] = []
    const onNote = (note: string) => messages.push(note)
    const profile = await loadOrProfile(engine(), { cacheDir: file, threads: 1, quick: true, onNote })
    expect(profile.r2).toBeGreaterThan(0.9)
    expect(messages.at(-1)).toMatch(/could not be cached/)
  })
})

test("the chart shows every kind of step, and the SVG is one document", async () => {
  const profile = await profileEngine(engine(COST, 0.1, 32, { speculate: "lookup" }), {
    quick: true,
    maxDraft: 7,
  })
  const text = describeProfile(profile)
  for (const mark of ["d", "p", "m", "s", "v"]) expect(text.split("measured")[1]).toContain(mark)
  expect(text).toMatch(/R² 0\.9/)
  const svg = profileSvg(profile)
  expect(svg.match(/<circle/g)).toHaveLength(profile.samples.length)
  expect(svg.trim()).toMatch(/^<svg.*<\/svg>$/s)
})
