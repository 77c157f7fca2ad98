/** Whose KV is kept for a next round, what requests leave when they end or lose it, and what of that the engine is told. */
import { describe, expect, test } from "vitest"
import type { KvAccount } from "./account.ts"
import { begin, ended, hashes, pool } from "./cache-testing.ts"

describe("sessions", () => {
  test("a round replaces the one before it, not another session's", () => {
    const kv = pool(40)
    ended(kv, 1, hashes(1, 2), { session: 7 })
    expect(begin(kv, 2, hashes(1, 2), { session: 8 })).toBe(32)
    expect(kv.orders.takeReleased()).toEqual([])
    kv.end(2)
    const again = pool(40)
    ended(again, 1, hashes(1, 2), { session: 0 })
    begin(again, 2, hashes(1, 2), { session: 0 })
    expect(again.orders.takeReleased()).toEqual([1])
    // Without a session nothing is a next round.
    const none = pool(40)
    ended(none, 1, hashes(1, 2))
    begin(none, 2, hashes(1, 2))
    expect(none.orders.takeReleased()).toEqual([])
  })

  /** Two spent sequences, and an older one that is not: what goes for four blocks of room, whole ones first. */
  function firstToGo(shares: (kv: KvAccount) => void): number[] {
    const kv = pool(12)
    ended(kv, 1, hashes(1, 3), { session: 1, tokens: 48 })
    ended(kv, 2, hashes(2, 3), { session: 2, tokens: 48, spent: true })
    ended(kv, 3, hashes(3, 3), { session: 3, tokens: 48, spent: true })
    shares(kv)
    kv.orders.takeReleased()
    kv.attach(9, [], -1, null)
    kv.grow(9, 16 * 7)
    kv.check()
    return [...kv.orders.takeReleased(), ...kv.orders.takeTrimmed().map(({ id }) => id)]
  }
  test("that are over give up theirs before those that may come back", () => {
    // All of the second, and a block of the third.
    expect(firstToGo(() => {})).toEqual([2, 3])
  })

  test("that are over keep what others were found to have, too", () => {
    // Another session's prompt begins like that of the second, and is gone.
    const used = firstToGo((kv) => {
      begin(kv, 5, hashes(2, 2).concat([77]), { session: 5, tokens: 33 })
      kv.drop(5)
    })
    // One block of the second, and all of the third.
    expect(used).toEqual([3, 2])
  })

  test("a next round of the same session makes no prefix common", () => {
    const kv = pool(12)
    ended(kv, 3, hashes(3, 3), { session: 3, tokens: 48 })
    ended(kv, 1, hashes(1, 2), { session: 1, tokens: 32 })
    begin(kv, 2, hashes(1, 3), { session: 1, tokens: 48, spent: true })
    kv.end(2)
    kv.orders.takeReleased()
    kv.attach(9, [], -1, null)
    kv.grow(9, 16 * 9)
    expect(kv.orders.takeReleased()).toEqual([2])
    expect(kv.orders.takeTrimmed()).toEqual([])
  })
})

describe("a live request that loses its KV", () => {
  test("is named to the engine, unless it begins anew or ends before the next batch", () => {
    const kv = pool(20)
    for (const id of [1, 2, 3]) begin(kv, id, hashes(id, 2))
    for (const id of [1, 2, 3]) kv.drop(id)
    kv.drop(9)
    expect(kv.holds(1)).toBe(false)
    expect(kv.usedTokens).toBe(0)
    begin(kv, 2, hashes(2, 2))
    kv.end(3)
    expect([...kv.orders.takeDropped().keys()]).toEqual([1])
    expect([...kv.orders.takeDropped().keys()]).toEqual([])
    expect(kv.orders.takeReleased()).toEqual([3])
    expect(kv.orders.takeReleased()).toEqual([])
  })
})

describe("an ended request", () => {
  test("is forgotten where nothing of it can be shared", () => {
    const kv = pool(20)
    ended(kv, 1, [], { tokens: 40 })
    expect([kv.usedTokens, kv.orders.takeReleased()]).toEqual([0, [1]])
    ended(kv, 2, hashes(2, 1), { tokens: 10 })
    expect([kv.usedTokens, kv.orders.takeReleased()]).toEqual([0, [2]])
    ended(kv, 3, hashes(3, 1), { tokens: 16 })
    expect([kv.cachedTokens, kv.orders.takeReleased()]).toEqual([16, []])
  })

  test("that is here again begins afresh: the engine drops what it has of it, and forgets nothing later", () => {
    for (const kept of [true, false]) {
      const kv = pool(20)
      ended(kv, 1, kept ? hashes(1, 2) : [], { tokens: 40 })
      kv.comeBack(1)
      expect(kv.usedTokens).toBe(0)
      expect(kv.match(hashes(1, 2), 40)).toBeNull()
      expect([kv.orders.takeReleased(), [...kv.orders.takeDropped().keys()]]).toEqual([[], [1]])
      kv.check()
    }
    const live = pool(20)
    begin(live, 1, hashes(1, 2))
    live.comeBack(1)
    expect([live.usedTokens, live.holds(1), [...live.orders.takeDropped().keys()]]).toEqual([0, false, [1]])
    const never = pool(20)
    never.comeBack(1)
    expect([...never.orders.takeDropped().keys()]).toEqual([])
  })

  test("that is here again leaves the others that ended alone", () => {
    const kv = pool(8)
    for (const id of [1, 2, 3]) ended(kv, id, [], { tokens: 16 })
    kv.comeBack(2)
    expect(kv.orders.takeReleased()).toEqual([1, 3])
    ended(kv, 4, hashes(4, 3), { session: 1, tokens: 48, spent: true })
    kv.attach(5, [], -1, null)
    kv.grow(5, 16 * 6)
    kv.comeBack(4)
    // Neither trimmed nor among the first to go any more.
    expect(kv.orders.takeTrimmed()).toEqual([])
    expect(kv.grow(5, 16 * 8)).toBe(true)
    kv.check()
  })

  test("and the whole cache can be given up at once", () => {
    const kv = pool(20)
    for (const id of [1, 2]) ended(kv, id, hashes(id, 2))
    begin(kv, 3, hashes(3, 2))
    kv.dropCache()
    expect([kv.cachedTokens, kv.usedTokens, kv.orders.takeReleased()]).toEqual([0, 48, [1, 2]])
    kv.check()
  })
})
