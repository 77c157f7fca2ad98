/** Whose SLOs are kept: what counts, and from when on it does. A step is 5 ms and 0.1 ms a token, without a margin, and a
 * batch 100 ms at most. */
import { describe, expect, test } from "vitest"
import { Calibration } from "../learn/calibration.ts"
import { OutputLengths } from "../learn/output-lengths.ts"
import { Tenants } from "../learn/tenants.ts"
import { countsExactly, DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { EngineLimits, RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, LIMITS, liveOf } from "../testing.ts"
import { Admission } from "./admission.ts"
import { BatchBuilder } from "./batch-builder.ts"
import type { PlanningContext } from "./context.ts"
import { Speculator } from "./speculation/speculator.ts"

const NOW_US = 1_000_000
const OPTIONS: PolicyOptions = { ...DEFAULT_OPTIONS, margin: 0 }
const LARGE: EngineLimits = { ...LIMITS, kvTokens: 64_000, maxSequences: 64, maxBatchTokens: 4096 }

/** Due so long from now, and then a token each `tpotUs`. */
function prompt(
  id: number,
  promptTokens: number,
  dueUs: number,
  changes: Partial<RequestSpec> = {},
  tpotUs = 1e9,
) {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US)
}

/** It has `output` of its tokens; its TPOT clock is `aheadUs` ahead of now. */
function stream(
  context: PlanningContext,
  id: number,
  tpotUs: number,
  { aheadUs = 0, left = 50 } = {},
  changes: Partial<RequestSpec> = {},
) {
  const request = prompt(id, 100, 0, { maxOutputTokens: left + 1, ...changes }, tpotUs)
  const { promptTokens } = request.spec
  context.kv.attach(id, [], -1, null)
  context.kv.grow(id, promptTokens)
  request.computed = promptTokens
  request.emit(1, -1, NOW_US, () => {})
  request.paceDueUs += aheadUs
  request.dueUs = request.paceDueUs
  return request
}

/** Outputs have so many tokens. */
function lengths(tokens: number): OutputLengths {
  const outputLengths = new OutputLengths(1)
  for (let i = 0; i < 300; i++) {
    outputLengths.grew(0, 0, tokens)
    outputLengths.ended(0, tokens)
  }
  return outputLengths
}

interface Given {
  context?: PlanningContext
  decodes?: LiveRequest[]
  overdue?: LiveRequest[]
  slackNeeded?: number
  options?: Partial<PolicyOptions>
  limits?: Partial<EngineLimits>
}

/** Ids of those that are kept. */
function kept(prefills: LiveRequest[], given: Given = {}): number[] {
  const { decodes = [], overdue = [], slackNeeded = 1, limits = {} } = given
  const options = { ...OPTIONS, ...given.options }
  const context = given.context ?? contextOf({ ...LARGE, ...limits }, { margin: options.margin })
  const running = { decodes, overdue, slackNeeded, speculator: new Speculator(options) }
  const chosen = new Admission(options).select(running, prefills, context, NOW_US)
  return [...chosen].map(({ id }) => id).sort((a, b) => a - b)
}

const large = () => contextOf(LARGE, { margin: 0 })

