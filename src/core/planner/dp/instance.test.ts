/** Live requests as the paper's dynamic program sees them: tiers, prices, and which of them are kept. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../../cost.ts"
import { KvAccount } from "../../kv/account.ts"
import { Calibration } from "../../learn/calibration.ts"
import { OutputLengths } from "../../learn/output-lengths.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../../options.ts"
import type { LiveRequest } from "../../request.ts"
import { COST, contextOf, LIMITS, liveOf } from "../../testing.ts"
import { paperCost } from "./cost.ts"
import { Dp } from "./dp.ts"
import { planFor, solveFor, tierOf, tiersOf } from "./instance.ts"

const paced = (id: number, tpotUs: number, ttftUs = 1e9, changes: object = {}): LiveRequest => {
  const { slo } = liveOf(0).spec
  return liveOf(id, { slo: { ...slo, ttftUs, tpotUs }, ...changes })
}

describe("tiers", () => {
  test("are the TPOTs in use, the tightest first", () => {
    expect(tiersOf([50, 20, 50, 30].map((tpot, id) => paced(id, tpot)))).toEqual([20, 30, 50])
    const six = [60, 10, 50, 20, 40, 30]
    expect(tiersOf(six.map((tpot, id) => paced(id, tpot)))).toEqual([10, 20, 30, 40, 50, 60])
  })

  test("are six at most: a TPOT between two counts as the tighter one", () => {
    const twelve = Array.from({ length: 12 }, (_, id) => paced(id, 10 * (id + 1)))
    expect(tiersOf(twelve)).toEqual([10, 30, 50, 70, 90, 110])
    expect([10, 20, 30, 110, 120].map((tpot) => tierOf(tpot, [10, 30, 50, 70, 90, 110]))).toEqual([
      0, 0, 1, 5, 5,
    ])
  })
})

describe("prices", () => {
  const piece = {
    ...{ step: 1000, tokens: 10, sequences: 7, passes: 50, fastPairs: 0.1, slowPairs: 0.4 },
    ...{ outputs: 3, specSteps: 200 },
  }
  const cost: CostModel = { ...COST, pieces: [{ step: 5000 }, piece] }

  test("of a token, a draft step and an empty batch, as the mean context has them", () => {
    const { time } = paperCost(cost, 2, 100, 512)
    expect(time.maxTokens).toBe(512)
    expect(time.pieces).toEqual([
      { k1: 0, k2: 0, b: 10_000 },
      // The sure token is a step of the paper's, and none of the cost model's.
      { k1: (10 + 5) * 2, k2: 400, b: (1000 + 7 + 50 + 3) * 2 - 400 },
    ])
    const split = paperCost({ ...cost, unifiedKv: false }, 2, 100, 512).time.pieces[1]!
    expect(split.b).toBe((1000 + 7 + 2 * 50 + 3) * 2 - 400)
  })

  test("of a decode in tokens of prefill, one at least", () => {
    // 10 + 7 + 3 and 40 of attention, to 10 and 5.
    expect(paperCost(cost, 2, 100, 512).decodeWeight).toBeCloseTo(60 / 15)
    expect(paperCost(COST, 1, 100, 512).decodeWeight).toBe(1)
    expect(paperCost({ ...COST, pieces: [{ step: 5000 }] }, 1, 100, 512).decodeWeight).toBe(1)
    const cheap = { ...COST, pieces: [{ tokens: 10, fastPairs: 1 }] }
    expect(paperCost(cheap, 1, 100, 512).decodeWeight).toBe(1)
  })

  test("are scaled by calibration and margin, and follow what is known of each request", () => {
    const calibration = new Calibration()
    for (let i = 0; i < 400; i++) calibration.observe("mixed", 1000, 1500)
    const context = contextOf(LIMITS, {
      calibration,
      margin: 0.2,
      cost: { ...COST, pieces: [{ fastPairs: 2 }] },
    })
    const requests = [paced(1, 50, 1e9, { promptTokens: 100 }), paced(2, 50, 1e9, { promptTokens: 300 })]
    const { plan, acceptance } = planFor(requests, [50], context, DEFAULT_OPTIONS)
    // A mean context of 200 tokens: 200 for each, by 1.8.
    expect(plan.rate(0)).toBeCloseTo(1 / (200 * 1.8), 4)
    expect(acceptance).toBeCloseTo(0.7)
    const learnt = planFor(requests, [50], contextOf(LIMITS, { margin: null }), DEFAULT_OPTIONS)
    // 15%, as the profile scatters.
    expect(learnt.plan.rate(0)).toBeCloseTo(512 / (1.15 * (5000 + 51_200)), 4)
  })
})

describe("the most profitable set", () => {
  const options: PolicyOptions = { ...DEFAULT_OPTIONS, margin: 0 }
  /** Ids of the prompts that are kept beside these decodes; undefined where not even what must be kept can be. */
  function kept(
    prefills: LiveRequest[],
    {
      decodes = [] as LiveRequest[],
      must = [] as number[],
      nowUs = 0,
      limits = LIMITS,
      lengths = new OutputLengths(1),
      calibration = new Calibration(),
      kv = new KvAccount(limits),
    } = {},
  ): number[] | undefined {
    const context = contextOf(limits, { margin: 0, outputLengths: lengths, calibration, kv })
    const answer = solveFor(
      new Dp(),
      decodes,
      prefills,
      ({ id }) => must.includes(id),
      context,
      options,
      nowUs,
    )
    return answer?.steps.map(({ request }) => prefills[request]!.id).sort((a, b) => a - b)
  }
  const prompt = (id: number, promptTokens: number, ttftMs: number, changes: object = {}) =>
    paced(id, 1e6, ttftMs * 1000, { promptTokens, ...changes })

  test("is as many as are in time, by their worth", () => {
    // 100 tokens take 15 ms alone, 300 take 35, both 45.
    expect(kept([prompt(1, 100, 46), prompt(2, 300, 46)])).toEqual([1, 2])
    expect(kept([prompt(1, 100, 36), prompt(2, 300, 36)])).toHaveLength(1)
    expect(kept([prompt(1, 100, 36), prompt(2, 300, 36, { worth: 3 })])).toEqual([2])
    expect(kept([prompt(1, 100, 36, { worth: 3 }), prompt(2, 300, 36)])).toEqual([1])
    expect(kept([prompt(1, 100, 46)], { nowUs: 40_000 })).toEqual([])
  })

  test("holds what must be kept, even what is late: that is due as soon as it can be done", () => {
    const both = [prompt(1, 100, 36, { worth: 3 }), prompt(2, 300, 36)]
    expect(kept(both)).toEqual([1])
    expect(kept(both, { must: [2] })).toContain(2)
    expect(kept([prompt(1, 300, 10)], { must: [1] })).toEqual([1])
    expect(kept([prompt(1, 300, 10)])).toEqual([])
  })

  test("has what is late due in twice the time that its rest takes, be the machine slower than its profile", () => {
    const late = () => Object.assign(prompt(1, 300, 5), { computed: 200 })
    // Due in 30 ms: 15 for its rest, and 14 more.
    expect(kept([late(), prompt(2, 100, 29)], { must: [1] })).toEqual([1, 2])
    expect(kept([late(), prompt(2, 300, 36)], { must: [1] })).toEqual([1])
    expect(kept([late(), prompt(2, 300, 52)], { must: [1] })).toEqual([1, 2])
    const calibration = new Calibration()
    for (let i = 0; i < 2000; i++) calibration.observe("mixed", 1000, 1500)
    // 22.5 ms for its rest, due in 45.
    expect(kept([late()], { must: [1], calibration })).toEqual([1])
    expect(kept([late(), prompt(2, 100, 44)], { must: [1], calibration })).toEqual([1, 2])
  })

  test("takes KV of what others hold of a prompt once", () => {
    const limits = { ...LIMITS, kvTokens: 1024 }
    const prefix = Array.from({ length: 30 }, (_, i) => i + 1)
    const both = (of: readonly number[]) => {
      const kv = new KvAccount(limits)
      kv.attach(9, prefix, -1, null)
      kv.grow(9, 500)
      kv.computed(9, 500)
      const decode = Object.assign(prompt(9, 500, 1, { prefix }), { output: 1, computed: 500 })
      const prompts = [1, 2].map((id) => prompt(id, 500, 1000, { prefix: of }))
      return kept(prompts, { limits, decodes: [decode], kv })
    }
    // 480 of 500 tokens are the decode's as well; each has 50 to come.
    expect(both(prefix)).toEqual([1, 2])
    expect(both([])).toEqual([])
  })

  test("needs only the rest of what was begun", () => {
    const begun = prompt(1, 300, 20)
    begun.computed = 200
    expect(kept([begun])).toEqual([1])
  })

  test("can be held, each to its end: what runs and what must be kept takes its share first", () => {
    const limits = { ...LIMITS, kvTokens: 1024 }
    // 300 tokens of prompt and 50 of output each.
    const three = [1, 2, 3].map((id) => prompt(id, 300, 1000))
    expect(kept(three, { limits })).toHaveLength(2)
    expect(kept(three, { limits, must: [3] })).toContain(3)
    expect(kept(three, { limits, must: [3] })).toHaveLength(2)
    const decode = Object.assign(prompt(9, 600, 1), { output: 1, computed: 600 })
    expect(kept(three, { limits, decodes: [decode] })).toHaveLength(1)
    // 1.5% are kept free: 1,008 of 1,024 tokens.
    expect(kept([prompt(1, 958, 1000)], { limits })).toEqual([1])
    expect(kept([prompt(1, 959, 1000)], { limits })).toEqual([])
  })

  test("leaves room for the decodes beside it", () => {
    const decodes = Array.from({ length: 5 }, (_, i) =>
      Object.assign(paced(10 + i, 6_000), { output: 1, computed: 100 }),
    )
    // Batches of 6 ms have ten tokens, five of them the decodes'.
    const beside = (ttftMs: number) => kept([prompt(1, 50, ttftMs)], { decodes })
    expect(beside(50)).toEqual([])
    expect(beside(70)).toEqual([1])
  })
})

