/** The engine suite over the fake engine and over llama.cpp with a generated model. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { engineSuite } from "./engine.suite.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { FAKE_END } from "./fake/tokenizer.ts"
import { openLlama } from "./llama/engine.ts"
import { suiteFake } from "./testing.ts"

engineSuite({
  name: "fake",
  open: async (sizes) => suiteFake(sizes, { onKvFull: "fail" }),
  endToken: FAKE_END,
})

describe("llama.cpp", () => {
  let folder: string
  let modelPath: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-engine-"))
    modelPath = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny-f32")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Exact equality needs full precision and one thread (docs/design.md, Engine).
  engineSuite({
    name: "llama",
    open: ({ maxSequences, unifiedKv, kvTokens }) =>
      openLlama({
        modelPath,
        threads: 1,
        maxSequences,
        contextTokens: SUITE_CONTEXT_TOKENS,
        maxBatchTokens: SUITE_BATCH_TOKENS,
        kvUnified: unifiedKv,
        kvTokens,
        flashAttention: false,
        kvType: "f32",
        library: "cpu",
      }),
    endToken: 2,
  })
})