describe("a prompt is kept", () => {
  test("to the µs that it can be done in", () => {
    expect([54_999, 55_000].map((dueUs) => kept([prompt(1, 500, dueUs)]))).toEqual([[], [1]])
  })

  test("counting only what it owes", () => {
    const begun = Object.assign(prompt(1, 800, 55_000), { computed: 300 })
    expect(kept([begun])).toEqual([1])
    expect(kept([Object.assign(prompt(1, 801, 55_000), { computed: 300 })])).toEqual([])
  })

  test("with those before it; the largest goes, be it the first", () => {
    const both = (dueUs: number) => kept([prompt(1, 300, 50_000), prompt(2, 200, dueUs)])
    expect(both(55_000)).toEqual([1, 2])
    expect(both(54_999)).toEqual([2])
  })

  test("and the next largest, until the rest can be done", () => {
    const two = [1, 2].map((id) => prompt(id, 200, 45_000))
    expect(kept(two)).toEqual([1, 2])
    expect(kept([...two, prompt(3, 300, 45_001, { worth: 9 })])).toEqual([3])
  })

  test("with the margin that steps teach, where none is set", () => {
    const options = { margin: null }
    expect(kept([prompt(1, 500, 90_000)], { options })).toEqual([1])
    expect(kept([prompt(1, 500, 20_000)], { options })).toEqual([])
  })

  test("by what steps with prompts take, however slow or fast those of decodes alone are", () => {
    for (const [kind, ratio, counts] of [
      ["mixed", 1.5, 1.5],
      ["decode", 3, 1],
      ["decode", 1 / 3, 1],
    ] as const) {
      const calibration = new Calibration()
      for (let i = 0; i < 1000; i++) calibration.observe(kind, 1000, 1000 * ratio)
      const context = contextOf(LARGE, { margin: 0, calibration })
      const answers = (decodes: LiveRequest[], us: number) =>
        [0.999, 1.001].map((share) => kept([prompt(1, 500, share * us * counts)], { context, decodes }))
      expect(answers([], 55_000)).toEqual([[], [1]])
      // A token of a decode beside it.
      expect(answers([stream(context, 9, 1e9)], 55_100)).toEqual([[], [1]])
    }
  })

  test("where the overdue are, with their share of the steps: as long as they have a prompt to do", () => {
    const waits = liveOf(9, { tier: "bestEffort", promptTokens: 100 }, 0)
    // And a token of its own: 55.1 ms by 65 / 64.
    const dues = [55_960, 55_961]
    expect(dues.map((dueUs) => kept([prompt(1, 500, dueUs)], { overdue: [waits] }))).toEqual([[], [1]])
    const context = large()
    const decoding = stream(context, 9, 1e9)
    // A token of it by then, and no share.
    expect(kept([prompt(1, 500, 55_100)], { context, overdue: [decoding] })).toEqual([1])
    expect(kept([prompt(1, 500, 55_099)], { context, overdue: [decoding] })).toEqual([])
  })
})

describe("prompts that begin alike", () => {
  const prefix = Array.from({ length: 20 }, (_, i) => i + 1)
  /** 320 tokens in common and 80 of its own. */
  const alike = (id: number, dueUs: number) => prompt(id, 400, dueUs, { prefix })

  test("count what they have in common once", () => {
    expect(kept([alike(1, 53_000), alike(2, 53_000)])).toEqual([1, 2])
    expect(kept([alike(1, 52_999), alike(2, 52_999)])).toEqual([1])
    expect(kept([alike(1, 61_000), alike(2, 61_000), alike(3, 61_000)])).toEqual([1, 2, 3])
    expect(kept([alike(1, 60_999), alike(2, 60_999), alike(3, 60_999)])).toEqual([1, 2])
  })

  test("count it for the second where the first was turned down", () => {
    expect(kept([alike(1, 40_000), alike(2, 45_000)])).toEqual([2])
    expect(kept([alike(1, 40_000), alike(2, 44_700)])).toEqual([])
  })

  test("count it no more when the last of them is turned down", () => {
    const all = [alike(1, 52_999), alike(2, 52_999), prompt(3, 90, 53_000)]
    expect(kept(all)).toEqual([3])
    // 5 ms, 9 and 39.
    expect(kept([...all, prompt(4, 390, 53_001)])).toEqual([3, 4])
    expect(kept([...all, prompt(4, 391, 53_001)])).toEqual([3])
  })
})

