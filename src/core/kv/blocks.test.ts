/** The blocks of a pool: which are free, and what holds the others. */
import { expect, test } from "vitest"
import { type BlockOwner, Blocks } from "./blocks.ts"

let name = 0
const owner = (): BlockOwner => ({ name: ++name, blocks: [], own: 0 })
const counts = ({ free, live, shared }: Blocks) => ({ free, live, shared })

test("are taken from the first on, and one that is given back is the next", () => {
  const blocks = new Blocks(3)
  const [one, other] = [owner(), owner()]
  for (let i = 0; i < 3; i++) blocks.take(one)
  expect(one).toMatchObject({ blocks: [0, 1, 2], own: 3 })
  expect(() => blocks.take(other)).toThrow("no block is free")
  blocks.pop(one)
  expect([one.blocks, one.own, blocks.isLive(2), blocks.holders(2)]).toEqual([[0, 1], 2, false, 0])
  blocks.take(other)
  expect(other).toMatchObject({ blocks: [2], own: 1 })
  expect(counts(blocks)).toEqual({ free: 0, live: 3, shared: 0 })
})

test("are an owner's own while no other live one holds them", () => {
  const blocks = new Blocks(4)
  const [first, second, third] = [owner(), owner(), owner()]
  blocks.take(first)
  blocks.share(second, 0)
  expect([first.own, second.own, blocks.holders(0)]).toEqual([0, 0, 2])
  expect(counts(blocks)).toEqual({ free: 3, live: 1, shared: 1 })
  blocks.share(third, 0)
  expect([first.own, second.own, third.own, blocks.holders(0)]).toEqual([0, 0, 0, 3])
  expect(counts(blocks)).toEqual({ free: 3, live: 1, shared: 1 })
  // Two are left: still shared. Then one: its own.
  blocks.pop(first)
  expect([second.own, third.own, blocks.shared]).toEqual([0, 0, 1])
  blocks.pop(third)
  expect([second.own, blocks.shared, blocks.live]).toEqual([1, 0, 1])
  blocks.check([first, second, third], [])
})

test("of an owner that is live no more are held, but by nothing live", () => {
  const blocks = new Blocks(4)
  const [first, second] = [owner(), owner()]
  for (let i = 0; i < 2; i++) blocks.take(first)
  blocks.share(second, 0)
  blocks.retire(first)
  expect([blocks.isLive(0), blocks.isLive(1), second.own]).toEqual([true, false, 1])
  expect(counts(blocks)).toEqual({ free: 2, live: 1, shared: 0 })
  blocks.check([second], [first])
  blocks.popRetired(first)
  expect([first.blocks, blocks.free]).toEqual([[0], 3])
  // The other one still holds what is forgotten here.
  blocks.forget(first)
  expect([first.blocks, blocks.free, blocks.holders(0)]).toEqual([[], 3, 1])
  blocks.check([second], [])
})
