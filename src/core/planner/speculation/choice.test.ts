/** When the choice of speculation lengths is made anew, and when it is changed. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../../cost.ts"
import { Acceptance } from "../../learn/acceptance.ts"
import { Calibration } from "../../learn/calibration.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../../options.ts"
import type { EngineLimits } from "../../protocol.ts"
import type { LiveRequest } from "../../request.ts"
import { contextOf, LIMITS, liveOf } from "../../testing.ts"
import type { PlanningParts } from "../context.ts"
import { type DecodesAndWaiting, Speculator } from "./speculator.ts"

const on: PolicyOptions = { ...DEFAULT_OPTIONS, speculation: "on", maxBatchUs: 1e9, margin: 0 }
/** With 0.7 of the drafts accepted, a second token is worth its while for up to eleven decodes: by 46% for one, by 2% for
 * ten, by 0.7% for eleven; twelve lose by 0.3%. */
const cost: CostModel = {
  ...{ pieces: [{ step: 500, tokens: 100 }], residualSigma: 0, fastPassTokens: 1, unifiedKv: true },
}
const two = { ...on, maxSpeculation: 2 }

let id = 0
function decode(app = 0, tpotUs = 1e6, contextTokens = 100): LiveRequest {
  const slo = { ttftUs: 1e6, ttftSlowdown: 0, maxGapUs: Infinity, tpotUs, thinkingTpotUs: tpotUs }
  const request = liveOf(++id, { app, slo, promptTokens: contextTokens - 1 })
  return Object.assign(request, { output: 1, computed: contextTokens - 1 })
}
const decodes = (count: number, ...of: Parameters<typeof decode>) =>
  Array.from({ length: count }, () => decode(...of))
const prompt = (promptTokens: number, app = 0, tpotUs = 1e6) =>
  liveOf(++id, {
    ...{ app, promptTokens },
    slo: { ttftUs: 1e6, ttftSlowdown: 0, maxGapUs: Infinity, tpotUs, thinkingTpotUs: tpotUs },
  })
const context = (parts: Partial<PlanningParts> = {}, limits = LIMITS) =>
  contextOf(limits, { cost, margin: 0, ...parts })
const nothing: DecodesAndWaiting = { decodes: [], prefills: [], bestEffort: [] }

/** What each of a series of batches of so many decodes is told to verify. */
function lengthsFor(counts: number[], speculator = new Speculator(two)): number[] {
  return counts.map((count) => {
    const all = decodes(count)
    speculator.planFor({ ...nothing, decodes: all }, context())
    return speculator.lengthOf(all[0]!)
  })
}

describe("without the choice", () => {
  test("every decode drafts the same fixed number, or none", () => {
    const fixed = new Speculator({ ...DEFAULT_OPTIONS, fixedDraft: 3 })
    fixed.planFor({ ...nothing, decodes: decodes(1) }, context())
    expect([fixed.lengthOf(decode()), fixed.drafts]).toEqual([4, true])
    const none = new Speculator(DEFAULT_OPTIONS)
    expect([none.lengthOf(decode()), none.drafts]).toEqual([1, false])
    // Fixed drafts are for where nothing is chosen.
    const chosen = new Speculator({ ...on, fixedDraft: 3 })
    expect([chosen.lengthOf(decode()), chosen.drafts]).toEqual([1, false])
  })
})

describe("drafting", () => {
  test("begins again for a gain of three in a hundred, and goes on while it is no loss", () => {
    // The first choice has none before it.
    expect(lengthsFor([11])).toEqual([2])
    expect(lengthsFor([12])).toEqual([1])
    expect(lengthsFor([12, 10])).toEqual([1, 1])
    expect(lengthsFor([12, 9])).toEqual([1, 2])
    expect(lengthsFor([1, 8, 11])).toEqual([2, 2, 2])
    expect(lengthsFor([1, 8, 12])).toEqual([2, 2, 1])
  })

  test("begins for less where the drafter seldom has an idea, since trying costs nothing", () => {
    const seldom = new Acceptance(0.7)
    // One in ten steps; seven in ten of its tokens are accepted.
    for (let i = 0; i < 3000; i++) {
      if (i % 10 === 0) seldom.observe(0, 10, [3, 3, 4][(i / 10) % 3]!, false)
      else seldom.observe(0, 10, 1, false, 0)
    }
    const speculator = new Speculator(two)
    const lengthFor = (count: number) => {
      const all = decodes(count)
      speculator.planFor({ ...nothing, decodes: all }, context({ acceptance: seldom }))
      return speculator.lengthOf(all[0]!)
    }
    // Half a hundredth is gained with nine.
    expect([lengthFor(14), lengthFor(9)]).toEqual([1, 2])
  })

  test("is chosen for each app and pace; a request of another kind does not draft", () => {
    const acceptance = new Acceptance(0.7)
    for (let i = 0; i < 1000; i++) acceptance.observe(1, 1, 1, false)
    const speculator = new Speculator(two)
    const all = [decode(0), decode(1)]
    speculator.planFor({ ...nothing, decodes: all }, context({ acceptance }))
    expect(all.map((request) => speculator.lengthOf(request))).toEqual([2, 1])
    expect([speculator.lengthOf(decode(2)), speculator.lengthOf(decode(0, 2e6))]).toEqual([1, 1])
    expect(speculator.drafts).toBe(true)
  })
})