describe("the tokens that follow count", () => {
  test("two longest batches after the last prompt", () => {
    // Of so many tokens at 4 ms all are due by then. They take 5.1 each, and the prompt's and half a step more.
    const left = (tokens: number) => kept([prompt(1, 10, 20_000, { maxOutputTokens: tokens }, 4_000)])
    expect(left(30)).toEqual([1])
    expect(left(45)).toEqual([])
  })

  test("and ten after it", () => {
    // 5.3 ms a step of three, where 5.2 are asked for.
    const three = [1, 2, 3].map((id) => prompt(id, 10, 20_000, { maxOutputTokens: 900 }, 5_200))
    const context = contextOf(LARGE, { margin: 0, outputLengths: lengths(600) })
    expect(kept(three, { context })).toHaveLength(2)
    const ends = [1, 2, 3].map((id) => prompt(id, 10, 20_000, { maxOutputTokens: 30 }, 5_200))
    expect(kept(ends)).toHaveLength(3)
  })

  test("from when the last prompt is due, not the first", () => {
    const first = prompt(1, 10, 20_000, { maxOutputTokens: 40 }, 4_000)
    expect(kept([first])).toEqual([1])
    // By 1.2 s all of its tokens have had time.
    expect(kept([first, prompt(2, 10, 1_000_000)])).toEqual([1, 2])
  })
})

describe("a stream that runs", () => {
  /** Whether a prompt of 500 tokens due in 70 ms is kept beside it. */
  const beside = (tpotUs: number, changes: { aheadUs?: number; left?: number } = {}, dueUs = 70_000) => {
    const context = large()
    return (
      kept([prompt(2, 500, dueUs)], { context, decodes: [stream(context, 1, tpotUs, changes)] }).length > 0
    )
  }

  test("and can keep its pace takes its time", () => {
    expect(beside(60_000)).toBe(true)
    expect(beside(10_000)).toBe(false)
    expect(beside(5_100)).toBe(false)
  })

  test("and cannot counts for nothing", () => expect(beside(5_099)).toBe(true))

  test("does count where what it is ahead makes up for it, to its end", () => {
    // Twenty tokens at 5 ms need two more ms.
    expect(beside(5_000, { left: 20, aheadUs: 1_999 }, 100_000)).toBe(true)
    expect(beside(5_000, { left: 20, aheadUs: 2_000 }, 100_000)).toBe(false)
  })

  test("and is late for its next token takes its time all the same, where its pace can be kept", () => {
    // 500 tokens and one of it.
    const late = (dueUs: number) => beside(10_000, { left: 1, aheadUs: -8_000 }, dueUs)
    expect([55_099, 55_100].map(late)).toEqual([false, true])
  })

  test("and drafts keeps a pace by what its drafts are expected to yield", () => {
    // 5.3 ms for 1 + 0.7 + 0.49 tokens.
    const drafting = (tpotUs: number) => {
      const context = large()
      const decodes = [stream(context, 1, tpotUs)]
      return kept([prompt(2, 500, 70_000)], { context, decodes, options: { fixedDraft: 2 } }).length > 0
    }
    expect(drafting(2_430)).toBe(false)
    expect(drafting(2_410)).toBe(true)
  })

  test("and is overdue takes its time from now on, whatever its pace", () => {
    const context = large()
    const overdue = [stream(context, 1, 10_000, { aheadUs: 1e6 })]
    expect(kept([prompt(2, 500, 70_000)], { context, overdue })).toEqual([])
  })
})

