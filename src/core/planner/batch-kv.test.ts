/** What KV a batch under construction takes, and what it gives up for that. */
import { describe, expect, test } from "vitest"
import { LIMITS, liveOf } from "../testing.ts"
import { batchOf, begun, SMALL } from "./batch-testing.ts"

describe("a sequence", () => {
  const limits = { ...LIMITS, maxSequences: 2, minChunkTokens: 1 }

  test("is taken from the last spare request where none is free", () => {
    const batch = batchOf(limits)
    const { context } = batch
    const [first, second] = [begun(context, 1, 50), begun(context, 2, 50)]
    expect(batch.prefill(liveOf(3), 10)).toBe(0)
    expect(batch.prefill(liveOf(3), 10, [])).toBe(0)
    const nothing = [liveOf(8), liveOf(9)]
    // Asked twice, and another list after one that had nothing.
    expect([batch.prefill(liveOf(3), 10, nothing), batch.prefill(liveOf(4), 10, nothing)]).toEqual([0, 0])
    expect(batch.prefill(liveOf(3), 10, [first, second])).toBe(10)
    expect([context.kv.holds(1), context.kv.holds(2)]).toEqual([true, false])
    // Those that have one need none.
    expect(batch.prefill(first, 10, nothing)).toBe(10)
  })

  test("of a list that had none, none is looked for again in this batch, but in the next", () => {
    const batch = batchOf(limits)
    const { context } = batch
    const held = [begun(context, 1, 50), begun(context, 2, 50)]
    const spare = [liveOf(3)]
    expect(batch.prefill(liveOf(4), 10, spare)).toBe(0)
    batch.reset()
    context.kv.drop(2)
    spare[0] = begun(context, 3, 50)
    expect(batch.prefill(liveOf(4), 10, spare)).toBe(10)
    expect(context.kv.holds(held[0]!.id)).toBe(true)
    expect(context.kv.holds(3)).toBe(false)
  })

  test("is not kept by what found no KV for a token", () => {
    const batch = batchOf({ ...SMALL, kvTokens: 128 })
    const { context } = batch
    begun(context, 1, 128)
    const request = liveOf(2)
    expect(batch.prefill(request, 10)).toBe(0)
    expect([context.kv.holds(2), request.computed, request.cachedTokens]).toEqual([false, 0, 0])
    expect(batch.items).toEqual([])
  })
})

describe("a chunk takes KV of others", () => {
  const given = (promptTokens: number) => {
    const batch = batchOf(SMALL)
    const request = begun(batch.context, 1, 128, { promptTokens })
    return { batch, request, other: begun(batch.context, 2, 48) }
  }

  test("only where it does not fit beside them: 80 tokens do", () => {
    for (const [promptTokens, stays] of [
      [208, true],
      [209, false],
    ] as const) {
      const { batch, request, other } = given(promptTokens)
      expect(batch.prefill(request, 200, [other])).toBe(promptTokens - 128)
      expect(batch.context.kv.holds(2)).toBe(stays)
    }
  })

  test("where it may; else it is as long as fits", () => {
    const { batch, request } = given(220)
    expect(batch.prefill(request, 200)).toBe(80)
    expect(batch.items).toMatchObject([{ position: 128, tokens: 80, sample: false }])
  })

  test("and none for no token", () => {
    const batch = batchOf({ ...LIMITS, maxSequences: 1 })
    const other = begun(batch.context, 1, 48)
    expect(batch.prefill(liveOf(2), 0, [other])).toBe(0)
    expect(batch.context.kv.holds(1)).toBe(true)
  })
})

describe("what others hold of a prompt", () => {
  const prefix = [1, 2, 3, 4, 5, 6]

  test.each([true, false])("is not computed again (one pool: %s)", (unifiedKv) => {
    const batch = batchOf({ ...LIMITS, unifiedKv, minChunkTokens: 1 })
    begun(batch.context, 1, 48, { prefix })
    const request = liveOf(2, { prefix })
    expect(batch.prefill(request, 500)).toBe(52)
    const copy = { from: 1, tokens: 48 }
    expect(batch.items).toEqual([{ id: 2, position: 48, tokens: 52, sample: true, draft: 0, copy }])
    expect([request.computed, request.cachedTokens]).toEqual([48, 48])
  })

  test("is none where none holds any", () => {
    const batch = batchOf()
    const request = liveOf(2, { prefix })
    batch.prefill(request, 500)
    expect(batch.items).toEqual([{ id: 2, position: 0, tokens: 100, sample: true, draft: 0 }])
    expect(request.cachedTokens).toBe(0)
  })

  test("counts as cached when it first runs, not when it lost its KV since", () => {
    const batch = batchOf()
    begun(batch.context, 1, 48, { prefix })
    const again = Object.assign(liveOf(2, { prefix }), { startedUs: 0, cachedTokens: 16 })
    batch.prefill(again, 500)
    expect([again.computed, again.cachedTokens]).toEqual([48, 16])
  })

  test("leads to nothing kept where the rest finds no room", () => {
    const batch = batchOf({ ...SMALL, kvTokens: 128 })
    const { context } = batch
    begun(context, 1, 48, { prefix })
    begun(context, 3, 80)
    const request = liveOf(2, { prefix })
    expect(batch.prefill(request, 500)).toBe(0)
    expect([context.kv.holds(2), request.computed, request.cachedTokens]).toEqual([false, 0, 0])
    // What was cached when it first ran stays true.
    const again = Object.assign(liveOf(4, { prefix }), { startedUs: 0, cachedTokens: 16 })
    expect(batch.prefill(again, 500)).toBe(0)
    expect([again.computed, again.cachedTokens]).toEqual([0, 16])
  })
})
