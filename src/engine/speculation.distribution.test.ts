/** Statistics of sampled speculation: tokens after accepted and refused drafts follow the target's distribution. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import type { Speculation } from "./drafter.ts"
import { promptOf, Script } from "./engine.script.ts"
import { openLlama } from "./llama/engine.ts"

const DRAWS = 1600
const SEQUENCES = 16
/** A handful of words, so that every one is seen often. */
const WORDS = [20, 21, 22, 23]
const FAVOUR = 12
/** χ² with 4 degrees of freedom exceeds this with probability 0.001. */
const CHI_SQUARE_4 = 18.47

let folder: string
let target: string
let draftModel: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "slos-distribution-"))
  const spec = { ...TINY_PRESETS["tiny-f32"], vocab: 300, quietFrom: 1 }
  target = await tinyModel({ ...spec, layers: 3 }, folder, "target")
  draftModel = await tinyModel({ ...spec, layers: 1 }, folder, "draft")
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const sampling = {
  ignoreEos: true,
  temperature: 1,
  logitBias: WORDS.map((token) => [token, FAVOUR] as const),
}

test.each(["lookup", "draft model"])("tokens of one step follow the target: %s", async (drafter) => {
  const speculate: Speculation = drafter === "lookup" ? "lookup" : { draftModel }
  const engine = await openLlama({
    modelPath: target,
    threads: 1,
    maxSequences: SEQUENCES,
    contextTokens: 64,
    maxBatchTokens: 512,
    kvType: "f32",
    kvUnified: true,
    flashAttention: false,
    library: "cpu",
    speculate,
  })
  const run = new Script(engine)
  // Ends as it went on before: the lookup drafts the first word, then the second.
  const prompt = Int32Array.from([...promptOf(1, 6), 20, 21, ...promptOf(1, 6)])
  const first = new Map<number, number>()
  const second = new Map<number, Map<number, number>>()
  let [drafted, accepted] = [0, 0]
  for (let seed = 0; seed < DRAWS; seed += SEQUENCES) {
    const ids = Array.from({ length: SEQUENCES }, (_, i) => run.open(prompt, { ...sampling, seed: seed + i }))
    for (const row of await run.step(ids.map((id) => run.speculating(id, 64, 2)))) {
      const [a, b] = row.tokens
      drafted += row.drafted
      accepted += row.tokens.length - 1
      first.set(a!, (first.get(a!) ?? 0) + 1)
      if (b === undefined) continue
      const after = second.get(a!) ?? new Map<number, number>()
      second.set(a!, after.set(b, (after.get(b) ?? 0) + 1))
    }
    await run.drop(...ids)
  }
  expect(drafted).toBe(2 * DRAWS)
  expect(accepted).toBeGreaterThan(DRAWS / 20)
  expect(accepted).toBeLessThan(drafted - DRAWS / 20)
  expect(chiSquare(first, await exact(run, prompt))).toBeLessThan(CHI_SQUARE_4)
  // Behind an accepted draft the next draft was accepted, refused, or never made: all of them together.
  for (const [token, counts] of second) {
    const distribution = await exact(run, Int32Array.from([...prompt, token]))
    expect(chiSquare(counts, distribution)).toBeLessThan(CHI_SQUARE_4)
  }
  await engine.close()
})

test("the test can fail: another temperature is told apart", async () => {
  const engine = await openLlama({
    modelPath: target,
    threads: 1,
    maxSequences: SEQUENCES,
    contextTokens: 64,
    maxBatchTokens: 512,
    library: "cpu",
  })
  const run = new Script(engine)
  const prompt = promptOf(1, 6)
  const counts = new Map<number, number>()
  for (let seed = 0; seed < DRAWS; seed += SEQUENCES) {
    const ids = Array.from({ length: SEQUENCES }, (_, i) =>
      run.open(prompt, { ...sampling, temperature: 1.4, seed: seed + i }),
    )
    for (const row of await run.step(ids.map((id) => run.all(id))))
      counts.set(row.tokens[0]!, (counts.get(row.tokens[0]!) ?? 0) + 1)
    await run.drop(...ids)
  }
  expect(chiSquare(counts, await exact(run, prompt))).toBeGreaterThan(CHI_SQUARE_4)
  await engine.close()
})

/** The target's probabilities of the words after a prompt. */
async function exact(run: Script, prompt: Int32Array): Promise<Map<number, number>> {
  const id = run.open(prompt, { ...sampling, temperature: 0, logprobs: 20 })
  const [row] = await run.step([run.all(id)])
  await run.drop(id)
  const top = new Map(row!.logprobs![0]!.top.map(({ token, logprob }) => [token, Math.exp(logprob)]))
  return new Map(WORDS.map((token) => [token, top.get(token) ?? 0]))
}

/** Over the words and the rest; classes too rare to judge join the rest. */
function chiSquare(counts: ReadonlyMap<number, number>, probabilities: ReadonlyMap<number, number>): number {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0)
  let [restCount, restExpected, sum] = [total, total, 0]
  for (const [token, probability] of probabilities) {
    const expected = probability * total
    if (expected < 5) continue
    const count = counts.get(token) ?? 0
    sum += (count - expected) ** 2 / expected
    restCount -= count
    restExpected -= expected
  }
  return restExpected < 1 ? sum : sum + (restCount - restExpected) ** 2 / restExpected
}
