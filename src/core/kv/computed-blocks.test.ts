/** Which sequences have computed which blocks, against a plain list of them. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../testing.ts"
import { ComputedBlocks, type ComputedSequence } from "./computed-blocks.ts"

const sequence = (blocks: number[], prefix = blocks.map((block) => 100 + block)): ComputedSequence => ({
  blocks,
  prefix,
  indexed: 0,
})
const none = () => expect.unreachable("looked for a sequence though one is known")

describe("a block", () => {
  test("is found once a sequence has computed it, and until the last that has gives it up", () => {
    const computed = new ComputedBlocks(8)
    const [first, second] = [sequence([0, 1, 2]), sequence([0, 1, 3])]
    computed.grow(first, 2)
    expect(computed.longest([100, 101, 102], 3)).toBe(2)
    computed.grow(first, 3)
    computed.grow(second, 3)
    expect([first.indexed, second.indexed]).toEqual([3, 3])
    expect([100, 101, 102, 103].map((hash) => computed.count(hash))).toEqual([2, 2, 1, 1])
    computed.shrink(first, 0)
    expect(computed.longest([100, 101, 102], 3)).toBe(2)
    expect(computed.longest([100, 101, 103], 3)).toBe(3)
    computed.shrink(second, 1)
    expect(computed.longest([100, 101, 103], 3)).toBe(1)
    computed.shrink(second, 0)
    expect(computed.longest([100], 1)).toBe(0)
    computed.check([first, second])
  })

  test("that was computed twice has two copies, the first one first, and as many sequences as both", () => {
    const computed = new ComputedBlocks(8)
    const [first, again, sharer] = [sequence([0], [7]), sequence([1], [7]), sequence([1], [7])]
    for (const one of [first, again, sharer]) computed.grow(one, 1)
    expect([...computed.copies(7)]).toEqual([0, 1])
    expect(computed.count(7)).toBe(3)
    computed.shrink(first, 0)
    expect([...computed.copies(7)]).toEqual([1])
    expect(computed.count(7)).toBe(2)
  })

  test("leads to the sequence that computed it first; to another that has, too, when that one has left", () => {
    const computed = new ComputedBlocks(8)
    const [first, behind, second] = [sequence([4, 5]), sequence([4, 5]), sequence([4, 5])]
    computed.grow(first, 2)
    computed.grow(second, 2)
    // It holds both blocks, but what it begins with is all that it can give yet.
    computed.grow(behind, 1)
    expect(computed.sequenceWith(5, 1, none)).toBe(first)
    computed.shrink(first, 1)
    expect(computed.sequenceWith(5, 1, () => [first, behind, second])).toBe(second)
    expect(computed.sequenceWith(5, 1, none)).toBe(second)
    expect(computed.sequenceWith(4, 0, none)).toBe(first)
    computed.shrink(second, 0)
    expect(() => computed.sequenceWith(5, 1, () => [first, behind, second])).toThrow(
      "no sequence has block 5",
    )
  })
})

test("whatever sequences compute and give up, a prefix is found exactly where one of them has it", () => {
  const step = fc.record({ one: fc.nat(4), blocks: fc.nat(6) })
  fc.assert(
    fc.property(fc.array(fc.nat(2), { minLength: 5, maxLength: 5 }), fc.array(step), (branches, steps) => {
      const computed = new ComputedBlocks(64)
      // All begin alike and go three ways. Every second one shares its blocks with those that go its way; the others
      // computed copies of their own.
      const all = branches.map((branch, i) => {
        const hash = (at: number) => (at < 3 ? at : 10 * (branch + 1) + at)
        const copy = (at: number) => 32 + 6 * i + at
        const at = [0, 1, 2, 3, 4, 5]
        const blocks = at.map((n) => (n < 3 ? n : i % 2 === 0 ? 8 * (branch + 1) + n : copy(n)))
        return sequence(blocks, at.map(hash))
      })
      for (const { one: index, blocks } of steps) {
        const one = all[index]!
        if (blocks > one.indexed) computed.grow(one, blocks)
        else computed.shrink(one, blocks)
        computed.check(all)
        for (const { prefix } of all) {
          const shared = (other: ComputedSequence) => {
            let n = 0
            while (n < other.indexed && other.prefix[n] === prefix[n]) n++
            return n
          }
          expect(computed.longest(prefix, 6)).toBe(Math.max(...all.map(shared)))
        }
      }
    }),
    { numRuns: runs(200) },
  )
})