test("a plan says how many tokens the decodes of each TPOT verify", () => {
  const cost = { ...COST, pieces: [{ step: 20_000, tokens: 10, specSteps: 1 }] }
  const context = contextOf(LIMITS, { margin: 0, cost })
  const decode = Object.assign(paced(1, 15_000), { output: 1, computed: 100 })
  const lengths = (speculation: "on" | "off", decodes = [decode], prefills: LiveRequest[] = []) => {
    const given = { ...DEFAULT_OPTIONS, speculation }
    return solveFor(new Dp(), decodes, prefills, () => false, context, given, 0)?.lengths()
  }
  // A pace that only drafts can keep.
  expect(lengths("on")!.get(15_000)).toBeGreaterThan(1)
  expect(lengths("off")?.get(15_000) ?? 1).toBe(1)
  // Beside a prompt as well; a prompt that is the first of its kind will need them, too.
  const prompt = paced(2, 15_000, 1_000_000)
  expect(lengths("on", [decode], [prompt])!.get(15_000)).toBeGreaterThan(1)
  expect(lengths("on", [], [prompt])!.get(15_000)).toBeGreaterThan(1)
  // In its first batch none of another pace runs yet.
  const other = paced(3, 16_000, 1_000_000, { promptTokens: 900 })
  const first = lengths("on", [decode], [other])!
  expect(first.get(15_000)).toBeGreaterThan(1)
  expect(first.get(16_000)).toBe(1)
  expect(lengths("on", [], [])).toEqual(new Map())
  expect(lengths("on", [], [paced(2, 1e6, 1_000_000)])!.get(1e6)).toBeGreaterThanOrEqual(1)
})
