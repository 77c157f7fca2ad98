/** Which profiles deserve trust, and which cached ones are used. */
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "../core/cost.ts"
import { type FakeOptions, fakeEngine } from "../engine/fake/engine.ts"
import type { Engine } from "../engine/port.ts"
import { Random } from "../random.ts"
import { checkProfile } from "./check.ts"
import {
  type CachedProfileOptions,
  loadOrProfile,
  type Profile,
  profileEngine,
  profilePath,
} from "./profile.ts"
import { COST, instantTime } from "./testing.ts"
import { faultsOf, summary, unsettledShare } from "./trust.ts"
import type { Waits } from "./waits.ts"

/** An engine whose steps are slowed down, and a probe that sees so much of it as `seen` says. */
function disturbed(slowdown: (step: number) => number, seen = 0) {
  let extraUs = 0
  let step = 0
  const limits = {
    ...{ kvTokens: 32 * 1024, blockTokens: 16, maxSequences: 32, maxBatchTokens: 512, contextTokens: 1024 },
    ...{ minChunkTokens: 16, unifiedKv: false },
  }
  // Named alike, so that profiles of one serve for the other.
  const options: FakeOptions = { cost: COST, limits, time: instantTime(), noise: 0.03, seed: 3 }
  let factor = 1
  const engine: Engine & { steps: number } = Object.assign(
    fakeEngine({ ...options, slowdown: () => factor }),
    {
      steps: 0,
    },
  )
  const execute = engine.execute.bind(engine)
  engine.execute = async (batch) => {
    factor = slowdown(step++)
    engine.steps++
    const output = await execute(batch)
    extraUs = seen * output.durationUs * (1 - 1 / factor)
    return output
  }
  const waits: Waits = { begin: () => ({ ownUs: (us) => us - extraUs }) }
  return { engine, waits }
}

/** A core is shared with two others: steps take twice as long on average, some three times, some as usual. */
const busy = (seed: number) => {
  const random = new Random("busy", seed)
  return () => 1 + 2 * random.uniform()
}
const quiet = () => 1

/** The largest error of predictions of batches that the grid does not contain, the same factor for all taken out. */
function distortion(model: CostModel): number {
  const one = { sample: true, draft: 0 }
  const batches = [
    [{ position: 700, tokens: 1, ...one }],
    [{ position: 0, tokens: 37, ...one }],
    [{ position: 100, tokens: 200, sample: false, draft: 0 }],
    Array.from({ length: 24 }, () => ({ position: 500, tokens: 1, ...one })),
    [
      { position: 0, tokens: 90, ...one },
      ...Array.from({ length: 8 }, () => ({ position: 300, tokens: 1, ...one })),
    ],
  ]
  const errors = batches.map((items) =>
    Math.log(stepUs(model, shapeOf(items, model)) / stepUs(COST, shapeOf(items, COST))),
  )
  return Math.exp(Math.max(...errors) - Math.min(...errors)) - 1
}

describe("on a busy machine", () => {
  test("what the threads waited is taken out: the profile is as on a quiet one, and says so", async () => {
    const { engine, waits } = disturbed(busy(1), 1)
    const profile = await profileEngine(engine, { quick: true, waits })
    expect(profile.faults).toEqual([])
    expect(distortion(profile.model)).toBeLessThan(0.1)
    const scale = stepUs(
      profile.model,
      shapeOf([{ position: 0, tokens: 64, sample: true, draft: 0 }], profile.model),
    )
    expect(
      scale / stepUs(COST, shapeOf([{ position: 0, tokens: 64, sample: true, draft: 0 }], COST)),
    ).toBeLessThan(1.1)
    expect(summary(profile)).toMatch(/other programs had the cores for [34]\d% of the time/)
  })

  test("where waits are not seen, bad moments are repeated: one step in four takes three times as long", async () => {
    const random = new Random("moments")
    const { engine } = disturbed(() => (random.uniform() < 0.25 ? 3 : 1))
    const profile = await profileEngine(engine, { quick: true })
    expect(profile.faults).toEqual([])
    expect(distortion(profile.model)).toBeLessThan(0.15)
    expect(summary(profile)).not.toContain("other programs")
  })

  test("a quiet machine's points are not repeated without need", async () => {
    const { engine } = disturbed(quiet)
    const { samples } = await profileEngine(engine, { quick: true })
    const repeats = [...Map.groupBy(samples, ({ point }) => point).values()].map(({ length }) => length)
    expect(Math.max(...repeats)).toBeLessThanOrEqual(4)
  })
})

describe("faults", () => {
  const good = { model: COST, r2: 0.98, mape: 0.06 }

  test("are a poor fit, and what no engine does", () => {
    expect(faultsOf(good)).toEqual([])
    expect(faultsOf({ ...good, r2: 0.9, mape: 0.15 })).toEqual([])
    expect(faultsOf({ ...good, r2: 0.89 })).toEqual(["R² is 0.89 (at least 0.9)"])
    expect(faultsOf({ ...good, mape: 0.27 })).toEqual(["the mean error is 27% (at most 15%)"])
    expect(faultsOf({ ...good, r2: Number.NaN, mape: Number.NaN })).toHaveLength(2)
    const nothing = { ...COST, pieces: [{ step: 1 }] }
    expect(faultsOf({ ...good, model: nothing })).toEqual(["a step of one token would take 1.0 µs"])
    const backwards = { ...COST, pieces: [{ step: 1000, tokens: -1 }] }
    expect(faultsOf({ ...good, model: backwards })).toEqual(["more tokens would take less time"])
  })

  test("repeats that disagree are counted, of batches that were repeated", () => {
    const sample = (point: string, us: number) => ({
      ...{ kind: "decode" as const, point, items: [], us, waitedUs: 0 },
    })
    const pairs = [105, 150, 105, 150, 105].flatMap((us, n) => [sample(`${n}`, 100), sample(`${n}`, us)])
    expect(unsettledShare([...pairs, sample("once", 7)])).toBeCloseTo(0.4)
    expect(unsettledShare([sample("once", 7)])).toBe(0)
  })
})

