/** What is believed of engines of others at their start, and kept for the next one. */
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { CPU_GUESS, GPU_GUESS, guessedModel } from "../fit/guess.ts"
import {
  type EngineIdentity,
  forget,
  graphsOf,
  remember,
  rememberProfiled,
  startingCost,
  startOf,
} from "./engine-cost.ts"

const ENGINE: EngineIdentity = {
  ...{ model: "org/model-8b", device: "NVIDIA H100 80GB HBM3", tensorParallel: 2, pipelineParallel: 1 },
  ...{ vllmVersion: "0.32.0", captureSizes: [8, 1, 2, 4], eager: false, graphMode: "FULL_AND_PIECEWISE" },
  ...{ dtype: "bfloat16", maxDrafts: 0 },
}
const LEARNT = {
  ...{ pieces: [{ step: 9000, tokens: 40 }], residualSigma: 0.04, fastPassTokens: 16, unifiedKv: true },
  graphs: { ...graphsOf(ENGINE)!, piecewiseUs: 1500, eagerUs: 5000 },
}

let cacheDir: string
beforeEach(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "slos-engine-cost-"))
})
afterEach(() => rm(cacheDir, { recursive: true }))

describe("an engine that connects", () => {
  test("is guessed at by its device where nothing is known of it", () => {
    expect(startingCost(ENGINE, cacheDir)).toEqual(guessedModel(GPU_GUESS, graphsOf(ENGINE)))
    const processor = { ...ENGINE, device: "cpu", captureSizes: [] }
    expect(startingCost(processor, cacheDir)).toEqual(guessedModel(CPU_GUESS))
    expect(startOf(processor, cacheDir)).toEqual({ guess: CPU_GUESS })
  })

  test("is known again by all that its step times depend on", async () => {
    await remember(ENGINE, LEARNT, cacheDir)
    expect(startingCost(ENGINE, cacheDir)).toEqual(LEARNT)
    expect(startOf(ENGINE, cacheDir).known).toEqual(LEARNT)
    expect(startingCost({ ...ENGINE, captureSizes: [1, 2, 4, 8] }, cacheDir)).toEqual(LEARNT)
    const others: Partial<EngineIdentity>[] = [
      ...[
        { model: "org/model-9b" },
        { device: "NVIDIA A100" },
        { tensorParallel: 4 },
        { pipelineParallel: 2 },
      ],
      ...[{ vllmVersion: "0.33.0" }, { captureSizes: [1, 2, 4, 8, 16] }, { eager: true }, { maxDrafts: 3 }],
      ...[{ graphMode: "PIECEWISE" }, { dtype: "float32" }],
    ]
    for (const other of others)
      expect(startOf({ ...ENGINE, ...other }, cacheDir).known, JSON.stringify(other)).toBeUndefined()
  })

  test("is forgotten when asked to", async () => {
    await remember(ENGINE, LEARNT, cacheDir)
    await forget(ENGINE, cacheDir)
    expect(startOf(ENGINE, cacheDir).known).toBeUndefined()
    await forget(ENGINE, cacheDir)
  })

  test("begins with what was profiled from outside, with graphs of its own, until it has taught more", async () => {
    const { graphs: _, ...profiled } = { ...LEARNT, pieces: [{ step: 8000, tokens: 45 }] }
    await rememberProfiled(ENGINE, profiled, cacheDir)
    const expected = { ...profiled, graphs: { ...graphsOf(ENGINE)!, piecewiseUs: 2000, eagerUs: 5000 } }
    expect(startingCost(ENGINE, cacheDir)).toEqual(expected)
    expect(startingCost({ ...ENGINE, eager: true }, cacheDir)).toEqual(profiled)
    await remember(ENGINE, LEARNT, cacheDir)
    expect(startingCost(ENGINE, cacheDir)).toEqual(LEARNT)
    expect(startOf({ ...ENGINE, model: "other" }, cacheDir).known).toBeUndefined()
  })

  test("is learnt anew where the file is spoilt, another's, or says what no engine does", async () => {
    await remember(ENGINE, LEARNT, cacheDir)
    const folder = join(cacheDir, "step-times")
    const [name] = (await readdir(folder)) as [string]
    const key = name.replace(".json", "")
    const broken = [
      ...["", "{}", "null", JSON.stringify({ version: 1, key: "other", model: LEARNT })],
      JSON.stringify({ version: 2, key, model: LEARNT }),
      JSON.stringify({ version: 1, key, model: { ...LEARNT, pieces: [{ step: 0 }] } }),
      JSON.stringify({ version: 1, key, model: { ...LEARNT, pieces: [{ step: -1 }] } }),
      JSON.stringify({ version: 1, key, model: { ...LEARNT, graphs: { sizes: [] } } }),
    ]
    for (const text of broken) {
      await writeFile(join(folder, name), text)
      expect(startOf(ENGINE, cacheDir).known, text).toBeUndefined()
    }
    await writeFile(join(folder, name), JSON.stringify({ version: 1, key, model: LEARNT }))
    expect(startOf(ENGINE, cacheDir).known).toEqual(LEARNT)
  })
})

test("vLLM's modes say how batches run", () => {
  const of = (graphMode: string) => graphsOf({ ...ENGINE, graphMode })
  expect(graphsOf(ENGINE)).toEqual({
    sizes: [1, 2, 4, 8],
    decodes: "full",
    mixed: "piecewise",
    decodeTokens: 1,
  })
  expect(of("FULL_DECODE_ONLY")).toMatchObject({ decodes: "full", mixed: "eager" })
  expect(of("FULL")).toMatchObject({ decodes: "full", mixed: "full" })
  expect(of("PIECEWISE")).toMatchObject({ decodes: "piecewise", mixed: "piecewise" })
  expect(of("NONE")).toBeUndefined()
  expect(graphsOf({ ...ENGINE, eager: true })).toBeUndefined()
  expect(graphsOf({ ...ENGINE, captureSizes: [] })).toBeUndefined()
  expect(graphsOf({ ...ENGINE, maxDrafts: 4 })!.decodeTokens).toBe(5)
})
