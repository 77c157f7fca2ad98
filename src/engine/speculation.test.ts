/** The speculation suite over the fake engine and over llama.cpp with each drafter. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { Random } from "../random.ts"
import { continuation } from "./drafter-lookup.ts"
import { join as joined, promptOf, Script } from "./engine.script.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { FAKE_END } from "./fake/tokenizer.ts"
import { openLlama } from "./llama/engine.ts"
import type { LlamaOptions } from "./llama/options.ts"
import { speculationSuite } from "./speculation.suite.ts"
import { suiteFake } from "./testing.ts"

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
  open: async (sizes, speculates) => suiteFake(sizes, { speculate: speculates ? "lookup" : "off" }),
  endToken: FAKE_END,
})

describe("llama.cpp", () => {
  let folder: string
  let target: string
  let draftModel: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-speculation-"))
    const spec = { ...TINY_PRESETS["tiny-f32"], quietFrom: 1 }
    target = await tinyModel({ ...spec, layers: 4 }, folder, "target")
    draftModel = await tinyModel({ ...spec, layers: 1 }, folder, "draft")
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Exact equality needs full precision and one thread (docs/design.md, Engine).
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
  })

  speculationSuite({
    name: "llama, draft model",
    open: ({ maxSequences, unifiedKv, kvTokens }, speculates) =>
      openExact({
        maxSequences,
        kvUnified: unifiedKv,
        kvTokens,
        speculate: speculates ? { draftModel } : "off",
      }),
    endToken: 2,
  })

  test("a draft model's KV follows copies, evictions and refused drafts", async () => {
    // The target drafts for itself, but does not see the grammar: a draft is refused only where that refuses.
    const engine = await openExact({ kvUnified: true, speculate: { draftModel: target } })
    const run = new Script(engine)
    const random = new Random(8)
    const shared = promptOf(1, 48)
    const sampling = { grammar: "root ::= [ a-z] root", logprobs: 1 }
    await engine.constraints.hold(sampling.grammar)
    const open = (i: number) => run.open(joined(shared, promptOf(i, 20)), { ...sampling, seed: i })
    const ids = [2, 3, 4, 5].map(open)
    const [first, ...others] = ids as [number, number, number, number]
    await run.step([run.all(first)])
    await run.step([run.all(first), ...others.map((id) => run.copied(id, first, 48))])
    let [accepted, refused] = [0, 0]
    for (let step = 0; step < 40; step++) {
      const evict = step % 10 === 9 ? [ids[random.below(4)]!] : []
      const going = ids.filter((id) => !evict.includes(id) && run.held(id) < 220 && random.uniform() < 0.8)
      const items = going.map((id) => run.speculating(id, 24, random.below(5)))
      for (const row of await run.step(items, { evict })) {
        accepted += row.tokens.length - 1
        for (const [i, { token, top }] of row.logprobs!.entries()) {
          const drafted = i < row.drafted
          if (drafted && i < row.tokens.length - 1) expect(token).toBe(top[0]!.token)
          else if (drafted) {
            expect(token).not.toBe(top[0]!.token)
            refused++
          }
        }
      }
    }
    expect(accepted).toBeGreaterThan(20)
    expect(refused).toBeGreaterThan(20)
    await engine.close()
  })

  test.each([{ temperature: 1 }, { temperature: 0.8, topP: 0.9 }, { repeatPenalty: 1.3 }])(
    "a draft model has the sampler and the luck of its target: %o",
    async (kind) => {
      const engine = await openExact({ speculate: { draftModel: target } })
      const run = new Script(engine)
      const ids = [1, 2, 3].map((seed) => run.open(promptOf(seed, 20), { ...kind, seed, ignoreEos: true }))
      for (let step = 0; step < 12; step++) {
        const rows = await run.step(ids.map((id) => run.speculating(id, 64, 4)))
        for (const row of rows) expect(row.tokens).toHaveLength(1 + row.drafted)
        for (const row of rows) expect(row.drafted).toBe(4)
      }
      await engine.close()
    },
  )

  test("no more is drafted than the engine was opened for", async () => {
    const engine = await openExact({ speculate: { draftModel: target }, maxSpeculation: 3 })
    const run = new Script(engine)
    const id = run.open(promptOf(1, 20))
    for (let step = 0; step < 5; step++) {
      const [row] = await run.step([run.speculating(id, 64, 7)])
      expect(row).toMatchObject({ drafted: 2 })
      expect(row!.tokens).toHaveLength(3)
    }
    await engine.close()
    await expect(openExact({ speculate: "lookup", maxSpeculation: 0 })).rejects.toThrow(
      /whole number above 0/,
    )
  })

  test("a draft model that is not asked reads nothing, and later reads a prompt piece by piece", async () => {
    const engine = await openExact({ contextTokens: 512, speculate: { draftModel: target } })
    const run = new Script(engine)
    const idle = run.open(promptOf(1, 8))
    for (let step = 0; step < 80; step++) await run.step([run.next(idle, 64)])
    const id = run.open(promptOf(2, 300))
    while (run.held(id) < 300) await run.step([run.next(id, 100)])
    // 256 tokens of the prompt, of which it has read none, then the rest; the target would draft for itself without a mistake.
    const rows = []
    for (let step = 0; step < 3; step++) rows.push(...(await run.step([run.speculating(id, 64, 4)])))
    expect(rows[0]).toMatchObject({ drafted: 0, behind: true })
    for (const row of rows.slice(1)) expect(row).toMatchObject({ drafted: 4 })
    for (const row of rows.slice(1)) expect(row.tokens).toHaveLength(5)
    expect(rows[1]).not.toHaveProperty("behind")
    await engine.close()
  })

  describe("one line and a remedy for a draft model", () => {
    const mismatch = (path: string) => openExact({ speculate: { draftModel: path } }).catch((error) => error)

    test("of another vocabulary size", async () => {
      const path = await tinyModel({ ...TINY_PRESETS["tiny-f32"], layers: 1, vocab: 700 }, folder, "large")
      const error = await mismatch(path)
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toMatch(/vocabulary has 700 tokens, not 512; choose/)
    })

    test("of other tokens", async () => {
      const bytes = await readFile(draftModel)
      bytes.write("<thinx>", bytes.indexOf("<think>"))
      const path = join(folder, "other.gguf")
      await writeFile(path, bytes)
      const error = await mismatch(path)
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toMatch(/token 3 is "<thinx>" there and "<think>" here; choose/)
    })

    test("that is not there", async () => {
      const error = await mismatch(join(folder, "none.gguf"))
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toMatch(/none\.gguf/)
    })
  })
})
