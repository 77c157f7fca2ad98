/** Generated models: the same spec gives the same bytes, of the size that the format says. */
import { createHash } from "node:crypto"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { bpeVocab, SMALLEST_VOCAB } from "./bpe-vocab.ts"
import { patternWeights, toF16 } from "./random-weights.ts"
import { TINY_PRESETS, tinyModel } from "./tiny.ts"

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "slos-tiny-"))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const small = { ...TINY_PRESETS["tiny-f32"], layers: 1, width: 64, vocab: 300 }

test("the same spec gives the same file, another seed another", async () => {
  const sums = new Set<string>()
  for (const [name, seed] of [
    ["a", 7],
    ["b", 7],
    ["c", 8],
  ] as const) {
    const path = await tinyModel({ ...small, seed }, folder, name)
    // The name is part of the metadata: compare the weights behind it.
    sums.add(
      createHash("sha256")
        .update((await readFile(path)).subarray(-100_000))
        .digest("hex"),
    )
  }
  expect(sums.size).toBe(2)
})

test("a file is written once", async () => {
  const path = await tinyModel(small, folder, "once")
  const first = await readFile(path)
  expect(await tinyModel(small, folder, "once")).toBe(path)
  expect(first.toString("latin1", 0, 4)).toBe("GGUF")
})

test("a damaged file is written again", async () => {
  const path = await tinyModel(small, folder, "damaged")
  const whole = await readFile(path)
  const flipped = Buffer.from(whole)
  flipped[whole.length - 5] = flipped[whole.length - 5]! ^ 1
  for (const damaged of [whole.subarray(0, 1000), flipped, Buffer.alloc(0)]) {
    await writeFile(path, damaged)
    expect(await tinyModel(small, folder, "damaged")).toBe(path)
    expect((await readFile(path)).equals(whole)).toBe(true)
  }
  await rm(`${path}.sha256`)
  await writeFile(path, flipped)
  await tinyModel(small, folder, "damaged")
  expect((await readFile(path)).equals(whole)).toBe(true)
})

test("vocabularies have the size asked for, without doubles, every merge of known tokens", () => {
  for (const size of [SMALLEST_VOCAB, 300, 2048, 20_000]) {
    const { tokens, types, merges } = bpeVocab(size)
    expect(tokens).toHaveLength(size)
    expect(types).toHaveLength(size)
    const known = new Set(tokens)
    expect(known.size).toBe(size)
    for (const merge of merges) {
      const [left, right] = merge.split(" ") as [string, string]
      expect(known.has(left) && known.has(right) && known.has(left + right)).toBe(true)
    }
  }
  expect(() => bpeVocab(100)).toThrow(/at least/)
})

test("half precision rounds as IEEE does", () => {
  const cases = [
    [0, 0],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [1e6, 0x7c00],
    [0.1, 0x2e66],
    [6.1e-5, 0x03ff],
    [5.96e-8, 1],
    [1e-9, 0],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
  ] as const
  for (const [value, bits] of cases) expect(toF16(value).toString(16)).toBe(bits.toString(16))
})

test("a pattern fills a matrix of any size, and no two rows are the same", () => {
  for (const type of ["f16", "q8_0", "q4_0"] as const) {
    const rowBytes = { f16: 512, q8_0: 272, q4_0: 144 }[type]
    const bytes = Buffer.concat([...patternWeights([256, 4096], type, 0.1, 5)])
    expect(bytes.length).toBe(4096 * rowBytes)
    const rows = Array.from({ length: 4096 }, (_, i) =>
      bytes.toString("latin1", i * rowBytes, (i + 1) * rowBytes),
    )
    expect(new Set(rows).size).toBe(4096)
    expect(Buffer.concat([...patternWeights([256, 4096], type, 0.1, 5)]).equals(bytes)).toBe(true)
    expect(Buffer.concat([...patternWeights([256, 4096], type, 0.1, 6)]).equals(bytes)).toBe(false)
  }
})
