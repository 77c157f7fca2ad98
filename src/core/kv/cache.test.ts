/** What of the KV of ended requests is kept, shared and given up, and in which order. Blocks of 16 tokens. */
import { describe, expect, test } from "vitest"
import { LIMITS } from "../testing.ts"
import { KvAccount } from "./account.ts"
import { begin, ended, hashes, pool } from "./cache-testing.ts"

describe("room", () => {
  test("is free, cached, shared by several or one's own", () => {
    const kv = pool(20)
    const tokens = () => [kv.usedTokens, kv.cachedTokens, kv.spareTokens, kv.sharedTokens].map((n) => n / 16)
    expect(kv.capacityTokens).toBe(320)
    begin(kv, 1, hashes(1, 3))
    expect(tokens()).toEqual([4, 0, 16, 0])
    begin(kv, 2, hashes(1, 3))
    expect(tokens()).toEqual([5, 0, 15, 3])
    expect([kv.heldTokens(1), kv.ownTokens(1), kv.heldTokens(9), kv.ownTokens(9)]).toEqual([64, 16, 0, 0])
    kv.end(1)
    expect(tokens()).toEqual([5, 1, 16, 0])
    expect([kv.heldTokens(1), kv.ownTokens(2)]).toEqual([0, 64])
    kv.end(2)
    expect(tokens()).toEqual([5, 5, 20, 0])
    expect(kv.liveSequences).toBe(0)
  })

  test("that the cache gave up is counted, and nothing else that goes", () => {
    const kv = pool(10)
    ended(kv, 1, hashes(1, 3))
    ended(kv, 2, hashes(2, 3))
    expect(kv.evictedTokens).toBe(0)
    begin(kv, 3, hashes(3, 5))
    expect(kv.evictedTokens).toBe(64)
    kv.drop(3)
    expect(kv.evictedTokens).toBe(64)
    kv.dropCache()
    expect([kv.evictedTokens, kv.usedTokens]).toEqual([128, 0])
    ended(kv, 4, hashes(4, 3), { spent: true })
    ended(kv, 5, hashes(5, 3))
    begin(kv, 6, hashes(6, 5))
    kv.end(6)
    kv.dropCache()
    // Four blocks of the fourth went uncounted.
    expect(kv.evictedTokens).toBe(128 + 64 + 96)
  })

  test("is counted in whole blocks: what does not fill one is no room", () => {
    expect(new KvAccount({ ...LIMITS, kvTokens: 47 }).capacityTokens).toBe(32)
  })

  test("is given back beyond what a request keeps", () => {
    const kv = pool(20)
    begin(kv, 1, [], { tokens: 100 })
    kv.shrink(1, 65)
    expect(kv.usedTokens).toBe(80)
    kv.shrink(1, 64)
    expect(kv.usedTokens).toBe(64)
    kv.shrink(1, 64)
    kv.shrink(9, 0)
    expect(kv.usedTokens).toBe(64)
    begin(kv, 2, hashes(1, 4))
    expect(() => kv.shrink(2, 48)).toThrow("would lose KV that others may share")
    kv.shrink(2, 64)
  })

  test("is taken up to the last block, and not beyond", () => {
    const kv = pool(4)
    kv.attach(1, [], -1, null)
    expect(kv.grow(1, 65)).toBe(false)
    expect(kv.grow(1, 64)).toBe(true)
    // Less than it has is no loss.
    expect(kv.grow(1, 10)).toBe(true)
    expect(kv.usedTokens).toBe(64)
    expect(() => kv.grow(2, 1)).toThrow("holds no KV")
    expect(() => kv.attach(1, [], -1, null)).toThrow("already holds KV")
  })

  test("needs a sequence: one is free where fewer requests are live than the engine takes", () => {
    const kv = pool(20, { maxSequences: 2 })
    expect(kv.canAttach()).toBe(true)
    begin(kv, 1, [], { tokens: 16 })
    begin(kv, 2, [], { tokens: 16 })
    expect(kv.canAttach()).toBe(false)
    expect(() => kv.attach(3, [], -1, null)).toThrow("no free sequence")
    kv.drop(1)
    expect(kv.canAttach()).toBe(true)
  })
})

