/** The prefix index against a scan, block by block. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { PrefixIndex } from "./prefix-index.ts"

interface Holder {
  readonly prefix: readonly number[]
}

/** Chain hashes of a path through a tree with three branches: equal hashes mean equal ways there. */
function chain(path: readonly number[]): number[] {
  let hash = 1
  return path.map((branch) => (hash = 3 * hash + branch))
}

const path = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 12 })

describe("PrefixIndex", () => {
  test("finds the longest prefix as a scan does, whatever is held and wherever it was found before", () => {
    const sequence = fc.record({ path, given: fc.nat(12), kept: fc.nat(12) })
    fc.assert(
      fc.property(
        fc.array(sequence, { maxLength: 12 }),
        path,
        fc.nat(14),
        fc.nat(14),
        (all, asked, most, near) => {
          const index = new PrefixIndex<Holder>()
          const held = new Set<number>()
          for (const { path, given, kept } of all) {
            const holder = { prefix: chain(path) }
            const added = holder.prefix.slice(0, given)
            for (const hash of added) index.add(hash, holder)
            // Sequences give up blocks from their end.
            for (let i = added.length - 1; i >= kept; i--) index.remove(added[i]!, holder)
            for (const hash of added.slice(0, kept)) held.add(hash)
          }
          const prefix = chain(asked)
          const limit = Math.min(most, prefix.length)
          let expected = 0
          while (expected < limit && held.has(prefix[expected]!)) expected++
          expect(index.longest(prefix, limit, near)).toBe(expected)
          for (const hash of prefix) expect(index.has(hash)).toBe(held.has(hash))
        },
      ),
      { numRuns: 500 },
    )
  })

  test("knows every holder of a block, the first one first, until the last has left", () => {
    const index = new PrefixIndex<Holder>()
    const [a, b, c] = [{ prefix: [7] }, { prefix: [7] }, { prefix: [7] }] as const
    for (const holder of [a, b, c, b]) index.add(7, holder)
    expect([...index.of(7)]).toEqual([a, b, c])
    index.remove(7, a)
    index.remove(7, a)
    expect([...index.of(7)][0]).toBe(b)
    index.remove(7, b)
    index.remove(7, c)
    expect(index.has(7)).toBe(false)
    expect([...index.entries()]).toEqual([])
  })

  test("leaves a block to its one holder when another that never had it goes", () => {
    const index = new PrefixIndex<Holder>()
    const [a, b] = [{ prefix: [7] }, { prefix: [7] }] as const
    index.add(7, a)
    index.remove(7, b)
    expect([...index.of(7)]).toEqual([a])
  })
})