describe("KV that is not there", () => {
  const limits = { kvTokens: 1024 }
  const three = (dueUs: number, promptTokens = 400) => [1, 2, 3].map((id) => prompt(id, promptTokens, dueUs))

  test("turns down what does not fit at once", () => {
    expect(kept(three(1_000_000), { limits })).toHaveLength(2)
    expect(kept(three(1_000_000, 300), { limits })).toHaveLength(3)
  })

  test("as much as the forecast may fill", () => {
    expect(kept(three(1_000_000), { limits, options: { kvShare: 0.5 } })).toHaveLength(1)
    expect(kept(three(1_000_000), { limits, options: { kvShare: 1.25 } })).toHaveLength(3)
  })

  test("turns down no promise, and then nothing can be done", () => {
    const promised = three(1_000_000).map(({ spec }) => prompt(spec.id, 400, 1_000_000, { firm: true }))
    expect(kept(promised, { limits })).toEqual([1, 2, 3])
  })

  test("is no more there for what is turned down that would not have held it", () => {
    // The first to go is due in more than a minute.
    expect(kept([...three(1_000_000), prompt(4, 900, 60_000_001)], { limits })).toHaveLength(2)
  })

  test("but nothing in a split pool, where each has its own", () => {
    expect(kept(three(1_000_000), { limits: { ...limits, unifiedKv: false } })).toHaveLength(3)
  })

  test("nor what is due in more than a minute: until then some comes free", () => {
    expect(kept(three(59_999_999), { limits })).toHaveLength(2)
    expect(kept(three(60_000_000), { limits })).toHaveLength(3)
  })

  test("unless it holds some already", () => {
    const begun = three(60_000_000).map((request) => Object.assign(request, { computed: 16 }))
    expect(kept(begun, { limits })).toHaveLength(2)
  })

  test("is what streams that run take, and the overdue", () => {
    for (const place of ["decodes", "overdue"] as const) {
      const context = contextOf({ ...LARGE, ...limits }, { margin: 0 })
      const running = Array.from({ length: 5 }, (_, i) => stream(context, 10 + i, 1e9, { left: 1 }))
      expect(kept(three(1_000_000), { context, [place]: running })).toHaveLength(1)
    }
  })

  test("is what outputs come to: of a long one less fits beside it", () => {
    const context = contextOf({ ...LARGE, ...limits }, { margin: 0, outputLengths: lengths(500) })
    const long = [1, 2].map((id) => prompt(id, 200, 1_000_000, { maxOutputTokens: 600 }))
    expect(kept(long, { context })).toHaveLength(1)
    const short = [1, 2].map((id) => prompt(id, 200, 1_000_000, { maxOutputTokens: 100 }))
    expect(kept(short, { context })).toHaveLength(2)
  })

  test("of what was begun alike is taken once: more fits, one prefix and what each has of its own", () => {
    const prefix = Array.from({ length: 20 }, (_, i) => i + 1)
    const alike = (count: number, own = (_: number) => prefix) =>
      Array.from({ length: count }, (_, i) => prompt(i, 400, 1_000_000, { prefix: own(i) }))
    // 320 in common, 80 each.
    expect(kept(alike(8), { limits })).toHaveLength(8)
    expect(kept(alike(9), { limits })).toHaveLength(8)
    expect(
      kept(
        alike(8, (i) => prefix.map((hash) => hash + 100 * (i + 1))),
        { limits },
      ),
    ).toHaveLength(2)
  })

  test("may be hoped for where what runs shares most of its own, and there is time to compute", () => {
    const prefix = Array.from({ length: 25 }, (_, i) => i + 1)
    const keptBeside = (shared: boolean, slackNeeded: number) => {
      const context = contextOf({ ...LARGE, ...limits }, { margin: 0 })
      const { kv } = context
      const decodes = [1, 2].map((id) => {
        const hashes = shared ? prefix : []
        const request = prompt(id, 401, 0, { maxOutputTokens: 20, prefix: hashes }, 1e9)
        kv.attach(id, hashes, -1, kv.match(hashes, 401))
        kv.grow(id, 401)
        kv.computed(id, 401)
        request.computed = 401
        request.emit(1, -1, NOW_US, () => {})
        return request
      })
      return kept([prompt(9, 570, 1_000_000)], { context, decodes, slackNeeded }).length
    }
    // 400 shared tokens, and 16 each; 576 more are all that there is, but for what the outputs grow by.
    expect(keptBeside(true, 0)).toBe(1)
    expect(keptBeside(true, 0.5)).toBe(1)
    expect(keptBeside(true, 0.6)).toBe(0)
    expect(keptBeside(true, 1)).toBe(0)
    expect(keptBeside(false, 0)).toBe(0)
  })
})