describe("a prefix that is looked for", () => {
  test("is shared from a live request rather than from the cache: no room is taken", () => {
    const kv = pool(20)
    begin(kv, 1, hashes(1, 2), { tokens: 32 })
    // Computed twice, each on its own.
    kv.attach(2, hashes(1, 2), -1, null)
    kv.grow(2, 32)
    kv.computed(2, 32)
    kv.end(1)
    expect(kv.match(hashes(1, 2), 40)).toEqual({ from: 2, tokens: 32 })
    expect(kv.liveBlocks(hashes(1, 2), 2)).toBe(2)
    kv.end(2)
    expect(kv.match(hashes(1, 2), 40)?.from).toBe(1)
  })

  test("is looked for among few copies: of many the first is as good", () => {
    const kv = pool(40)
    for (let id = 1; id <= 6; id++) {
      kv.attach(id, hashes(1, 2), -1, null)
      kv.grow(id, 32)
      kv.computed(id, 32)
    }
    for (const id of [1, 2, 3]) kv.end(id)
    expect(kv.match(hashes(1, 2), 40)?.from).toBe(4)
    kv.end(4)
    // The fifth lives, but is not reached.
    expect(kv.match(hashes(1, 2), 40)?.from).toBe(1)
  })

  test("may be live in its first blocks only", () => {
    const kv = pool(20)
    begin(kv, 1, hashes(1, 6), { tokens: 96 })
    for (const live of [1, 2, 3, 5]) {
      const id = 10 + live
      begin(kv, id, hashes(1, live), { tokens: live * 16 + 1 })
      if (kv.holds(1)) kv.end(1)
      expect(kv.liveBlocks(hashes(1, 6), 6)).toBe(live)
      expect(kv.liveBlocks(hashes(1, 6), Math.min(2, live))).toBe(Math.min(2, live))
      kv.end(id)
    }
    expect(kv.liveBlocks(hashes(1, 6), 6)).toBe(0)
    expect(kv.liveBlocks(hashes(1, 6), 0)).toBe(0)
    expect(kv.liveBlocks(hashes(2, 6), 6)).toBe(0)
    expect(kv.match(hashes(2, 6), 96)).toBeNull()
    expect(kv.match([], 96)).toBeNull()
  })

  test("is known to have changed when blocks were computed or went, and only then", () => {
    const kv = pool(8)
    const changed = (act: () => void) => {
      const before = kv.epoch
      act()
      return kv.epoch !== before
    }
    expect(changed(() => begin(kv, 1, hashes(1, 2), { tokens: 40 }))).toBe(true)
    expect(changed(() => kv.computed(1, 40))).toBe(false)
    expect(changed(() => kv.grow(1, 60))).toBe(false)
    expect(changed(() => kv.end(1))).toBe(false)
    // Takes the free blocks; then one of the cached ones.
    kv.attach(2, [], -1, null)
    expect(changed(() => kv.grow(2, 64))).toBe(false)
    expect(changed(() => kv.grow(2, 100))).toBe(true)
    expect(changed(() => kv.drop(2))).toBe(true)
  })
})

