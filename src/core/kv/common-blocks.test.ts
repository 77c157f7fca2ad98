/** What several sequences have in common, as an engine that owns its KV may count it. */
import { describe, expect, test } from "vitest"
import { doubtfulBlocks, inheritedBlocks } from "./common-blocks.ts"

describe("of a sequence that goes", () => {
  const own = { blocks: [1, 2, 3, 4], prefix: [10, 11, 12, 13, 14] }
  const doubtful = (others: { blocks: number[]; prefix: number[] }[], isOwn = (_: number) => true) =>
    doubtfulBlocks(own, [own, ...others], isOwn)

  test("copies of what others have from the beginning on may not be free", () => {
    expect(doubtful([])).toBe(0)
    expect(doubtful([{ blocks: [7, 8], prefix: [10, 11] }])).toBe(2)
    expect(doubtful([{ blocks: [7, 8, 9], prefix: [10, 99, 12] }])).toBe(1)
    expect(doubtful([{ blocks: [7], prefix: [99] }])).toBe(0)
  })

  test("as many as the one has that is most alike, and holds them", () => {
    const one = { blocks: [7, 8], prefix: [10, 11, 12, 13] }
    const other = { blocks: [5, 6, 9], prefix: [10, 11, 12] }
    expect(doubtful([one])).toBe(2)
    expect([doubtful([one, other]), doubtful([other, one])]).toEqual([3, 3])
    expect(doubtful([{ blocks: [5, 6, 7, 8, 9], prefix: [10, 11, 12, 13, 14, 15] }])).toBe(4)
  })

  test("those that are shared stay anyway", () => {
    expect(doubtful([{ blocks: [1, 8, 9], prefix: [10, 11, 12] }], (block) => block !== 1)).toBe(2)
  })
})

describe("of blocks that were left", () => {
  const left = [1, 2, 3, 4]
  const live =
    (...counts: number[]) =>
    (block: number) =>
      counts[block - 1]!

  test("each is inherited by the first that holds it, where no other request does", () => {
    expect(inheritedBlocks(left, [{ blocks: [1, 2] }], live(1, 1, 0, 0))).toEqual([2])
    expect(inheritedBlocks(left, [{ blocks: [1] }, { blocks: [1, 2, 3] }], live(2, 1, 1, 0))).toEqual([1, 2])
  })

  test("none that a request holds which began before", () => {
    expect(inheritedBlocks(left, [{ blocks: [1, 2, 3] }], live(2, 2, 1, 0))).toEqual([1])
  })

  test("none by what has blocks of its own in their places", () => {
    expect(inheritedBlocks(left, [{ blocks: [7, 8] }, { blocks: [] }], live(0, 0, 0, 0))).toEqual([0, 0])
    expect(inheritedBlocks([], [{ blocks: [1] }], live(1))).toEqual([0])
  })
})
