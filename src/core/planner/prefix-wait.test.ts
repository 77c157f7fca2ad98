/** Which request waits for which, and for how much. */
import { describe, expect, test } from "vitest"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { PrefixWait } from "./prefix-wait.ts"

const BLOCK = LIMITS.blockTokens

/** A prompt of blocks with these hashes and five tokens more, of which some are computed. */
function request(id: number, prefix: readonly number[], computed = 0): LiveRequest {
  const live = liveOf(id, { promptTokens: prefix.length * BLOCK + 5, prefix })
  live.computed = computed
  return live
}

function waitOf(...computing: LiveRequest[]): PrefixWait {
  const wait = new PrefixWait()
  wait.begin(computing)
  return wait
}

describe("PrefixWait", () => {
  const context = contextOf()

  test("one that begins like a prompt under way waits for what both begin with", () => {
    const by = request(1, [1, 2, 3], BLOCK)
    expect(waitOf(by).for(request(2, [1, 2, 4]), context)).toEqual({ by, tokens: 2 * BLOCK })
  })

  test("one that begins otherwise, has begun itself, or has nothing to share does not", () => {
    const wait = waitOf(request(1, [1, 2, 3], BLOCK))
    expect(wait.for(request(2, [9, 2, 3]), context)).toBeNull()
    for (const computed of [1, BLOCK]) expect(wait.for(request(3, [1, 2, 3], computed), context)).toBeNull()
    expect(wait.for(request(4, []), context)).toBeNull()
  })

  test("no request waits for itself, for one that has not begun, or for one that decodes", () => {
    const first = request(1, [1, 2])
    expect(waitOf(first).for(request(2, [1, 2]), context)).toBeNull()
    const wait = new PrefixWait()
    wait.started(first)
    expect(wait.for(first, context)).toBeNull()
    const decoding = request(3, [1, 2], 2 * BLOCK + 5)
    decoding.emit(1, -1, 0, () => {})
    expect(decoding.decoding).toBe(true)
    expect(waitOf(decoding).for(request(4, [1, 2]), context)).toBeNull()
  })

  test("one that starts in this batch is waited for from then on, and forgotten with the next", () => {
    const [first, second] = [request(1, [1, 2]), request(2, [1, 2])]
    const wait = waitOf(first)
    wait.started(first)
    wait.started(first)
    expect(wait.for(second, context)).toEqual({ by: first, tokens: 2 * BLOCK })
    wait.begin([], [])
    expect(wait.for(second, context)).toBeNull()
  })

  test("of several lists each may have a prompt under way", () => {
    const wait = new PrefixWait()
    const late = request(2, [7, 8], 3)
    wait.begin([request(1, [1, 2], 3)], [late])
    expect(wait.for(request(3, [7, 8]), context)?.by).toBe(late)
  })

  test("what is computed already is not waited for: the rest of its block is of no use", () => {
    const wait = waitOf(request(1, [1, 2, 3], 2 * BLOCK))
    expect(wait.for(request(2, [1, 2, 4]), context)).toBeNull()
    expect(waitOf(request(1, [1, 2, 3], 2 * BLOCK - 1)).for(request(2, [1, 2, 4]), context)).not.toBeNull()
  })

  test("a prompt that ends with the common block has its last token to compute: it waits for the blocks before", () => {
    const by = request(1, [1, 2, 3], 3)
    const ends = liveOf(2, { promptTokens: 2 * BLOCK, prefix: [1, 2] })
    expect(waitOf(by).for(ends, context)).toEqual({ by, tokens: BLOCK })
    const short = liveOf(3, { promptTokens: BLOCK, prefix: [1] })
    expect(waitOf(by).for(short, context)).toBeNull()
  })

  test("what is in place for all is not waited for, only what follows", () => {
    const shared = contextOf()
    const { kv } = shared
    kv.attach(9, [1], -1, null)
    kv.grow(9, BLOCK)
    kv.computed(9, BLOCK)
    const by = request(1, [1, 2, 3], BLOCK)
    expect(waitOf(by).for(request(2, [1, 2, 3]), shared)).toEqual({ by, tokens: 3 * BLOCK })
    // All that it could wait for is its last block, whose last token it computes itself.
    const ends = liveOf(4, { promptTokens: 2 * BLOCK, prefix: [1, 2] })
    expect(waitOf(request(5, [1, 2, 3], 3)).for(ends, shared)).toBeNull()
    // They go separate ways right after it.
    expect(waitOf(by).for(request(3, [1, 4]), shared)).toBeNull()
  })
})
