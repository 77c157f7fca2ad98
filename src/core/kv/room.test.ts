/** What requests would newly take of the KV. Blocks of 16 tokens. */
import { describe, expect, test } from "vitest"
import { LIMITS, liveOf } from "../testing.ts"
import { KvAccount } from "./account.ts"
import { KvNeed } from "./need.ts"

const prefix = [1, 2, 3, 4]
/** Request 1 holds four full blocks, 64 tokens, that request 2 has, too. */
function shared(limits = LIMITS) {
  const kv = new KvAccount(limits)
  kv.attach(1, prefix, -1, null)
  kv.grow(1, 64)
  kv.computed(1, 64)
  return { kv, need: new KvNeed(kv), request: liveOf(2, { promptTokens: 100, prefix }) }
}

describe("a request that holds nothing yet", () => {
  test("starts after what it can share, and takes no room for what live requests hold", () => {
    const { need, request } = shared()
    expect(need.startOf(request)).toBe(64)
    expect(need.newTokens(request, 100)).toBe(112 - 64)
    expect(need.newTokens(request, 30)).toBe(0)
    expect(need.ownTokens(request, 100)).toBe(112 - 64)
    expect(need.roomTokens(request)).toBe(4096)
  })

  test("takes room for what only the cache holds, though it starts after it", () => {
    const { kv, need, request } = shared()
    kv.end(1)
    expect(need.startOf(request)).toBe(64)
    expect(need.newTokens(request, 100)).toBe(112)
    expect(need.roomTokens(request)).toBe(4096)
  })

  test("takes room for a copy where the pool is split", () => {
    const { need, request } = shared({ ...LIMITS, unifiedKv: false })
    expect(need.startOf(request)).toBe(64)
    expect(need.newTokens(request, 100)).toBe(112)
    expect(need.roomTokens(request)).toBe(4096 - 64)
  })

  test("without a prefix starts at its first token", () => {
    const { need } = shared()
    const request = liveOf(3, { promptTokens: 100 })
    expect(need.startOf(request)).toBe(0)
    expect(need.newTokens(request, 16)).toBe(16)
    expect(need.newTokens(request, 17)).toBe(32)
    expect(need.roomTokens(request)).toBe(4096 - 64)
  })

  test("sees what has come to be shared since it was asked last, and what is gone", () => {
    const { kv, need } = shared()
    const request = liveOf(2, { promptTokens: 200, prefix: [...prefix, 5, 6] })
    expect(need.startOf(request)).toBe(64)
    kv.attach(4, [...prefix, 5, 6], -1, kv.match(prefix, 65))
    kv.grow(4, 96)
    kv.computed(4, 96)
    expect(need.startOf(request)).toBe(96)
    kv.drop(4)
    expect(need.startOf(request)).toBe(64)
  })
})

describe("a request that holds KV", () => {
  test("starts where it is, needs what goes beyond its blocks, and would leave only what is its own", () => {
    const { kv, need, request } = shared()
    kv.attach(2, prefix, -1, kv.match(prefix, 100))
    kv.grow(2, 70)
    request.computed = 70
    expect(need.startOf(request)).toBe(70)
    expect(need.newTokens(request, 80)).toBe(0)
    expect(need.newTokens(request, 100)).toBe(32)
    expect(need.ownTokens(request, 80)).toBe(16)
    expect(need.ownTokens(request, 100)).toBe(48)
    // All but the block that it alone has.
    expect(need.roomTokens(request)).toBe(4096)
    expect(need.roomTokens(liveOf(9))).toBe(4096 - 80)
  })

  test("starts where it is, even if that is at the beginning", () => {
    const { kv, need, request } = shared()
    kv.attach(2, prefix, -1, null)
    expect(need.startOf(request)).toBe(0)
    expect(need.newTokens(request, 100)).toBe(112)
  })
})
