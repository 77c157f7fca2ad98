/** What a request would newly take of the KV pool: nothing is counted twice, and nothing is forgotten. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { LiveRequest } from "../request.ts"
import { LIMITS, liveOf } from "../testing.ts"
import { KvAccount } from "./account.ts"
import { KvNeed } from "./need.ts"

const hashes = (family: number, blocks: number) => Array.from({ length: blocks }, (_, i) => family * 1000 + i)

/** 100 prompt tokens, of which six blocks have a hash. */
const request = (id: number, family: number, promptTokens = 100) =>
  liveOf(id, { promptTokens, prefix: hashes(family, Math.floor(promptTokens / LIMITS.blockTokens)) })

function accountOf(changes: Partial<typeof LIMITS> = {}) {
  const kv = new KvAccount({ ...LIMITS, kvTokens: 640, ...changes })
  const need = new KvNeed(kv)
  /** It computes its first `tokens` tokens, after what it shares. */
  const compute = (live: LiveRequest, tokens: number) => {
    if (!kv.holds(live.id)) {
      const match = kv.match(live.prefix, live.spec.promptTokens)
      live.computed = kv.attach(live.id, live.prefix, live.spec.session, match)
    }
    expect(kv.grow(live.id, tokens)).toBe(true)
    kv.computed(live.id, tokens)
    live.computed = tokens
  }
  return { kv, need, compute }
}

describe("KvNeed", () => {
  test("of a request that shares nothing is all of it, in whole blocks", () => {
    const { need } = accountOf()
    const alone = request(1, 1)
    expect(need.startOf(alone)).toBe(0)
    expect(need.newTokens(alone, 100)).toBe(112)
    expect(need.ownTokens(alone, 100)).toBe(112)
    expect(need.roomTokens(alone)).toBe(640)
  })

  test("what others hold as well is shared, before it begins and after", () => {
    const { need, compute } = accountOf()
    const [first, second] = [request(1, 1), request(2, 1)]
    compute(first, 100)
    expect(need.sharedTokens(first)).toBe(0)
    expect(need.sharedTokens(second)).toBe(96)
    compute(second, 100)
    expect([first, second].map((live) => need.sharedTokens(live))).toEqual([96, 96])
  })

  test("of one that holds KV is what its blocks do not hold yet", () => {
    const { need, compute } = accountOf()
    const running = request(1, 1)
    compute(running, 50)
    expect(need.newTokens(running, 64)).toBe(0)
    expect(need.newTokens(running, 65)).toBe(16)
    expect(need.ownTokens(running, 65)).toBe(80)
    expect(need.roomTokens(running)).toBe(640)
    expect(need.startOf(running)).toBe(50)
  })

  test("leaves out the prefix that a live request holds", () => {
    const { need, compute } = accountOf()
    compute(request(1, 1), 80)
    const sharer = request(2, 1)
    expect(need.startOf(sharer)).toBe(80)
    expect(need.newTokens(sharer, 100)).toBe(32)
    expect(need.ownTokens(sharer, 100)).toBe(32)
    // What is live already is part of what it could hold.
    expect(need.roomTokens(sharer)).toBe(640)
    const other = request(3, 3)
    expect(need.roomTokens(other)).toBe(560)
  })

  test("counts a prefix in full that only an ended request holds, though it need not be computed", () => {
    const { kv, need, compute } = accountOf()
    compute(request(1, 1), 80)
    kv.end(1)
    const sharer = request(2, 1)
    expect(need.startOf(sharer)).toBe(80)
    expect(need.newTokens(sharer, 100)).toBe(112)
    expect(need.roomTokens(sharer)).toBe(640)
  })

  test("leaves out only the live part of a prefix whose end is cached", () => {
    const { kv, need, compute } = accountOf()
    compute(request(1, 1), 96)
    const live = liveOf(2, { promptTokens: 40, prefix: hashes(1, 2) })
    compute(live, 40)
    kv.end(1)
    const sharer = request(3, 1)
    expect(need.startOf(sharer)).toBe(96)
    expect(need.newTokens(sharer, 100)).toBe(112 - 32)
  })

  test("leaves out nothing in a split pool, where a prefix is copied", () => {
    const { need, compute } = accountOf({ unifiedKv: false })
    compute(request(1, 1), 80)
    const sharer = request(2, 1)
    expect(need.startOf(sharer)).toBe(80)
    expect(need.newTokens(sharer, 100)).toBe(112)
    expect(need.roomTokens(sharer)).toBe(560)
    compute(sharer, 100)
    expect(need.ownTokens(sharer, 100)).toBe(112)
  })

  test("never shares the last token, which is computed to have an output", () => {
    const { need, compute } = accountOf()
    compute(request(1, 1, 96), 96)
    expect(need.startOf(request(2, 1, 96))).toBe(80)
    expect(need.startOf(request(3, 1, 97))).toBe(96)
  })

  test("all own tokens and the shared ones, once, are all that live requests hold; asked before, it is what is taken", () => {
    const step = fc.record({
      id: fc.integer({ min: 1, max: 6 }),
      tokens: fc.integer({ min: 1, max: 110 }),
      ends: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.boolean(), (steps, unifiedKv) => {
        const { kv, need, compute } = accountOf({ unifiedKv, kvTokens: 1024, maxSequences: 16 })
        const requests = new Map<number, LiveRequest>()
        let next = 100
        for (const { id: slot, tokens, ends } of steps) {
          const live = requests.get(slot) ?? request(next++, slot % 2, 110)
          requests.set(slot, live)
          const most = Math.max(tokens, need.startOf(live))
          const [newTokens, spare] = [need.newTokens(live, most), kv.spareTokens]
          const fits = most <= need.roomTokens(live)
          expect(newTokens <= spare).toBe(fits)
          if (!fits) continue
          compute(live, most)
          expect(spare - kv.spareTokens).toBe(newTokens)
          if (ends) {
            kv.end(live.id)
            requests.delete(slot)
          }
          let own = 0
          // What comes free when it ends where it stands.
          for (const other of requests.values())
            if (kv.holds(other.id)) own += need.ownTokens(other, other.computed)
          expect(own + kv.sharedTokens).toBe(kv.capacityTokens - kv.spareTokens)
          kv.check()
        }
      }),
      { numRuns: 200 },
    )
  })
})
