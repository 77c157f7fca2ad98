/** Engines that hang, break and come back: the suite over the fake engine and over llama.cpp with a generated model. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe } from "vitest"
import { fakeEngine } from "../engine/fake/engine.ts"
import { openLlama } from "../engine/llama/engine.ts"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { engineDownSuite } from "./engine-down.suite.ts"

const sizes = { maxSequences: 4, contextTokens: 256, maxBatchTokens: 128 }

engineDownSuite({
  name: "fake",
  open: async () =>
    fakeEngine({
      cost: { pieces: [{ step: 1000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true },
      limits: { ...sizes, kvTokens: 1024, blockTokens: 16, minChunkTokens: 1, unifiedKv: true },
      time: "real",
    }),
})

describe("llama.cpp", () => {
  let folder: string
  let modelPath: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-down-"))
    modelPath = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny-f32")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  engineDownSuite({
    name: "llama",
    // One thread and full precision: the same prompt gives the same tokens.
    open: () =>
      openLlama({
        ...{ ...sizes, modelPath, threads: 1, library: "cpu", kvType: "f32", flashAttention: false },
        ...{ kvUnified: true, kvTokens: 1024 },
      }),
  })
})