describe("when room is needed", () => {
  test("blocks go from the end of what ended longest ago, and the engine is told what stays", () => {
    const kv = pool(8)
    for (const id of [1, 2]) ended(kv, id, hashes(id, 3), { tokens: 60 })
    kv.attach(3, [], -1, null)
    kv.grow(3, 32)
    expect(kv.orders.takeTrimmed()).toEqual([{ id: 1, tokens: 32 }])
    expect(kv.orders.takeTrimmed()).toEqual([])
    expect(kv.match(hashes(1, 3), 60)).toEqual({ from: 1, tokens: 32 })
    kv.grow(3, 48)
    expect(kv.orders.takeTrimmed()).toEqual([{ id: 1, tokens: 16 }])
    kv.grow(3, 64)
    expect([kv.orders.takeTrimmed(), kv.orders.takeReleased()]).toEqual([[], [1]])
    kv.check()
  })

  test("a sequence of a split pool goes whole", () => {
    const kv = pool(8, { unifiedKv: false })
    for (const id of [1, 2]) ended(kv, id, hashes(id, 3), { tokens: 60 })
    kv.attach(3, [], -1, null)
    kv.grow(3, 16)
    expect([kv.orders.takeTrimmed(), kv.orders.takeReleased()]).toEqual([[], [1]])
    expect(kv.usedTokens).toBe(64 + 16)
  })

  test("a sequence that shares all of it with another goes too, once it has nothing of its own to give", () => {
    const kv = pool(4)
    begin(kv, 1, hashes(1, 2), { tokens: 32 })
    begin(kv, 2, hashes(1, 2), { tokens: 33 })
    kv.end(1)
    kv.end(2)
    // Request 1 has only what request 2 has as well.
    kv.attach(3, [], -1, null)
    kv.grow(3, 32)
    expect(kv.orders.takeReleased()).toEqual([1])
    expect(kv.orders.takeTrimmed()).toEqual([{ id: 2, tokens: 32 }])
    kv.check()
  })

  test("a sequence stays whose blocks a request uses that has not computed them yet: only there are they found", () => {
    const kv = pool(8)
    ended(kv, 1, hashes(1, 2), { tokens: 32 })
    ended(kv, 2, hashes(2, 3), { tokens: 48 })
    kv.attach(3, hashes(1, 2), -1, kv.match(hashes(1, 2), 40))
    kv.grow(3, 16 * 6)
    expect(kv.match(hashes(1, 2), 40)).toEqual({ from: 1, tokens: 32 })
    expect([kv.orders.takeReleased(), kv.orders.takeTrimmed()]).toEqual([[], [{ id: 2, tokens: 32 }]])
    kv.check()
  })

  test("in a split pool what was used again is no longer the first to go", () => {
    const kv = pool(16, { unifiedKv: false })
    ended(kv, 1, hashes(1, 3), { session: 1, tokens: 48, spent: true })
    ended(kv, 2, hashes(2, 3), { session: 2, tokens: 48 })
    // Another session's prompt begins like that of the first.
    begin(kv, 3, hashes(1, 2), { session: 3, tokens: 40 })
    kv.attach(4, [], -1, null)
    kv.grow(4, 16 * 8)
    expect(kv.orders.takeReleased()).toEqual([2])
  })

  test("where sequences are few, the one that was used longest ago goes whole", () => {
    const kv = pool(40, { maxSequences: 3 })
    for (const id of [1, 2]) ended(kv, id, hashes(id, 2))
    begin(kv, 3, hashes(3, 2))
    begin(kv, 4, hashes(4, 2))
    expect(kv.orders.takeReleased()).toEqual([1])
    // Sequences of the cache's own keep it.
    const roomy = pool(40, { maxSequences: 3, cachedSequences: 1 })
    for (const id of [1, 2]) ended(roomy, id, hashes(id, 2))
    for (const id of [3, 4]) begin(roomy, id, hashes(id, 2))
    expect(roomy.orders.takeReleased()).toEqual([])
    begin(roomy, 5, hashes(5, 2))
    expect(roomy.orders.takeReleased()).toEqual([1])
  })

  test("the one whose prefix is wanted goes only when it is the last", () => {
    const kv = pool(40, { maxSequences: 2 })
    for (const id of [1, 2]) ended(kv, id, hashes(id, 2))
    expect(begin(kv, 3, hashes(1, 2))).toBe(32)
    expect(kv.orders.takeReleased()).toEqual([2])
    const last = pool(40, { maxSequences: 1 })
    ended(last, 1, hashes(1, 2))
    expect(begin(last, 3, hashes(1, 2))).toBe(32)
    expect(last.orders.takeReleased()).toEqual([1])
    last.check()
  })

  test("in a split pool a prefix that was copied was used: it goes later", () => {
    const order = (unifiedKv: boolean) => {
      const kv = pool(40, { maxSequences: 4, unifiedKv })
      for (const id of [1, 2]) ended(kv, id, hashes(id, 2))
      begin(kv, 3, hashes(1, 2))
      for (const id of [4, 5]) begin(kv, id, hashes(id, 2))
      return kv.orders.takeReleased()
    }
    expect(order(false)).toEqual([2])
    expect(order(true)).toEqual([1])
  })
})
