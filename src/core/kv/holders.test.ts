/** Which sequences hold a prefix. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { PrefixIndex } from "./prefix-index.ts"

const holderOf = (...prefix: number[]) => ({ prefix })

describe("the holders of a block", () => {
  test("are found in the order in which they came, each once", () => {
    const index = new PrefixIndex()
    const [first, second, third] = [holderOf(7), holderOf(7), holderOf(7)]
    expect([index.has(7), [...index.of(7)]]).toEqual([false, []])
    index.add(7, first)
    index.add(7, first)
    expect([...index.of(7)]).toEqual([first])
    expect([...index.of(7)][0]).toBe(first)
    for (const holder of [second, third, second]) index.add(7, holder)
    const found = [...index.of(7)]
    expect(found.length).toBe(3)
    for (const [i, holder] of [first, second, third].entries()) expect(found[i]).toBe(holder)
  })

  test("are gone when all of them have left, and not before", () => {
    const index = new PrefixIndex()
    const [first, second] = [holderOf(7), holderOf(7)]
    index.add(7, first)
    // One that never had it takes nothing away.
    index.remove(7, second)
    index.remove(8, first)
    expect([...index.of(7)]).toEqual([first])
    index.add(7, second)
    index.remove(7, first)
    expect([...index.of(7)][0]).toBe(second)
    expect(index.has(7)).toBe(true)
    index.remove(7, second)
    expect([index.has(7), [...index.of(7)]]).toEqual([false, []])
    index.add(7, first)
    index.remove(7, first)
    expect(index.has(7)).toBe(false)
  })

  test("are listed block by block", () => {
    const index = new PrefixIndex()
    const [first, second] = [holderOf(7, 8), holderOf(7)]
    for (const hash of [7, 8]) index.add(hash, first)
    index.add(7, second)
    expect([...index.entries()]).toEqual([
      [7, first],
      [7, second],
      [8, first],
    ])
  })
})

test("the longest prefix is the number of leading blocks that are held, wherever the answer was before", () => {
  const size = fc.integer({ min: 0, max: 40 })
  fc.assert(
    fc.property(size, size, size, (held, most, near) => {
      const index = new PrefixIndex()
      const prefix = Array.from({ length: 40 }, (_, i) => i + 100)
      const holder = holderOf(...prefix)
      for (const hash of prefix.slice(0, held)) index.add(hash, holder)
      expect(index.longest(prefix, most, near)).toBe(Math.min(held, most))
      expect(index.longest(prefix, most)).toBe(Math.min(held, most))
    }),
  )
})

test("what was found last time is looked at first: two look-ups where nothing changed, few where a block came", () => {
  const index = new PrefixIndex()
  let [lookedUp, held] = [0, 500]
  index.has = (hash: number) => {
    lookedUp++
    return hash < held
  }
  const prefix = Array.from({ length: 1000 }, (_, i) => i)
  const lookUps = (near: number, most = 1000) => {
    lookedUp = 0
    expect(index.longest(prefix, most, near)).toBe(Math.min(held, most))
    return lookedUp
  }
  expect(lookUps(500)).toBe(2)
  expect(lookUps(0)).toBeLessThanOrEqual(11)
  // Nothing is left to look for.
  expect(lookUps(400, 400)).toBe(1)
  // All that is left lies before it.
  held = 3
  expect(lookUps(5)).toBeLessThanOrEqual(4)
})