describe("a choice is kept", () => {
  const free: CostModel = { ...cost, pieces: [{ step: 10_000, tokens: 1 }] }
  const narrow = { ...LIMITS, maxBatchTokens: 40 }

  /** The choice for decodes as made for `before`, then for `after`. */
  function chosen(
    options: Partial<PolicyOptions>,
    limits: EngineLimits,
    ...made: [LiveRequest[], Partial<PlanningParts>][]
  ): number[] {
    const speculator = new Speculator({ ...on, maxSpeculation: 4, ...options })
    return made.map(([all, parts]) => {
      speculator.planFor({ ...nothing, decodes: all }, context(parts, limits))
      return speculator.lengthOf(all[0]!)
    })
  }

  test("while the number of decodes changes by less than a seventh", () => {
    // A batch takes 40 tokens: eleven decodes with four each are too many, but that is not looked at.
    const after = (count: number) =>
      chosen({}, narrow, [decodes(10), { cost: free }], [decodes(count), { cost: free }])
    expect(after(11)).toEqual([4, 4])
    expect(after(12)).toEqual([4, 3])
  })

  test("while their context changes by less than a quarter", () => {
    const attention: CostModel = { ...cost, pieces: [{ step: 10_000, slowPairs: 1 }] }
    // Four tokens of each of five decodes with 200 tokens of context take 14.03 ms.
    const after = (contextTokens: number) =>
      chosen(
        { maxBatchUs: 14_050 },
        LIMITS,
        [decodes(5, 0, 1e6, 200), { cost: attention }],
        [decodes(5, 0, 1e6, contextTokens), { cost: attention }],
      )
    expect(after(249)).toEqual([4, 4])
    expect(after(252)).toEqual([4, 3])
  })

  test("while steps take about as long", () => {
    const dear: CostModel = { ...cost, pieces: [{ step: 10_000, tokens: 1000 }] }
    const one = decodes(1)
    // Four tokens take 14 ms.
    const after = (ratio: number) => {
      const calibration = new Calibration(0)
      for (let i = 0; i < 400; i++) calibration.observe("decode", 1000, 1000 * ratio)
      const slower = { cost: dear, calibration }
      return chosen({ maxBatchUs: 14_050 }, LIMITS, [one, { cost: dear }], [one, slower])
    }
    expect(after(1.08)).toEqual([4, 4])
    expect(after(1.12)).toEqual([4, 2])
  })

  test("while about as many drafts are accepted, and on offer", () => {
    // A second token gains 0.7% where 0.7 of the drafts are accepted, loses where 0.686 are.
    const refused = (count: number) => {
      const acceptance = new Acceptance(0.7)
      for (let i = 0; i < count; i++) acceptance.observe(0, 1, 1, false)
      return chosen({ maxSpeculation: 2 }, LIMITS, [decodes(11), {}], [decodes(11), { acceptance }])
    }
    expect(refused(1)).toEqual([2, 2])
    expect(refused(2)).toEqual([2, 1])
    // Seven decodes in 1.9 ms: their pace is just long enough for it where the drafter always has an idea.
    const missing = (count: number) => {
      const acceptance = new Acceptance(0.7)
      for (let i = 0; i < count; i++) acceptance.observe(0, 1, 1, false, 0)
      const tight = decodes(7, 0, 1200)
      return chosen({ maxSpeculation: 2 }, LIMITS, [tight, {}], [tight, { acceptance }])
    }
    expect(missing(2)).toEqual([2, 2])
    expect(missing(3)).toEqual([2, 1])
  })

  test("while the same kinds decode", () => {
    const speculator = new Speculator({ ...on, maxSpeculation: 4 })
    const first = decodes(8)
    speculator.planFor({ ...nothing, decodes: first }, context({ cost: free }, narrow))
    const both = [...first, ...decodes(8, 1)]
    speculator.planFor({ ...nothing, decodes: both }, context({ cost: free }, narrow))
    const verified = both.reduce((sum, request) => sum + speculator.lengthOf(request), 0)
    expect(verified).toBeLessThanOrEqual(40)
    expect(verified).toBeGreaterThan(16)
  })
})

