/** The batch under construction: what finds a place in it, and how long it is thought to take. */
import { describe, expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "../cost.ts"
import { Calibration, type StepKind } from "../learn/calibration.ts"
import type { LiveRequest } from "../request.ts"
import { COST, LIMITS, liveOf } from "../testing.ts"
import { batchOf, begun, decoding, SMALL } from "./batch-testing.ts"

describe("a batch is thought to take as long as its kind of step", () => {
  const piece = { step: 5000, tokens: 100, outputs: 30, specSteps: 700 }
  const cost: CostModel = { ...COST, pieces: [piece] }
  const calibration = new Calibration()
  // Steps of each kind that differ from the model, and scatter, by amounts of their own.
  for (let i = 0; i < 2000; i++) {
    calibration.observe("drafted", 1000, i % 2 ? 1250 : 1150)
    calibration.observe("decode", 1000, i % 2 ? 2000 : 1980)
    calibration.observe("mixed", 1000, i % 2 ? 1600 : 1400)
  }
  const FAR_US = 1e12

  function given(inBatch: "nothing" | "decode" | "draft" | "chunk") {
    const batch = batchOf(LIMITS, { cost, calibration, margin: null })
    batch.reset(FAR_US)
    if (inBatch === "chunk") batch.prefill(liveOf(1), 90)
    else if (inBatch !== "nothing") batch.decode(decoding(batch.context, 1), [], inBatch === "draft" ? 2 : 0)
    expect(batch.items).toHaveLength(inBatch === "nothing" ? 0 : 1)
    return batch
  }
  const more = { position: 40, tokens: 0, sample: false, draft: 0 }
  const one = { ...more, tokens: 1 }

  test("the kinds differ", () => {
    const ratios = (["decode", "mixed", "drafted"] as const).map((kind) => calibration.ratio(kind))
    const margins = (["decode", "mixed", "drafted"] as const).map((kind) => calibration.margin(kind))
    for (const all of [ratios, margins]) expect(new Set(all.map((n) => n.toFixed(2))).size).toBe(3)
  })

  test.each<[Parameters<typeof given>[0], typeof more, StepKind]>([
    ["decode", more, "decode"],
    ["draft", more, "drafted"],
    ["chunk", more, "mixed"],
    ["nothing", one, "decode"],
    ["nothing", { ...one, tokens: 2 }, "mixed"],
    ["nothing", { ...one, sample: true, draft: 3 }, "drafted"],
    ["decode", { ...one, sample: true }, "decode"],
    ["decode", { ...one, tokens: 2 }, "mixed"],
    ["decode", { ...one, sample: true, draft: 1 }, "drafted"],
    ["draft", one, "drafted"],
    ["draft", { ...one, tokens: 2 }, "mixed"],
    ["chunk", { ...one, sample: true }, "mixed"],
    ["chunk", { ...one, sample: true, draft: 2 }, "mixed"],
  ])("%s and %o is %s", (inBatch, added, kind) => {
    const batch = given(inBatch)
    const { position, tokens, draft } = added
    const rows = added.sample ? 1 : 0
    const modelUs = stepUs(cost, shapeOf([...batch.items, ...(tokens > 0 ? [added] : [])], cost))
    const expected = modelUs * calibration.ratio(kind)
    expect(batch.timeUs(position, tokens, rows, draft)).toBeCloseTo(expected)
    expect(batch.safeUs(position, tokens, rows, draft)).toBeCloseTo(expected * (1 + calibration.margin(kind)))
    if (tokens > 0) return
    expect(batch.kind).toBe(kind)
    expect([batch.timeUs(), batch.safeUs(), stepUs(cost, batch.shape())]).toEqual([
      expected,
      expected * (1 + calibration.margin(kind)),
      modelUs,
    ])
  })

  test("and as the machine is just now, when it begins", () => {
    const slow = new Calibration()
    for (let i = 0; i < 400; i++) slow.observe("mixed", 1000, i % 20 < 10 ? 1000 : 1500, i * 2000)
    const batch = batchOf(LIMITS, { calibration: slow })
    batch.reset(800_000)
    const now = batch.timeUs(0, 100)
    batch.reset(FAR_US)
    expect(now / batch.timeUs(0, 100)).toBeCloseTo(slow.momentary(800_000))
    expect(now / batch.timeUs(0, 100)).toBeGreaterThan(1.1)
  })

  test("it is full where no token more fits, be it timed as a decode or as a prompt", () => {
    const batch = given("nothing")
    const [decode, chunk] = [batch.safeUs(0, 1), batch.safeUs(0, 2)]
    expect(chunk).toBeLessThan(decode)
    expect(batch.isFull(chunk)).toBe(false)
    expect(batch.isFull(chunk - 0.01)).toBe(true)
    batch.prefill(liveOf(1), 100)
    expect(batch.isFull(chunk)).toBe(true)
    expect(batch.isFull(batch.safeUs(0, 1))).toBe(false)
    batch.reset(FAR_US)
    expect(batch.isFull(chunk)).toBe(false)
    expect(batch.isFull(chunk - 0.01)).toBe(true)
  })
})

describe("a decode", () => {
  test("is one token at its position", () => {
    const batch = batchOf()
    const request = decoding(batch.context, 1)
    expect(batch.decode(request)).toBe(true)
    expect(batch.items).toEqual([{ id: 1, position: 100, tokens: 1, sample: true, draft: 0 }])
    expect(batch.requests).toEqual([request])
    expect([batch.tokens, batch.chunks, batch.has(request)]).toEqual([1, 0, true])
    expect(() => batch.decode(request)).toThrow("already in the batch")
  })

  test("is none of a prompt, nor of what lost its KV", () => {
    const batch = batchOf()
    expect(batch.decode(liveOf(1))).toBe(false)
    expect(batch.decode(begun(batch.context, 2, 99))).toBe(false)
    expect(batch.decode(Object.assign(liveOf(3), { output: 1 }))).toBe(false)
    expect(batch.items).toEqual([])
  })

  test("finds no place in a full batch, with a block begun or not", () => {
    const batch = batchOf({ ...LIMITS, maxBatchTokens: 2 })
    for (const [id, tokens] of [
      [1, 96],
      [2, 100],
    ] as const)
      expect(batch.decode(decoding(batch.context, id, tokens))).toBe(true)
    expect(batch.decode(decoding(batch.context, 3, 100))).toBe(false)
    expect(batch.decode(decoding(batch.context, 4, 96))).toBe(false)
    expect(batch.tokensLeft).toBe(0)
  })

  test("takes a block when its last one is full, of the last spare request if there is none", () => {
    const preempted: LiveRequest[] = []
    const actions = {
      ...{ demoted() {}, promoted() {}, admitted() {} },
      preempted: (request: LiveRequest) => void preempted.push(request),
    }
    const batch = batchOf(SMALL, { actions })
    const { context } = batch
    const full = decoding(context, 1, 128)
    const spare = [begun(context, 2, 48), begun(context, 3, 48), begun(context, 4, 32)]
    expect(context.kv.spareTokens).toBe(0)
    expect(batch.decode(full)).toBe(false)
    expect(batch.decode(full, [full])).toBe(false)
    expect(preempted).toEqual([])
    expect(batch.decode(full, spare)).toBe(true)
    expect(preempted).toEqual([spare[2]])
    expect([spare[2]!.computed, spare[2]!.preemptions]).toEqual([0, 1])
    expect(context.kv.heldTokens(1)).toBe(144)
    // It did hold KV until this batch took it.
    expect(spare.map((request) => batch.held(request))).toEqual([true, true, true])
    expect(batch.held(liveOf(9))).toBe(false)
    batch.reset()
    expect(spare.map((request) => batch.held(request))).toEqual([true, true, false])
  })

  test("takes nothing from what is in the batch", () => {
    const batch = batchOf(SMALL)
    const { context } = batch
    const full = decoding(context, 1, 128)
    const first = begun(context, 2, 48)
    const other = decoding(context, 3, 75)
    expect(batch.decode(other)).toBe(true)
    expect(batch.decode(full, [first, other])).toBe(true)
    expect(context.kv.holds(2)).toBe(false)
    expect(context.kv.holds(3)).toBe(true)
  })

  test("needs no block within the one that it has begun, to its last token", () => {
    const batch = batchOf(SMALL)
    const [one, two] = [decoding(batch.context, 1, 127), decoding(batch.context, 2, 127)]
    expect(batch.context.kv.spareTokens).toBe(0)
    expect([batch.decode(one), batch.decode(two)]).toEqual([true, true])
  })
})

describe("a decode drafts as many tokens as it is asked to, at most", () => {
  const drafted = (changes: Partial<typeof LIMITS>, maxOutputTokens = 50, others = 0, promptTokens = 100) => {
    const batch = batchOf({ ...SMALL, kvTokens: 4096, ...changes })
    for (let id = 2; id < 2 + others; id++) begun(batch.context, id, 16)
    const request = decoding(batch.context, 1, promptTokens, { maxOutputTokens })
    expect(batch.decode(request, [], 6)).toBe(true)
    const [item] = batch.items
    expect(batch.tokens).toBe(1 + item!.draft)
    // Room for the token and its drafts, and no more.
    expect(batch.context.kv.heldTokens(1)).toBe(Math.ceil((promptTokens + 1 + item!.draft) / 16) * 16)
    return item!.draft
  }

  test("all of them where there is room", () => {
    expect(drafted({})).toBe(6)
    // These need a block more.
    expect(drafted({}, 50, 0, 108)).toBe(6)
  })

  test("what it may still produce after the sure one", () => {
    expect([8, 7, 3, 2, 1].map((most) => drafted({}, most))).toEqual([6, 5, 1, 0, 0])
  })

  test("what the batch has room for beside the sure one", () => {
    expect([7, 6, 1].map((maxBatchTokens) => drafted({ maxBatchTokens }))).toEqual([6, 5, 0])
  })

  test("what KV has room for, with a block left for each that is still to come", () => {
    // 112 tokens hold 101 known ones and eleven more.
    expect(drafted({ kvTokens: 112 })).toBe(6)
    expect(drafted({ kvTokens: 112 + 16 }, 50, 1)).toBe(0)
    expect(drafted({ kvTokens: 112 + 32 }, 50, 1)).toBe(6)
    expect(drafted({ kvTokens: 112 + 48 }, 50, 2)).toBe(0)
    expect(drafted({ kvTokens: 112 + 64 }, 50, 2)).toBe(6)
  })

  test("and those in the batch already need no more", () => {
    const batch = batchOf({ ...SMALL, kvTokens: 224 })
    const requests = [decoding(batch.context, 1), decoding(batch.context, 2)]
    for (const request of requests) batch.decode(request, [], 11)
    // The first leaves a block of its own unasked for to the second.
    expect(batch.items.map(({ draft }) => draft)).toEqual([0, 11])
  })
})

describe("a chunk leaves no slow short piece: at least 64 tokens, or all", () => {
  const chunk = (owed: number, most: number, changes: object = {}, decodeFirst = false) => {
    const batch = batchOf({ ...LIMITS, ...changes })
    if (decodeFirst) batch.decode(decoding(batch.context, 9))
    const tokens = batch.prefill(liveOf(1, { promptTokens: owed }), most)
    const item = batch.items.find(({ id }) => id === 1)
    expect(item).toEqual(
      tokens > 0 ? { id: 1, position: 0, tokens, sample: tokens === owed, draft: 0 } : undefined,
    )
    // What came to nothing holds nothing.
    expect(batch.context.kv.holds(1)).toBe(tokens > 0)
    expect(batch.chunks).toBe(tokens > 1 ? 1 : 0)
    return tokens
  }

  test.each([
    [200, 63, 0],
    [200, 64, 64],
    [200, 136, 136],
    [200, 137, 136],
    [200, 199, 136],
    [200, 200, 200],
    [200, 500, 200],
    [128, 127, 64],
    [127, 100, 100],
    [50, 49, 0],
    [50, 50, 50],
  ])("of %i owed, %i asked for: %i", (owed, most, expected) => expect(chunk(owed, most)).toBe(expected))

  test("no more than the batch has room for", () => {
    expect(chunk(200, 200, { maxBatchTokens: 150 })).toBe(136)
    expect(chunk(200, 200, { maxBatchTokens: 63 })).toBe(0)
  })

  test("in a split pool one more beside decodes, which take the first with them", () => {
    const split = { unifiedKv: false }
    expect([64, 65].map((most) => chunk(200, most, split, true))).toEqual([0, 65])
    expect([64, 65].map((most) => chunk(200, most, split, false))).toEqual([64, 65])
    expect([64, 65].map((most) => chunk(200, most, {}, true))).toEqual([64, 65])
    // Where any length will do, so does any beside decodes.
    expect([1, 2].map((most) => chunk(200, most, { ...split, minChunkTokens: 1 }, true))).toEqual([1, 2])
    expect([1, 2].map((most) => chunk(200, most, { ...split, minChunkTokens: 2 }, true))).toEqual([0, 0])
    expect(chunk(200, 3, { ...split, minChunkTokens: 2 }, true)).toBe(3)
  })

  test("no more than KV has room for, cut to a whole chunk", () => {
    expect(chunk(200, 200, { kvTokens: 192 })).toBe(136)
    expect(chunk(200, 200, { kvTokens: 208 })).toBe(200)
    expect(chunk(200, 200, { kvTokens: 48 })).toBe(0)
  })
})

describe("a prompt within a limit", () => {
  const outputs = { ...COST, pieces: [{ step: 5000, tokens: 100, outputs: 50 }] }
  /** How many tokens of 300 it gets, a step of 5 ms and 0.1 ms each. */
  function within(limitUs: number, changes: object = {}, tokens?: number, parts: object = {}) {
    const batch = batchOf({ ...LIMITS, ...changes }, parts)
    return batch.prefillWithin(liveOf(1, { promptTokens: 300 }), limitUs, undefined, tokens)
  }

  test("gets all that ends in time, to the token", () => {
    expect([11_399, 11_400, 11_499, 11_500].map((us) => within(us))).toEqual([0, 64, 64, 65])
    expect([34_999, 35_000, 90_000].map((us) => within(us))).toEqual([236, 300, 300])
    expect(within(35_000, {}, 299)).toBe(236)
    expect(within(35_000, {}, 64)).toBe(64)
  })

  test("and its margin", () => {
    expect([41_999, 42_000].map((us) => within(us, {}, undefined, { margin: 0.2 }))).toEqual([236, 300])
  })

  test("its last token counts as an output, and no other", () => {
    const parts = { cost: outputs }
    expect([35_049, 35_050].map((us) => within(us, { minChunkTokens: 1 }, undefined, parts))).toEqual([
      299, 300,
    ])
    expect(within(34_900, { minChunkTokens: 1 }, undefined, parts)).toBe(299)
    expect(within(34_899, { minChunkTokens: 1 }, undefined, parts)).toBe(298)
  })

  test("no more than the batch has room for, nor less than a chunk", () => {
    expect(within(90_000, { maxBatchTokens: 200 })).toBe(200)
    expect(within(90_000, { maxBatchTokens: 63 })).toBe(0)
    expect(within(90_000, { maxBatchTokens: 64 })).toBe(64)
  })

  test("no more than KV has room for, without any that it may take", () => {
    expect([48, 64, 80, 304].map((kvTokens) => within(90_000, { kvTokens }))).toEqual([0, 64, 80, 300])
  })

  test("counts from what it has", () => {
    const batch = batchOf(LIMITS, { cost: outputs })
    const request = begun(batch.context, 1, 250, { promptTokens: 300 })
    expect(batch.prefillWithin(request, 10_049)).toBe(0)
    expect(batch.prefillWithin(request, 10_050)).toBe(50)
    expect(batch.context.kv.heldTokens(1)).toBe(304)
    expect(batch.items).toEqual([{ id: 1, position: 250, tokens: 50, sample: true, draft: 0 }])
  })

  test("gets nothing where it has all the room that there is, unless others give way", () => {
    const batch = batchOf(SMALL)
    const { context } = batch
    const request = begun(context, 1, 128, { promptTokens: 200 })
    const other = begun(context, 2, 128)
    expect(batch.prefillWithin(request, 90_000)).toBe(0)
    expect(context.kv.holds(2)).toBe(true)
    expect(batch.prefillWithin(request, 90_000, [other])).toBe(72)
    expect(context.kv.holds(2)).toBe(false)
  })
})

test("the next batch begins with nothing, and leaves the last one as it was", () => {
  const batch = batchOf()
  batch.prefill(liveOf(1), 100)
  const { items, requests } = batch
  batch.reset()
  expect([batch.items, batch.requests, batch.tokens, batch.chunks]).toEqual([[], [], 0, 0])
  expect(items).toHaveLength(1)
  expect(requests).toHaveLength(1)
  expect(batch.has(requests[0]!)).toBe(false)
})
