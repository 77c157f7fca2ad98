/** KV of an engine that counts its own: what it says it has free bounds what is newly taken. */
import { describe, expect, test } from "vitest"
import { LIMITS } from "../testing.ts"
import { KvAccount } from "./account.ts"

const hashes = (family: number, blocks: number) => Array.from({ length: blocks }, (_, i) => family * 1000 + i)

/** Eight blocks, of which request 1 has four and request 2 two. */
function account(): KvAccount {
  const kv = new KvAccount({ ...LIMITS, kvTokens: 128 })
  for (const [id, tokens] of [
    [1, 64],
    [2, 32],
  ] as const) {
    kv.attach(id, hashes(id, 8), -1, null)
    kv.grow(id, tokens)
    kv.computed(id, tokens)
  }
  return kv
}

describe("what the engine has free", () => {
  test("bounds what is taken, but gives no more than is accounted for", () => {
    const kv = account()
    kv.bound(16)
    expect(kv.spareTokens).toBe(16)
    expect(kv.grow(2, 48)).toBe(true)
    expect([kv.spareTokens, kv.grow(2, 49)]).toEqual([0, false])
    kv.bound(1000)
    expect([kv.spareTokens, kv.heldTokens(2)]).toEqual([16, 48])
    kv.check()
  })

  test("grows by what others give up, and is forgotten when the engine goes on", () => {
    const kv = account()
    kv.bound(15)
    expect(kv.spareTokens).toBe(0)
    kv.drop(1)
    expect(kv.spareTokens).toBe(64)
    kv.bound(null)
    expect(kv.spareTokens).toBe(96)
  })

  test("grows by what is to be dropped as well: the engine has not heard of it, and may not have when its next batch never runs", () => {
    const kv = account()
    kv.drop(1)
    kv.bound(0)
    expect(kv.spareTokens).toBe(64)
    const dropped = kv.orders.takeDropped()
    expect([...dropped]).toEqual([[1, 4]])
    kv.bound(0)
    expect(kv.spareTokens).toBe(0)
    kv.orders.drop(1, dropped.get(1))
    kv.bound(16)
    expect(kv.spareTokens).toBe(80)
    // It starts afresh in the next batch, which drops what it had.
    kv.attach(1, [], -1, null)
    kv.bound(16)
    expect(kv.spareTokens).toBe(80)
    kv.end(1)
    kv.bound(16)
    expect(kv.spareTokens).toBe(16)
    kv.check()
  })

  test("does not grow by what is to be dropped of a request that has ended: the engine frees that by itself, and counts it", () => {
    const kv = account()
    for (const id of [1, 2]) kv.drop(id)
    kv.bound(0)
    expect(kv.spareTokens).toBe(96)
    kv.end(1)
    kv.bound(0)
    expect(kv.spareTokens).toBe(32)
    expect([...kv.orders.takeDropped()]).toEqual([[2, 2]])
  })

  test("does not count on copies of blocks that end with a request", () => {
    const kv = account()
    kv.attach(3, hashes(1, 2), -1, null)
    kv.grow(3, 32)
    kv.computed(3, 32)
    kv.bound(0)
    kv.end(1)
    expect(kv.spareTokens).toBe(32)
    kv.end(3)
    expect(kv.spareTokens).toBe(64)
  })

  test("nor by what a batch took and gave back: the engine has not heard of that, but of what was there before", () => {
    const kv = account()
    kv.attach(3, [], -1, null)
    kv.grow(3, 32)
    kv.forgo(3)
    kv.bound(16)
    expect([kv.spareTokens, kv.holds(3)]).toEqual([16, false])
    expect([...kv.orders.takeDropped()]).toEqual([])
    kv.drop(1)
    kv.attach(1, [], -1, null)
    kv.grow(1, 16)
    kv.forgo(1)
    kv.bound(0)
    expect(kv.spareTokens).toBe(64)
    expect([...kv.orders.takeDropped()]).toEqual([[1, 4]])
    kv.check()
  })

  test("does not count on blocks of a prefix that another has computed, too: either may be the one that is shared", () => {
    const kv = account()
    kv.attach(3, [...hashes(1, 1), ...hashes(3, 1)], -1, null)
    kv.grow(3, 32)
    kv.computed(3, 32)
    kv.bound(0)
    kv.drop(1)
    expect(kv.spareTokens).toBe(48)
    // The other one has no copy any more.
    kv.drop(3)
    expect(kv.spareTokens).toBe(80)
    kv.bound(null)
    expect(kv.spareTokens).toBe(96)
  })

  test("nor of one that another has begun with, whose source is gone before it has computed anything", () => {
    const kv = account()
    kv.attach(3, hashes(1, 8), -1, null)
    kv.grow(3, 32)
    kv.bound(0)
    kv.drop(1)
    expect(kv.spareTokens).toBe(32)
  })

  test("counts blocks that stay with those that share them but once", () => {
    const kv = account()
    kv.attach(3, hashes(1, 8), -1, kv.match(hashes(1, 8), 65))
    kv.grow(3, 80)
    kv.bound(0)
    kv.drop(1)
    expect(kv.spareTokens).toBe(0)
    kv.drop(3)
    expect(kv.spareTokens).toBe(80)
  })
})