describe("a promise", () => {
  const both = (admitted: boolean, changes: object = {}, spec: Partial<RequestSpec> = {}) => {
    const long = Object.assign(prompt(1, 900, 110_000, spec), { admitted, ...changes })
    return [long, ...[2, 3].map((id) => prompt(id, 300, 120_000))]
  }
  const firm = { admission: "firm", margin: 0.1 } as const

  test("is none before the first token", () => {
    expect(kept(both(true))).toEqual([2, 3])
  })

  test("is one after it, though everything is to be computed again", () => {
    expect(kept(both(true, { output: 1 }, { maxOutputTokens: 2 }))).toContain(1)
    expect(kept(both(false, { output: 1 }, { maxOutputTokens: 2 }))).not.toContain(1)
  })

  test("is one from admission on where that is firm", () => {
    expect(kept(both(true), { options: firm })).toContain(1)
    expect(kept(both(false), { options: firm })).toEqual([2, 3])
  })

  test("is one where the request says so", () => {
    expect(kept(both(false, {}, { firm: true }))).toContain(1)
  })
})

describe("firm promises without a margin", () => {
  const options = { admission: "firm", margin: 0 } as const

  test("are counted to the token, and only these", () => {
    const of = (changes: Partial<PolicyOptions>) => countsExactly({ ...DEFAULT_OPTIONS, ...changes })
    expect(of(options)).toBe(true)
    expect(of({ admission: "firm", margin: 0.1 })).toBe(false)
    expect(of({ admission: "firm", margin: null })).toBe(false)
    expect(of({ admission: "revocable", margin: 0 })).toBe(false)
  })

  test("are chosen for what they are worth together, not by which is the largest", () => {
    // 1,000 tokens can be done in time. The largest is worth most for its size.
    const of = (worth: number) => [
      prompt(1, 600, 104_900, { worth }),
      prompt(2, 500, 104_900, { worth: 3 }),
      prompt(3, 450, 104_900, { worth: 2 }),
    ]
    expect(kept(of(4), { options })).toEqual([2, 3])
    expect(kept(of(6), { options })).toEqual([1])
    expect(kept(of(4))).toEqual([1])
  })

  test("stay, and are all there are where nothing is new", () => {
    const promised = [1, 2].map((id) => Object.assign(prompt(id, 900, 100_000), { admitted: true }))
    expect(kept(promised, { options })).toEqual([1, 2])
    expect(kept([...promised, prompt(3, 10, 150_000)], { options })).toEqual([1, 2])
  })

  test("say how much is drafted, with nothing to choose as well; not where drafts are not chosen", () => {
    const cost = { ...COST, pieces: [{ step: 20_000, tokens: 10, specSteps: 1 }] }
    const drafts = (changes: Partial<PolicyOptions>, prefills: LiveRequest[]) => {
      const given = { ...OPTIONS, ...options, ...changes }
      const context = contextOf(LARGE, { margin: 0, cost })
      const speculator = new Speculator(given)
      const decode = stream(context, 1, 15_000)
      new Admission(given).select(
        { decodes: [decode], overdue: [], slackNeeded: 0, speculator },
        prefills,
        context,
        NOW_US,
      )
      return [speculator.drafts, speculator.lengthOf(decode)] as const
    }
    // A pace that only drafts can keep.
    for (const prefills of [
      [],
      [prompt(2, 10, 900_000)],
      [Object.assign(prompt(2, 10, 900_000), { admitted: true })],
    ]) {
      const [drafted, length] = drafts({ speculation: "on" }, prefills)
      expect(drafted).toBe(true)
      expect(length).toBeGreaterThan(1)
    }
    expect(drafts({ speculation: "off", fixedDraft: 2 }, [prompt(2, 10, 900_000)])).toEqual([true, 3])
    expect(drafts({ speculation: "on", margin: 0.1 }, [])).toEqual([false, 1])
  })

  test("that cannot all be kept are kept all the same, and none beside them", () => {
    const promised = [1, 2].map((id) => Object.assign(prompt(id, 900, 100_000), { admitted: true }))
    const context = contextOf({ ...LARGE, kvTokens: 1024 }, { margin: 0 })
    expect(kept([...promised, prompt(3, 10, 500_000)], { options, context })).toEqual([1, 2])
  })

  test("with a margin are as any others where there are none", () => {
    expect(kept([], { options: { admission: "firm", margin: 0.1 } })).toEqual([])
  })

  test("are no more at once than one decision can think about, the first due, nor than there are sequences", () => {
    const forty = Array.from({ length: 40 }, (_, id) => prompt(id, 10, 900_000 + id))
    const first = (count: number) => Array.from({ length: count }, (_, id) => id)
    expect(kept(forty, { options })).toEqual(first(32))
    expect(kept(forty, { options, limits: { maxSequences: 20 } })).toEqual(first(20))
    const context = contextOf({ ...LARGE, maxSequences: 20 }, { margin: 0 })
    const decodes = [100, 101].map((id) => stream(context, id, 1e9))
    expect(kept(forty, { options, context, decodes })).toEqual(first(18))
    // Those that hold a promise are beside them.
    const promised = forty.map((request) => Object.assign(request, { admitted: request.id >= 35 }))
    expect(kept(promised, { options })).toEqual([...first(32), 35, 36, 37, 38, 39])
    const twenty = { maxSequences: 20 }
    expect(kept(promised, { options, limits: twenty })).toEqual([...first(15), 35, 36, 37, 38, 39])
  })
})

