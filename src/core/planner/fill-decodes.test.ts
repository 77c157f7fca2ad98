/** Which decodes run in a batch, and which can wait for the next. A decode takes 1.1 ms, and steps cost nothing besides: where
 * there are three or more, to leave one out saves time. */
import { describe, expect, test } from "vitest"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, LIMITS, liveOf } from "../testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { fillBatch, tightestLeadUs } from "./fill.ts"
import { emptyWork, sortWork } from "./work.ts"

const NOW_US = 1_000_000
const PER_DECODE = { ...COST, pieces: [{ sequences: 1000, tokens: 100 }] }
const OPTIONS: PolicyOptions = { ...DEFAULT_OPTIONS, maxBatchUs: 20_000, margin: 0, bestEffortBatchUs: 0 }
const limits = { ...LIMITS, kvTokens: 64_000, maxBatchTokens: 4096, minChunkTokens: 1 }

interface Given {
  tpotUs?: number
  /** Prompts with an SLO, and without, that wait. */
  prompts?: number
  others?: number
  cost?: typeof COST
  exact?: boolean
  margin?: number | null
  options?: Partial<PolicyOptions>
  /** How long ago they had their first token. */
  sinceFirstUs?: number
  maxBatchTokens?: number
}

/** The batch's items, as `id: tokens`, drafts with a plus, where decodes 0, 1, … are due so long from now. */
function filled(duesUs: number[], given: Given = {}): string[] {
  const { tpotUs = 30_000, prompts = 0, others = 0, cost = PER_DECODE, margin = 0 } = given
  const options = { ...OPTIONS, ...given.options }
  const maxBatchTokens = given.maxBatchTokens ?? limits.maxBatchTokens
  const context = contextOf({ ...limits, maxBatchTokens }, { margin, cost })
  const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
  const requests: LiveRequest[] = duesUs.map((dueUs, id) => {
    const request = liveOf(id, { slo })
    context.kv.attach(id, [], -1, null)
    context.kv.grow(id, 101)
    request.computed = 100
    request.emit(1, -1, NOW_US - (given.sinceFirstUs ?? 0), () => {})
    return Object.assign(request, { dueUs: NOW_US + dueUs })
  })
  const far = { ...slo, ttftUs: 9e6 }
  for (let i = 0; i < prompts; i++) requests.push(liveOf(10 + i, { promptTokens: 900, slo: far }, NOW_US))
  for (let i = 0; i < others; i++)
    requests.push(liveOf(20 + i, { promptTokens: 900, slo: far, tier: "bestEffort" }, NOW_US))
  const work = sortWork(requests, emptyWork(options))
  work.exact = given.exact ?? false
  work.bestEffortServedUs = NOW_US
  const batch = new BatchBuilder(context)
  batch.reset(NOW_US)
  fillBatch(batch, work, options, NOW_US)
  return batch.items.map(({ id, tokens, draft }) => `${id}: ${tokens}${draft > 0 ? `+${draft}` : ""}`)
}

describe("a decode can wait", () => {
  test("until the end of a longest batch after this one, where others wait", () => {
    // This batch ends when the first is due, the next 20 ms later.
    expect(filled([10_000, 30_000, 30_001], { prompts: 1 })).toEqual(["0: 1", "1: 1", "10: 68"])
    expect(filled([10_000, 30_000, 30_000], { prompts: 1 })).toEqual(["0: 1", "1: 1", "2: 1", "10: 57"])
  })

  test("no longer than the pace of the tightest, which ends the next batch", () => {
    const given = { prompts: 1, tpotUs: 5_000 }
    expect(filled([10_000, 15_000, 15_001], given)).toEqual(["0: 1", "1: 1", "10: 68"])
    expect(filled([10_000, 15_000, 15_000], given)).toEqual(["0: 1", "1: 1", "2: 1", "10: 57"])
  })

  test("but as long as a step of all decodes, which a next batch takes at least", () => {
    const given = { prompts: 1, tpotUs: 3_000 }
    expect(filled([10_000, 13_300, 13_301], given)).toEqual(["0: 1", "1: 1", "10: 68"])
    expect(filled([10_000, 13_300, 13_300], given)).toEqual(["0: 1", "1: 1", "2: 1", "10: 57"])
  })

  test("for requests without an SLO as well, and for none at all it does not", () => {
    // There is time for two before the first is due.
    const dues = [3_000, 23_000, 23_001]
    expect(filled(dues, { others: 1 })).toEqual(["0: 1", "1: 1"])
    expect(filled(dues, { prompts: 1 })).toEqual(["0: 1", "1: 1"])
    expect(filled(dues)).toEqual(["0: 1", "1: 1", "2: 1"])
  })

  test("only where that saves much: where two cost no more than twice one, none waits", () => {
    const dues = [10_000, 90_000]
    expect(filled(dues, { prompts: 1 })).toEqual(["0: 1", "1: 1", "10: 68"])
    const dearer = { ...COST, pieces: [{ sequences: 1000, tokens: 100, slowPairs: 0.001 }, { step: 1101 }] }
    expect(filled([...dues, 90_000], { prompts: 1, cost: dearer })[1]).toMatch("10:")
    const steps = { ...COST, pieces: [{ step: 2000, sequences: 1000, tokens: 100 }] }
    expect(filled([...dues, 90_000], { prompts: 1, cost: steps }).slice(0, 3)).toEqual([
      "0: 1",
      "1: 1",
      "2: 1",
    ])
  })

  test("wherever admission counted on it", () => {
    expect(filled([10_000, 90_000], { prompts: 1, exact: true })).toEqual(["0: 1", "10: 79"])
    expect(filled([10_000, 90_000], { exact: true })).toEqual(["0: 1", "1: 1"])
  })

  test("by what steps take with their margin, also where that is learnt", () => {
    // 1.2 × 3.3 ms end the next batch.
    const given = { prompts: 1, tpotUs: 3_000, margin: 0.2 }
    expect(filled([10_000, 13_960, 13_961], given).slice(0, 3)).toEqual(["0: 1", "1: 1", "10: 58"])
    expect(filled([10_000, 13_000, 90_000], { prompts: 1, margin: null })).toHaveLength(3)
  })
})

