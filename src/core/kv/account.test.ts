/** KV accounting: sharing, caching, and invariants under any sequence of operations. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { LIMITS } from "../testing.ts"
import { KvAccount } from "./account.ts"

const hashes = (family: number, blocks: number) => Array.from({ length: blocks }, (_, i) => family * 1000 + i)

describe("KvAccount", () => {
  test("shares a prefix once it is computed, and counts it once in a unified pool", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 256 })
    kv.attach(1, hashes(1, 8), -1, null)
    kv.grow(1, 128)
    expect(kv.match(hashes(1, 8), 128)).toBeNull()
    kv.computed(1, 128)
    // The last token is always computed, so that there are logits to sample from.
    expect(kv.match(hashes(1, 8), 128)).toEqual({ from: 1, tokens: 112 })
    expect(kv.match(hashes(1, 8), 129)).toEqual({ from: 1, tokens: 128 })
    expect(kv.attach(2, hashes(1, 8), -1, kv.match(hashes(1, 8), 200))).toBe(128)
    expect(kv.grow(2, 200)).toBe(true)
    expect(kv.usedTokens).toBe(128 + 80)
    expect(kv.grow(2, 300)).toBe(false)
    kv.check()
  })

  test("keeps ended requests as cache until room is needed, oldest first", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 96 })
    for (const id of [1, 2, 3]) {
      kv.attach(id, hashes(id, 2), -1, null)
      kv.grow(id, 32)
      kv.computed(id, 32)
      kv.end(id)
    }
    expect(kv.takeReleased()).toEqual([])
    expect(kv.cachedTokens).toBe(96)
    kv.attach(4, [], -1, null)
    expect(kv.grow(4, 40)).toBe(true)
    expect(kv.takeReleased()).toEqual([1])
    expect(kv.takeTrimmed()).toEqual([{ id: 2, tokens: 16 }])
    expect(kv.match(hashes(3, 2), 100)).toEqual({ from: 3, tokens: 32 })
    expect(kv.match(hashes(1, 2), 100)).toBeNull()
    kv.check()
  })

  test("drops first what no session will come back for", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 96 })
    for (const id of [1, 2, 3]) {
      kv.attach(id, hashes(id, 2), id, null)
      kv.grow(id, 32)
      kv.computed(id, 32)
      if (id > 1) kv.wontReturn(id)
      kv.end(id)
    }
    // Whose prefix is used again is useful after all.
    kv.attach(4, hashes(2, 2), 4, kv.match(hashes(2, 2), 40))
    expect(kv.grow(4, 64)).toBe(true)
    expect(kv.takeReleased()).toEqual([3])
    expect(kv.grow(4, 96)).toBe(true)
    expect(kv.takeReleased()).toEqual([1])
    kv.check()
  })

  test("lets a session's next round replace its last", () => {
    const kv = new KvAccount(LIMITS)
    kv.attach(1, hashes(1, 4), 7, null)
    kv.grow(1, 64)
    kv.computed(1, 64)
    kv.end(1)
    expect(kv.attach(2, hashes(1, 6), 7, kv.match(hashes(1, 6), 96))).toBe(64)
    expect(kv.takeReleased()).toEqual([1])
    expect(kv.usedTokens).toBe(64)
    kv.check()
  })

  test("counts a copied prefix in full when the pool is not unified", () => {
    const kv = new KvAccount({ ...LIMITS, unifiedKv: false })
    kv.attach(1, hashes(1, 4), -1, null)
    kv.grow(1, 64)
    kv.computed(1, 64)
    expect(kv.attach(2, hashes(1, 4), -1, kv.match(hashes(1, 4), 100))).toBe(64)
    expect(kv.usedTokens).toBe(128)
    kv.check()
  })

  test("holds its invariants under any sequence of operations, and never hands out more than there is", () => {
    const operation = fc.record({
      kind: fc.constantFrom("attach", "grow", "compute", "drop", "end", "cacheOut"),
      id: fc.integer({ min: 0, max: 9 }),
      family: fc.integer({ min: 0, max: 2 }),
      tokens: fc.integer({ min: 1, max: 300 }),
      session: fc.integer({ min: -1, max: 1 }),
    })
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), fc.boolean(), (operations, unifiedKv) => {
        const kv = new KvAccount({ ...LIMITS, kvTokens: 640, maxSequences: 5, unifiedKv })
        const grown = new Map<number, number>()
        const used = new Set<number>()
        let nextId = 10
        const alias = new Map<number, number>()
        for (const { kind, id: slot, family, tokens, session } of operations) {
          const id = alias.get(slot) ?? slot
          if (kind === "attach" && !kv.holds(id) && kv.canAttach()) {
            // An ended request never comes back: give the slot a fresh id.
            const fresh = used.has(id) ? nextId++ : id
            alias.set(slot, fresh)
            used.add(fresh)
            const prefix = hashes(family, 18)
            const match = kv.match(prefix, tokens)
            const inPlace = kv.attach(fresh, prefix, session, match)
            expect(inPlace).toBeLessThanOrEqual(match?.tokens ?? 0)
            grown.set(fresh, inPlace)
          } else if (kind === "grow" && kv.holds(id)) {
            const room = kv.spareTokens + kv.heldTokens(id)
            const want = Math.max(tokens, grown.get(id)!)
            expect(kv.grow(id, want)).toBe(want <= room)
            if (want <= room) grown.set(id, want)
          } else if (kind === "compute" && kv.holds(id)) kv.computed(id, grown.get(id)!)
          else if (kind === "drop") kv.drop(id)
          else if (kind === "end" && kv.holds(id)) {
            if (tokens % 2 === 0) kv.wontReturn(id)
            kv.end(id)
          } else if (kind === "cacheOut") kv.dropCache()
          kv.check()
          expect(kv.usedTokens).toBeLessThanOrEqual(kv.capacityTokens)
        }
      }),
      { numRuns: 200 },
    )
  })
})
