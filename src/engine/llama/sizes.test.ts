/** Sizes by default: what they are for known models and machines, and that they never take too much. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { chooseSizes, type SizesGround } from "./sizes.ts"

const GIB = 2 ** 30
/** SmolLM2-135M in f16: 30 layers, 3 KV heads of 64. */
const SMALL: SizesGround = {
  ...{ trainedTokens: 8192, weightBytes: 94 * 2 ** 20, kvBytesPerToken: 23_040 },
  ...{ memoryBytes: 32 * GIB, processes: 1, gpu: false },
}
/** Llama 3 8B in Q4. */
const LARGE = { ...SMALL, weightBytes: 4.9 * GIB, kvBytesPerToken: 131_072 }
const bytes = (
  { contextTokens, maxSequences }: { contextTokens: number; maxSequences: number },
  ground: SizesGround,
) => contextTokens * maxSequences * ground.kvBytesPerToken

describe("where the user says nothing", () => {
  test("a small model takes half of what it took, a large one as much as the machine bears", () => {
    const small = chooseSizes({}, SMALL)
    expect(small).toMatchObject({ contextTokens: 4096, maxSequences: 16 })
    expect(bytes(small, SMALL)).toBeLessThan(1.5 * GIB)
    expect(small.why).toBe("--context 4096; --max-sequences 16: enough for a model of this size")
    expect(chooseSizes({}, { ...LARGE, memoryBytes: 256 * GIB })).toMatchObject({ maxSequences: 19 })
    expect(chooseSizes({}, { ...LARGE, memoryBytes: 32 * GIB })).toMatchObject({
      maxSequences: 8,
      contextTokens: 4096,
    })
  })

  test("little memory means fewer requests, then shorter ones", () => {
    expect(chooseSizes({}, { ...SMALL, memoryBytes: 8 * GIB })).toMatchObject({
      maxSequences: 11,
      contextTokens: 4096,
    })
    const scarce = chooseSizes({}, { ...LARGE, memoryBytes: 6 * GIB })
    expect(scarce).toMatchObject({ maxSequences: 4, contextTokens: 2048 })
    expect(scarce.why).toBe(
      "--context 2048: longer ones take too much memory; --max-sequences 4: this machine has no more memory for it",
    )
  })

  test("a model that was trained on less has that", () => {
    const short = { ...SMALL, trainedTokens: 1024 }
    expect(chooseSizes({}, short)).toMatchObject({ contextTokens: 1024, maxSequences: 32 })
    expect(chooseSizes({}, short).why).toBe("--context 1024, as it was trained; --max-sequences 32")
  })

  test("processes that share a machine have a part each", () => {
    const two = { ...SMALL, processes: 2, memoryBytes: 16 * GIB }
    expect(chooseSizes({}, two)).toMatchObject({ maxSequences: 8, contextTokens: 4096 })
  })

  test("a GPU has its own memory", () => {
    expect(chooseSizes({}, { ...LARGE, gpu: true, memoryBytes: GIB })).toMatchObject({ maxSequences: 32 })
  })
})

test("what the user says is kept, and not explained", () => {
  expect(chooseSizes({ contextTokens: 8192, maxSequences: 64 }, SMALL)).toEqual({
    ...{ contextTokens: 8192, maxSequences: 64 },
    why: "",
  })
  expect(chooseSizes({ contextTokens: 512 }, SMALL)).toMatchObject({ contextTokens: 512, maxSequences: 32 })
  expect(chooseSizes({ maxSequences: 2 }, { ...LARGE, memoryBytes: GIB })).toMatchObject({ maxSequences: 2 })
})

test("never more than a quarter of the memory, unless even the least is more", () => {
  const ground = fc.record({
    trainedTokens: fc.integer({ min: 128, max: 1 << 20 }),
    weightBytes: fc.integer({ min: 1 << 20, max: 2 ** 38 }),
    kvBytesPerToken: fc.integer({ min: 256, max: 1 << 22 }),
    memoryBytes: fc.integer({ min: 2 ** 28, max: 2 ** 42 }),
    processes: fc.integer({ min: 1, max: 8 }),
    gpu: fc.constant(false),
  })
  fc.assert(
    fc.property(ground, (one) => {
      const sizes = chooseSizes({}, one)
      expect(sizes.contextTokens).toBeLessThanOrEqual(Math.min(4096, one.trainedTokens))
      expect(sizes.maxSequences).toBeGreaterThanOrEqual(1)
      expect(sizes.maxSequences).toBeLessThanOrEqual(32)
      const least = sizes.maxSequences <= 4 && sizes.contextTokens < 1024
      expect(least || bytes(sizes, one) <= one.memoryBytes / 4).toBe(true)
    }),
  )
})
