/** The speculation suite over the fake engine and over llama.cpp with each drafter. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { continuation } from "./drafter-lookup.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine.suite.ts"
import { fakeEngine } from "./fake.ts"
import { FAKE_END } from "./fake-tokenizer.ts"
import { type LlamaOptions, openLlama } from "./llama.ts"
import { speculationSuite } from "./speculation.suite.ts"

test("a lookup goes on after the longest, then latest, earlier run", () => {
  const cases: [number[], number, number[]][] = [
    [[1, 2, 3, 4, 1, 2], 2, [3, 4]],
    [[1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 1, [4]],
    [[5, 1, 2, 3, 9, 1, 2, 4, 5, 1, 2], 1, [3]],
    [[1, 2, 3], 4, []],
    [[7, 1, 7], 4, []],
    [[], 4, []],
    // A loop is followed beyond the end.
    [[1, 2, 1, 2], 5, [1, 2, 1, 2, 1]],
    [[8, 8, 8], 3, [8, 8, 8]],
  ]
  for (const [tokens, count, expected] of cases) expect(continuation(tokens, count)).toEqual(expected)
})

speculationSuite({
  name: "fake",
  open: async (sizes, speculates) =>
    fakeEngine({
      cost: { pieces: [{ step: 100 }], residualSigma: 0.1, fastPassTokens: 64, unifiedKv: sizes.unifiedKv },
      limits: {
        ...sizes,
        blockTokens: 16,
        maxBatchTokens: SUITE_BATCH_TOKENS,
        contextTokens: SUITE_CONTEXT_TOKENS,
        minChunkTokens: 64,
      },
      time: "real",
      speculate: speculates ? "lookup" : "off",
    }),
  endToken: FAKE_END,
  grammars: false,
})

describe("llama.cpp", () => {
  let folder: string
  let target: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-speculation-"))
    target = await tinyModel({ ...TINY_PRESETS["tiny-f32"], layers: 4, quietFrom: 1 }, folder, "target")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Exact equality needs full precision and one thread (DESIGN §9).
  const openExact = (options: Partial<LlamaOptions>) =>
    openLlama({
      modelPath: target,
      threads: 1,
      maxSequences: 4,
      contextTokens: SUITE_CONTEXT_TOKENS,
      maxBatchTokens: SUITE_BATCH_TOKENS,
      flashAttention: false,
      kvType: "f32",
      library: "cpu",
      ...options,
    })

  speculationSuite({
    name: "llama, lookup",
    open: ({ maxSequences, unifiedKv, kvTokens }, speculates) =>
      openExact({ maxSequences, kvUnified: unifiedKv, kvTokens, speculate: speculates ? "lookup" : "off" }),
    endToken: 2,
    grammars: true,
  })
})