describe("while prompts wait", () => {
  const gpu: CostModel = { ...cost, pieces: [{ step: 20_000, tokens: 70 }] }
  const limits = { ...LIMITS, maxBatchTokens: 4096 }
  const plan = (work: Partial<DecodesAndWaiting>, options = on) => {
    const speculator = new Speculator({ ...options, maxBatchUs: 60_000 })
    speculator.planFor({ ...nothing, ...work }, context({ cost: gpu }, limits))
    return speculator
  }
  test("drafts lengthen the batch where the pace is tight; with few prompts longer than with many", () => {
    const tight = decodes(20, 0, 50_000)
    const lengthFor = (waiting: number) =>
      plan({ decodes: tight, prefills: waiting === 0 ? [] : [prompt(waiting)] }).lengthOf(tight[0]!)
    expect(lengthFor(5000)).toBeGreaterThan(1)
    expect(lengthFor(0)).toBeGreaterThan(lengthFor(5000))
    const loose = decodes(20, 0, 400_000)
    expect(plan({ decodes: loose, prefills: [prompt(5000)] }).lengthOf(loose[0]!)).toBe(1)
  })

  test("a kind of which only a prompt is there has a length already", () => {
    const [decoding, waiting] = [decodes(3, 0, 50_000), prompt(300, 1, 50_000)]
    const speculator = plan({ decodes: decoding, prefills: [waiting] })
    expect(speculator.lengthOf(waiting)).toBeGreaterThan(1)
    // What is there counts once, however many more are expected.
    expect(plan({ decodes: decoding }).lengthOf(waiting)).toBe(1)
  })

  test("best-effort decodes have no say, and have one when none waits", () => {
    const flex = decodes(2, 1, 50_000)
    const busy = plan({ bestEffort: flex, prefills: [prompt(300)] })
    expect(busy.lengthOf(flex[0]!)).toBe(1)
    expect(plan({ bestEffort: flex }).lengthOf(flex[0]!)).toBeGreaterThan(1)
    expect(plan({ bestEffort: [...flex, prompt(300)] }).lengthOf(flex[0]!)).toBe(1)
  })

  test("a choice is remembered for as many waiting tokens, within a factor of two", () => {
    const tight = decodes(20, 0, 50_000)
    const speculator = new Speculator({ ...on, maxBatchUs: 60_000 })
    const known = { ...gpu }
    const lengthFor = (waiting: number, cost: CostModel = known) => {
      const prefills = waiting === 0 ? [] : [prompt(waiting)]
      speculator.planFor({ ...nothing, decodes: tight, prefills }, context({ cost }, limits))
      return speculator.lengthOf(tight[0]!)
    }
    const [alone, many] = [lengthFor(0), lengthFor(4000)]
    expect(alone).toBeGreaterThan(many)
    // Where drafts would not pay any more: what was chosen before still holds.
    known.pieces = [{ tokens: 700 }]
    expect([lengthFor(0), lengthFor(3000)]).toEqual([alone, many])
    expect(lengthFor(300)).toBe(1)
    // Not where another model says so.
    expect(lengthFor(0, { ...known })).toBe(1)
  })
})

test("a plan's lengths are followed while it is followed", () => {
  const speculator = new Speculator(two)
  const [fast, slow] = [decode(0, 1e6), decode(0, 2e6)]
  speculator.planFor({ ...nothing, decodes: [fast] }, context())
  speculator.follow(new Map([[2e6, 3]]))
  expect([speculator.lengthOf(fast), speculator.lengthOf(slow), speculator.drafts]).toEqual([1, 3, true])
  speculator.follow(new Map([[2e6, 1]]))
  expect(speculator.drafts).toBe(false)
  speculator.follow(null)
  expect([speculator.lengthOf(fast), speculator.drafts]).toEqual([2, true])
})

test("what a step yields and verifies: a sure token, and what the drafter offers", () => {
  const acceptance = new Acceptance(0.5)
  for (let i = 0; i < 2000; i++) acceptance.observe(1, 1, 1, false, 0)
  const given = context({ acceptance })
  const speculator = new Speculator({ ...DEFAULT_OPTIONS, fixedDraft: 2 })
  expect(speculator.expectedOf(decode(0), given)).toBeCloseTo(1 + 0.5 + 0.25)
  expect(speculator.rowsOf(decode(0), given)).toBe(3)
  const hitRate = acceptance.hitRate(1)
  expect(hitRate).toBeLessThan(0.1)
  expect(speculator.expectedOf(decode(1), given)).toBeCloseTo(1 + hitRate * 0.75)
  expect(speculator.rowsOf(decode(1), given)).toBeCloseTo(1 + hitRate * 2)
  const none = new Speculator(DEFAULT_OPTIONS)
  expect([none.expectedOf(decode(1), given), none.rowsOf(decode(1), given)]).toEqual([1, 1])
})