describe("of decodes that can wait", () => {
  const dues = [3_000, 23_001, 23_001]

  test("as many run as there is time for", () => {
    expect(filled([2_200, 90_000, 90_001], { others: 1 })).toEqual(["0: 1", "1: 1"])
    expect(filled([2_199, 90_000, 90_001], { others: 1 })).toEqual(["0: 1"])
    expect(filled([50_000, 90_000, 90_001], { others: 1 }).slice(0, 3)).toEqual(["0: 1", "1: 1", "2: 1"])
  })

  test("one runs where nothing else does", () => {
    // None can be on time.
    expect(filled([-5, 90_000, 90_001], { options: { maxBatchUs: 500 } })).toEqual(["0: 1", "1: 1", "2: 1"])
  })

  test("those run that were paused for ten longest batches a token", () => {
    expect(filled(dues, { prompts: 1, sinceFirstUs: 200_000 })).toEqual(["0: 1", "10: 9"])
    expect(filled(dues, { prompts: 1, sinceFirstUs: 200_001 })).toEqual(["0: 1", "1: 1", "2: 1"])
  })
})

describe("decodes that draft", () => {
  const drafting = (fixedDraft: number, given: Given = {}) => ({ ...given, options: { fixedDraft } })

  test("draft all that they should where there is time", () => {
    expect(filled([10_000, 10_000], drafting(2))).toEqual(["0: 1+2", "1: 1+2"])
  })

  test("draft as much as fits before the first is due, the first due one more than others", () => {
    // 2.2 ms and 0.1 a drafted token: three between them.
    expect(filled([2_500, 10_000], drafting(2))).toEqual(["0: 1+2", "1: 1+1"])
    expect(filled([2_400, 10_000], drafting(2))).toEqual(["0: 1+1", "1: 1+1"])
    expect(filled([2_200, 10_000], drafting(2))).toEqual(["0: 1", "1: 1"])
  })

  test("with the margin of such steps", () => {
    expect(filled([3_000, 10_000], drafting(2, { margin: 0.2 }))).toEqual(["0: 1+2", "1: 1+1"])
    expect(filled([2_999, 10_000], drafting(2, { margin: 0.2 }))).toEqual(["0: 1+1", "1: 1+1"])
    expect(filled([10_000, 10_000], drafting(2, { margin: null }))).toEqual(["0: 1+2", "1: 1+2"])
  })

  test("leave a token for each that is still to come", () => {
    expect(filled([10_000, 10_000, 10_000], drafting(5, { maxBatchTokens: 6 }))).toEqual([
      "0: 1+3",
      "1: 1",
      "2: 1",
    ])
  })
})

test("the tightest lead is that of the first that is not late", () => {
  const due = (dueUs: number) => Object.assign(liveOf(1), { dueUs })
  expect(tightestLeadUs([due(90), due(100), due(107), due(120)], 100)).toBe(7)
  expect(tightestLeadUs([due(90), due(100)], 100)).toBe(Infinity)
  expect(tightestLeadUs([], 100)).toBe(Infinity)
})