describe("promises of a tenant that was served clearly more", () => {
  const [AHEAD, FAR_AHEAD, BEHIND] = [0, 2, 1]

  /** Counters within 4,800 tokens are even, four times that is far. */
  function tenants(): Tenants {
    const served = new Tenants([], 300)
    for (const [tenant, tokens] of [
      [AHEAD, 30_000],
      [FAR_AHEAD, 40_000],
    ] as const)
      served.served(liveOf(0, { tenant }), { id: 0, position: 0, tokens, sample: true, draft: 0 }, 0)
    for (const tenant of [AHEAD, FAR_AHEAD, BEHIND]) served.arrived(liveOf(0, { tenant }))
    return served
  }

  function chosen(
    prefills: LiveRequest[],
    decodesOf: (context: PlanningContext) => LiveRequest[],
    { limits = {}, options = {} }: Given = {},
  ) {
    const given = { ...OPTIONS, ...options }
    const context = contextOf({ ...LARGE, ...limits }, { margin: given.margin, tenants: tenants() })
    const running = {
      decodes: decodesOf(context),
      overdue: [],
      slackNeeded: 0,
      speculator: new Speculator(given),
    }
    const admission = new Admission(given)
    const kept = admission.select(running, prefills, context, NOW_US)
    const batch = new BatchBuilder(context)
    batch.reset(NOW_US)
    const ids = (requests: Iterable<LiveRequest>) => [...requests].map(({ id }) => id)
    const spare = admission.spareKvTokens([], batch)
    return { kept: ids(kept), revoked: ids(admission.revoked), spare }
  }
  const of =
    (tenant: number, id: number, changes: Partial<RequestSpec> = {}) =>
    (context: PlanningContext) =>
      stream(context, id, 10_000, {}, { tenant, ...changes })
  const ours = (promptTokens: number, dueUs: number, id = 9) =>
    prompt(id, promptTokens, dueUs, { tenant: BEHIND })
  const one = (stream: (context: PlanningContext) => LiveRequest) => (context: PlanningContext) => [
    stream(context),
  ]

  test("give way where that is enough", () => {
    expect(chosen([ours(500, 70_000)], one(of(AHEAD, 1)))).toMatchObject({ kept: [9], revoked: [1] })
    expect(chosen([ours(500, 70_000)], one(of(BEHIND, 1)))).toMatchObject({ kept: [], revoked: [] })
  })

  test("stay where it is not, and take their time as before", () => {
    expect(chosen([ours(500, 54_000)], one(of(AHEAD, 1)))).toMatchObject({ kept: [], revoked: [] })
    const two = [ours(500, 54_000), ours(500, 70_000, 8)]
    expect(chosen(two, one(of(AHEAD, 1)))).toMatchObject({ kept: [8], revoked: [1] })
    const fits = [ours(500, 54_000), ours(300, 70_000, 8)]
    expect(chosen(fits, one(of(AHEAD, 1)))).toMatchObject({ kept: [8], revoked: [] })
  })

  test("stay where they were given for good", () => {
    expect(chosen([ours(500, 70_000)], one(of(AHEAD, 1, { firm: true })))).toMatchObject({ revoked: [] })
    const firm = { options: { admission: "firm" as const, margin: 0.01 } }
    expect(chosen([ours(500, 70_000)], one(of(AHEAD, 1)), firm)).toMatchObject({ revoked: [] })
  })

  test("go from the most served on, no more of them than needed", () => {
    const both = (context: PlanningContext) => [of(AHEAD, 1)(context), of(FAR_AHEAD, 2)(context)]
    // Both at 10 ms share their steps: it takes both.
    expect(chosen([ours(500, 70_000)], both)).toMatchObject({ kept: [9], revoked: [2, 1] })
    const slow = (context: PlanningContext) => [
      stream(context, 1, 60_000, {}, { tenant: AHEAD }),
      of(FAR_AHEAD, 2)(context),
    ]
    expect(chosen([ours(500, 70_000)], slow)).toMatchObject({ kept: [9], revoked: [2] })
  })

  test("give way with their KV", () => {
    const limits = { kvTokens: 1024 }
    const large = { promptTokens: 600 }
    const held = (tenant: number) => one(of(tenant, 1, large))
    expect(chosen([ours(500, 1_000_000)], held(AHEAD), { limits })).toMatchObject({ kept: [9], revoked: [1] })
    expect(chosen([ours(500, 1_000_000)], held(BEHIND), { limits })).toMatchObject({ kept: [], revoked: [] })
    // More than there is at all.
    const never = chosen([ours(1100, 1_000_000)], held(AHEAD), { limits })
    expect(never).toMatchObject({ kept: [], revoked: [] })
    const beside = chosen([], held(AHEAD), { limits })
    expect(never.spare).toBeCloseTo(beside.spare)
  })

  test("count no more in what KV is to spare", () => {
    const without = chosen([ours(500, 70_000)], () => []).spare
    expect(chosen([ours(500, 70_000)], one(of(AHEAD, 1))).spare).toBe(without)
  })
})

