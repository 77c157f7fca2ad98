/** Answers that go on on another engine, over the fake engine and over llama.cpp with each drafter. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { FAKE_END } from "./fake/tokenizer.ts"
import { type GoingOnSubject, goingOnSuite } from "./going-on.suite.ts"
import { openLlama } from "./llama/engine.ts"
import { suiteFake } from "./testing.ts"

goingOnSuite({
  name: "fake",
  unifiedKv: true,
  open: async (sizes, speculates) => suiteFake(sizes, { speculate: speculates ? "lookup" : "off" }),
  endToken: FAKE_END,
})

describe("llama.cpp", () => {
  let folder: string
  let target: string
  let draftModel: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-going-on-"))
    const spec = { ...TINY_PRESETS["tiny-f32"], quietFrom: 1 }
    target = await tinyModel({ ...spec, layers: 4 }, folder, "target")
    draftModel = await tinyModel({ ...spec, layers: 1 }, folder, "draft")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Exact equality needs full precision and one thread (docs/design.md, Engine).
  const opened =
    (speculate: () => "lookup" | { draftModel: string }): GoingOnSubject["open"] =>
    ({ maxSequences, unifiedKv, kvTokens }, speculates) =>
      openLlama({
        modelPath: target,
        threads: 1,
        maxSequences,
        contextTokens: SUITE_CONTEXT_TOKENS,
        maxBatchTokens: SUITE_BATCH_TOKENS,
        kvUnified: unifiedKv,
        kvTokens,
        flashAttention: false,
        kvType: "f32",
        library: "cpu",
        speculate: speculates ? speculate() : "off",
      })

  const endToken = 2
  goingOnSuite({ name: "llama, lookup", unifiedKv: false, open: opened(() => "lookup"), endToken })
  const drafting = opened(() => ({ draftModel }))
  goingOnSuite({ name: "llama, draft model", unifiedKv: true, open: drafting, endToken })
})
