/** Words that answers shall not have, over the fake engine and over llama.cpp with each drafter. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { type BadWordsSubject, badWordsSuite } from "./bad-words.suite.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { openLlama } from "./llama/engine.ts"
import { suiteFake } from "./testing.ts"

badWordsSuite({
  name: "fake",
  open: async (sizes, speculates) => suiteFake(sizes, { speculate: speculates ? "lookup" : "off" }),
})

describe("llama.cpp", () => {
  let folder: string
  let modelPath: string
  let draftModel: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-bad-words-"))
    const spec = { ...TINY_PRESETS["tiny-f32"], quietFrom: 1 }
    modelPath = await tinyModel({ ...spec, layers: 4 }, folder, "target")
    draftModel = await tinyModel({ ...spec, layers: 1 }, folder, "draft")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Exact equality needs full precision and one thread (docs/design.md, Engine).
  const opened =
    (speculate: () => "lookup" | { draftModel: string }): BadWordsSubject["open"] =>
    ({ maxSequences, unifiedKv, kvTokens }, speculates) =>
      openLlama({
        ...{ modelPath, threads: 1, maxSequences, kvUnified: unifiedKv, kvTokens },
        ...{ contextTokens: SUITE_CONTEXT_TOKENS, maxBatchTokens: SUITE_BATCH_TOKENS },
        ...{ flashAttention: false, kvType: "f32", library: "cpu" },
        speculate: speculates ? speculate() : "off",
      })

  badWordsSuite({ name: "lookup", open: opened(() => "lookup") })
  badWordsSuite({ name: "draft model", open: opened(() => ({ draftModel })) })
})