describe("the check of a cached profile", () => {
  test.each([1, 2, 4, 32])(
    "passes what fits, and leaves nothing behind (%i sequences)",
    async (maxSequences) => {
      const limits = {
        ...{ kvTokens: 1024 * maxSequences, blockTokens: 16, maxSequences, maxBatchTokens: maxSequences },
        ...{ contextTokens: 64, minChunkTokens: 1, unifiedKv: false },
      }
      const engine = fakeEngine({ cost: COST, limits, time: instantTime(), noise: 0.05 })
      for (let i = 0; i < 3; i++) {
        const { ratio, passed } = await checkProfile(engine, COST)
        expect(passed).toBe(true)
        expect(Math.abs(ratio - 1)).toBeLessThan(0.15)
      }
    },
  )

  test("fails where steps take far more, far less, or one kind of them does", async () => {
    const { engine } = disturbed(quiet)
    const times = (factor: number) => {
      const piece = Object.entries(COST.pieces[0]!).map(([feature, value]) => [feature, value * factor])
      return { ...COST, pieces: [Object.fromEntries(piece)] as CostModel["pieces"] }
    }
    for (const factor of [0.5, 0.6, 1.7, 10])
      expect((await checkProfile(engine, times(factor))).passed).toBe(false)
    for (const factor of [0.75, 1, 1.3]) expect((await checkProfile(engine, times(factor))).passed).toBe(true)
    const dearTokens = { ...COST, pieces: [{ ...COST.pieces[0]!, tokens: 4000 }] }
    expect((await checkProfile(engine, dearTokens)).passed).toBe(false)
  })

  test("takes out what the threads waited", async () => {
    const { engine, waits } = disturbed(() => 3, 1)
    expect((await checkProfile(engine, COST, waits)).passed).toBe(true)
    expect((await checkProfile(engine, COST)).passed).toBe(false)
  })
})

describe("the cache", () => {
  let options: CachedProfileOptions
  let notes: string[]
  beforeEach(async () => {
    const onNote = (note: string, level: string) => void notes.push(`${level}: ${note}`)
    options = { cacheDir: await mkdtemp(join(tmpdir(), "slos-trust-")), threads: 1, quick: true, onNote }
    notes = []
  })
  afterEach(() => rm(options.cacheDir, { recursive: true, force: true }))
  const stored = async (): Promise<Profile> =>
    JSON.parse(await readFile(profilePath(disturbed(quiet).engine, options), "utf8"))

  test("a good profile is checked and used, and both are said", async () => {
    const first = await loadOrProfile(disturbed(quiet).engine, options)
    expect(notes).toEqual([expect.stringMatching(/^info: R² 0\.9\d+, mean error \d% \(measured in \d+ s\)$/)])
    notes = []
    expect(await loadOrProfile(disturbed(quiet).engine, options)).toEqual(first)
    expect(notes).toEqual([expect.stringMatching(/checked: steps take (9\d|10\d)% of it/)])
  })

  test("a poor one is told loudly, kept for want of a better, and measured again at the next start", async () => {
    const wild = new Random("wild")
    const poor = await loadOrProfile(disturbed(() => Math.exp(1.2 * wild.normal())).engine, options)
    expect(poor.faults).not.toEqual([])
    expect(notes.at(-1)).toMatch(/^warning: this profile is poor: .*measured again at the next start/)
    expect((await stored()).faults).toEqual(poor.faults)
    notes = []
    const { engine } = disturbed(quiet)
    const good = await loadOrProfile(engine, options)
    expect(good.faults).toEqual([])
    expect(engine.steps).toBeGreaterThan(50)
    expect(notes[0]).toMatch(/^warning: the profile of .* is poor .*: measuring again/)
    expect((await stored()).faults).toEqual([])
  })

  test("of two poor ones the better is used", async () => {
    const { engine } = disturbed(quiet)
    await loadOrProfile(engine, options)
    // The fit of a profile is what its file says; here it says that it just fails.
    const nearly = { ...(await stored()), r2: 0.89, mape: 0.12 }
    await writeFile(profilePath(engine, options), JSON.stringify(nearly))
    const wild = new Random("wild")
    const used = await loadOrProfile(disturbed(() => Math.exp(1.2 * wild.normal())).engine, options)
    expect(used.r2).toBe(0.89)
    expect(notes.at(-1)).toContain("this profile is poor")
  })

  test("one that does not fit today is measured again; a poor one does not replace it", async () => {
    const first = await loadOrProfile(disturbed(quiet).engine, options)
    notes = []
    const wild = new Random("wild")
    const today = await loadOrProfile(disturbed(() => 6 * Math.exp(1.2 * wild.normal())).engine, options)
    expect(notes[0]).toMatch(/^warning: the profile of .* does not fit this machine now .*: measuring again/)
    expect(today.faults).not.toEqual([])
    expect(await stored()).toEqual(first)
    const slow = await loadOrProfile(disturbed(() => 6).engine, options)
    expect(slow.faults).toEqual([])
    expect(await stored()).toEqual(slow)
  })

  test("another machine's file under this name is not used", async () => {
    const { engine } = disturbed(quiet)
    await loadOrProfile(engine, { ...options, threads: 7 })
    await rename(profilePath(engine, { ...options, threads: 7 }), profilePath(engine, options))
    const again = disturbed(quiet)
    await loadOrProfile(again.engine, options)
    expect(again.engine.steps).toBeGreaterThan(50)
  })
})