describe("KV to spare, after a choice", () => {
  const limits = { kvTokens: 2048 }
  const prefix = Array.from({ length: 20 }, (_, i) => i + 1)
  const alike = (id: number, dueUs = 1_000_000) => prompt(id, 400, dueUs, { prefix })

  function spare(choices: LiveRequest[][], options: Partial<PolicyOptions> = {}): number {
    const given = { ...OPTIONS, ...options }
    const context = contextOf({ ...LARGE, ...limits }, { margin: given.margin, outputLengths: lengths(1) })
    const admission = new Admission(given)
    const running = { decodes: [], overdue: [], slackNeeded: 0, speculator: new Speculator(given) }
    for (const prefills of choices) admission.select(running, prefills, context, NOW_US)
    const batch = new BatchBuilder(context)
    batch.reset(NOW_US)
    return admission.spareKvTokens([], batch)
  }
  const none = spare([[]])

  test("is less by what is kept, and not by what is turned down", () => {
    const one = spare([[prompt(1, 400, 1_000_000)]])
    expect(none - one).toBeGreaterThanOrEqual(400)
    expect(none - one).toBeLessThan(420)
    expect(spare([[prompt(1, 400, 20_000)]])).toBe(none)
    expect(spare([[prompt(1, 400, 60_000_000)]])).toBe(none)
    expect(spare([[prompt(1, 400, 59_999_999)]])).toBe(one)
  })

  test("is that of the last choice", () => {
    const [one, two] = [[prompt(1, 400, 1_000_000)], [alike(2), alike(3)]]
    expect(spare([two, one])).toBe(spare([one]))
    expect(spare([one, two])).toBe(spare([two]))
    expect(spare([two, []])).toBe(none)
  })

  test("is less by a common prefix once, and by it no more when all that had it are turned down for memory", () => {
    const own = (id: number) => prompt(id, 80, 1_000_000)
    expect(spare([[own(1), own(2)]]) - spare([[alike(1), alike(2)]])).toBeCloseTo(320)
    // 1,700 firm tokens leave no room for them, together or alone.
    const firm = prompt(9, 1700, 1_000_000, { firm: true })
    expect(spare([[alike(1), alike(2), firm]])).toBeCloseTo(spare([[firm]]))
    const less = prompt(9, 1560, 1_000_000, { firm: true })
    expect(spare([[less, alike(1), alike(2)]])).toBeCloseTo(spare([[less, alike(1)]]))
  })

  test("is less by what firm promises take that are counted to the token", () => {
    const options = { admission: "firm", margin: 0 } as const
    expect(spare([[prompt(1, 400, 1_000_000)]], options)).toBeCloseTo(spare([[prompt(1, 400, 1_000_000)]]))
    expect(spare([[prompt(1, 400, 1_000_000)], []], options)).toBeCloseTo(none)
  })

  test("is less once by one that came back as a decode", () => {
    const context = contextOf({ ...LARGE, ...limits }, { margin: 0, outputLengths: lengths(1) })
    const back = Object.assign(stream(context, 1, 1e6), { tier: "bestEffort" as const })
    const decodes: LiveRequest[] = []
    const running = { decodes, overdue: [], slackNeeded: 0, speculator: new Speculator(OPTIONS) }
    const admission = new Admission(OPTIONS)
    const batch = new BatchBuilder(context)
    batch.reset(NOW_US)
    expect([...admission.select(running, [back], context, NOW_US)]).toEqual([back])
    decodes.push(Object.assign(back, { tier: "slo" }))
    const spare = admission.spareKvTokens([], batch)
    admission.select(running, [], context, NOW_US)
    expect(spare).toBeCloseTo(admission.spareKvTokens([], batch))
  })

  test("one that comes back as a decode takes what it holds before it is among the decodes", () => {
    const context = contextOf({ ...LARGE, kvTokens: 1024 }, { margin: 0, outputLengths: lengths(1) })
    const back = stream(context, 1, 1e6, {}, { promptTokens: 700 })
    back.tier = "bestEffort"
    expect(kept([back, prompt(2, 600, 1_000_000)], { context })).toHaveLength(1)
    expect(kept([back, prompt(2, 200, 1_000_000)], { context })).toHaveLength(2)
  })
})

test("an admission that is asked again knows nothing of the last time", () => {
  const admission = new Admission(OPTIONS)
  const context = large()
  const running = { decodes: [], overdue: [], slackNeeded: 0, speculator: new Speculator(OPTIONS) }
  const ids = (prefills: LiveRequest[]) =>
    [...admission.select(running, prefills, context, NOW_US)].map(({ id }) => id)
  for (let i = 0; i < 2; i++) {
    expect(ids([prompt(1, 300, 50_000), prompt(2, 200, 54_000)])).toEqual([2])
    expect(ids([])).toEqual([])
    expect(ids([prompt(3, 500, 55_000)])).toEqual([3])
  }
  expect(admission.revoked.size).toBe(0)
})
