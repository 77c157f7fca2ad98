/** KV accounting: sharing, caching, and invariants under any sequence of operations. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { LIMITS, runs } from "../testing.ts"
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
    expect(kv.orders.takeReleased()).toEqual([])
    expect(kv.cachedTokens).toBe(96)
    kv.attach(4, [], -1, null)
    expect(kv.grow(4, 40)).toBe(true)
    expect(kv.orders.takeReleased()).toEqual([1])
    expect(kv.orders.takeTrimmed()).toEqual([{ id: 2, tokens: 16 }])
    expect(kv.match(hashes(3, 2), 100)).toEqual({ from: 3, tokens: 32 })
    expect(kv.match(hashes(1, 2), 100)).toBeNull()
    kv.check()
  })

  test("what is not computed after all is shared no more, but its room is kept", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 256 })
    kv.attach(1, hashes(1, 8), -1, null)
    kv.grow(1, 128)
    kv.computed(1, 128)
    const { epoch } = kv
    kv.uncomputed(1, 40)
    expect(kv.match(hashes(1, 8), 200)).toEqual({ from: 1, tokens: 32 })
    expect(kv.epoch).toBeGreaterThan(epoch)
    expect(kv.heldTokens(1)).toBe(128)
    kv.computed(1, 80)
    expect(kv.match(hashes(1, 8), 200)).toEqual({ from: 1, tokens: 80 })
    kv.check()
  })

  test("the engine is not told to drop what it has lost by itself", () => {
    const kv = new KvAccount(LIMITS)
    for (const id of [1, 2]) {
      kv.attach(id, [], -1, null)
      kv.grow(id, 20)
    }
    kv.lose(1)
    kv.drop(2)
    expect([1, 2].map((id) => kv.holds(id))).toEqual([false, false])
    expect([...kv.orders.takeDropped().keys()]).toEqual([2])
    kv.check()
  })

  test("more than there are blocks for cannot be in place", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 64 })
    kv.attach(1, hashes(1, 4), -1, null)
    kv.grow(1, 32)
    kv.computed(1, 60)
    expect(kv.match(hashes(1, 4), 64)).toEqual({ from: 1, tokens: 32 })
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
    expect(kv.orders.takeReleased()).toEqual([3])
    expect(kv.grow(4, 96)).toBe(true)
    expect(kv.orders.takeReleased()).toEqual([1])
    kv.check()
  })

  /** A request of `session` that computed `prefix` and ended. */
  function ended(
    kv: KvAccount,
    id: number,
    prefix: readonly number[],
    session: number,
    spent: boolean,
  ): void {
    const tokens = prefix.length * 16
    kv.attach(id, prefix, session, kv.match(prefix, tokens + 1))
    kv.grow(id, tokens)
    kv.computed(id, tokens)
    if (spent) kv.wontReturn(id)
    kv.end(id)
  }

  test("trims from the end: of what is spent first, then of what ended longest ago", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 192 })
    ended(kv, 1, hashes(1, 4), 1, false)
    ended(kv, 2, hashes(2, 4), 2, true)
    ended(kv, 3, hashes(3, 4), 3, false)
    const trims: unknown[] = []
    kv.attach(4, [], -1, null)
    for (let blocks = 1; blocks <= 7; blocks++) {
      expect(kv.grow(4, blocks * 16)).toBe(true)
      trims.push([kv.orders.takeTrimmed(), kv.orders.takeReleased()])
      kv.check()
    }
    expect(trims).toEqual([
      [[{ id: 2, tokens: 48 }], []],
      [[{ id: 2, tokens: 32 }], []],
      [[{ id: 2, tokens: 16 }], []],
      [[], [2]],
      [[{ id: 1, tokens: 48 }], []],
      [[{ id: 1, tokens: 32 }], []],
      [[{ id: 1, tokens: 16 }], []],
    ])
    // What is left can still be shared, up to where it was cut.
    expect(kv.match(hashes(1, 4), 100)).toEqual({ from: 1, tokens: 16 })
    expect(kv.match(hashes(3, 4), 100)).toEqual({ from: 3, tokens: 64 })
  })

  test("keeps what a session that is over has in common with others as long as what may come back", () => {
    const kv = new KvAccount({ ...LIMITS, kvTokens: 160 })
    const common = hashes(1, 4)
    ended(kv, 3, hashes(4, 2), 3, false)
    ended(kv, 1, [...common, ...hashes(2, 2)], 1, true)
    ended(kv, 2, [...common, ...hashes(3, 2)], 2, true)
    expect(kv.cachedTokens).toBe(160)
    kv.attach(4, [], -1, null)
    // Both lose what they alone have.
    kv.grow(4, 64)
    expect(kv.match([...common, ...hashes(2, 2)], 200)?.tokens).toBe(64)
    expect(kv.match([...common, ...hashes(3, 2)], 200)?.tokens).toBe(64)
    expect(kv.match(hashes(4, 2), 100)).toEqual({ from: 3, tokens: 32 })
    // What they share is no first choice: now goes what ended longest ago, spent or not.
    kv.grow(4, 96)
    expect(kv.match(common, 100)?.tokens).toBe(64)
    expect(kv.match(hashes(4, 2), 100)).toBeNull()
    kv.grow(4, 112)
    expect(kv.match(common, 100)?.tokens).toBe(48)
    kv.check()
  })

  test("gives up blocks one by one, as many as are needed, and none before those that follow it", () => {
    // Paths through a tree: equal hashes mean equal prefixes.
    const chain = (path: readonly number[]) => {
      let hash = 1
      return path.map((branch) => (hash = 3 * hash + branch))
    }
    const step = fc.record({
      path: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 1, maxLength: 8 }),
      session: fc.integer({ min: -1, max: 3 }),
      spent: fc.boolean(),
    })
    const limits = { ...LIMITS, kvTokens: 320, maxSequences: 4, cachedSequences: 40 }
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const kv = new KvAccount(limits)
        const seen: number[][] = []
        const gone = new Set<number>()
        const held = new Map<number, number>()
        steps.forEach(({ path, session, spent }, id) => {
          const prefix = chain(path)
          const tokens = prefix.length * 16
          const match = kv.match(prefix, tokens + 1)
          kv.attach(id, prefix, session, match)
          const [free, need] = [kv.capacityTokens - kv.usedTokens, tokens - kv.heldTokens(id)]
          expect(kv.grow(id, tokens)).toBe(true)
          // No block more is given up than is needed.
          expect(kv.capacityTokens - kv.usedTokens).toBe(Math.max(0, free - need))
          kv.computed(id, tokens)
          if (spent) kv.wontReturn(id)
          kv.end(id)
          held.set(id, tokens)
          for (const released of kv.orders.takeReleased()) gone.add(released)
          for (const trimmed of kv.orders.takeTrimmed()) {
            expect(gone.has(trimmed.id)).toBe(false)
            expect(trimmed.tokens).toBeGreaterThan(0)
            expect(trimmed.tokens).toBeLessThan(held.get(trimmed.id)!)
            held.set(trimmed.id, trimmed.tokens)
          }
          seen.push(prefix)
          for (const one of seen) {
            // Asked for block by block, with the answer as a hint: is the last one held?
            const has = one.map(
              (_, i) => kv.matchedBlocks(one.slice(0, i + 1), one.length * 16 + 1, i + 1) === i + 1,
            )
            expect(has.indexOf(true, Math.max(0, has.indexOf(false)))).toBe(has.includes(false) ? -1 : 0)
          }
          // What the engine was told stays is what can be shared.
          seen.forEach((one, other) => {
            if (gone.has(other)) return
            expect(kv.matchedBlocks(one, one.length * 16 + 1) * 16).toBeGreaterThanOrEqual(held.get(other)!)
          })
          kv.check()
        })
      }),
      { numRuns: 200 },
    )
  })

  test("lets a session's next round replace its last", () => {
    const kv = new KvAccount(LIMITS)
    kv.attach(1, hashes(1, 4), 7, null)
    kv.grow(1, 64)
    kv.computed(1, 64)
    kv.end(1)
    expect(kv.attach(2, hashes(1, 6), 7, kv.match(hashes(1, 6), 96))).toBe(64)
    expect(kv.orders.takeReleased()).toEqual([1])
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
      { numRuns: runs(200) },
    )
  })
})
