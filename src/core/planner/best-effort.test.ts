/** What requests without a promise get: those that have waited too long a share of their own, the others what is left.
 * A step is 5 ms and 0.1 ms a token, without a margin. */
import { describe, expect, test } from "vitest"
import { ArrivalSlack } from "../learn/arrival-slack.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { mayStart, pickOverdue, serveBestEffort, serveOverdue } from "./best-effort.ts"
import type { PlanningContext } from "./context.ts"
import { emptyWork, sortWork, type Work } from "./work.ts"

const PATIENCE_US = 10_000_000
/** A sixty-fourth of it: two sequences, 1,000 tokens. */
const limits = { ...LIMITS, kvTokens: 64_000, maxSequences: 128, minChunkTokens: 1 }
const contextWith = (changes: Partial<typeof limits> = {}) =>
  contextOf({ ...limits, ...changes }, { margin: 0 })

/** Arrived at this time, without an SLO; 400 tokens of prompt and, as far as is known, 50 of output. */
const flex = (id: number, arrivalUs = 0, promptTokens = 400) =>
  liveOf(id, { tier: "bestEffort", promptTokens }, arrivalUs)
/** Turned down; its next token is due at this time. */
const turnedDown = (id: number, dueUs: number) =>
  Object.assign(liveOf(id, { promptTokens: 400 }), { tier: "bestEffort", dueUs })
const ids = (requests: readonly LiveRequest[]) => requests.map(({ id }) => id)

/** It holds its prompt's KV and has a token. */
function decoding(request: LiveRequest, context: PlanningContext): LiveRequest {
  context.kv.attach(request.id, [], -1, null)
  context.kv.grow(request.id, request.spec.promptTokens)
  return Object.assign(request, { computed: request.spec.promptTokens, output: 1 })
}

function workOf(requests: LiveRequest[], work: Work = emptyWork()): Work {
  return sortWork(requests, work)
}

describe("the overdue", () => {
  function overdue(
    requests: LiveRequest[],
    nowUs = PATIENCE_US,
    context = contextWith(),
    work = emptyWork(),
  ) {
    workOf(requests, work)
    pickOverdue(context, work, PATIENCE_US, nowUs)
    return { overdue: ids(work.overdue), yielding: ids(work.yielding), work }
  }

  test("have waited for as long as patience is, since they came or since their token was due", () => {
    expect(overdue([flex(1, 0), flex(2, 1)])).toMatchObject({ overdue: [1], yielding: [2] })
    expect(overdue([turnedDown(1, 1), turnedDown(2, 0)])).toMatchObject({ overdue: [2], yielding: [1] })
    expect(overdue([flex(1, 1)])).toMatchObject({ overdue: [], yielding: [1] })
  })

  test("are the first that came, as many as a share of sequences and KV holds", () => {
    expect(overdue([flex(1), flex(2), flex(3)])).toMatchObject({ overdue: [1, 2], yielding: [3] })
    // 450 and 550 tokens fit into 1,000, one more does not; a later one that is small enough does.
    expect(overdue([flex(1), flex(2, 0, 500)]).overdue).toEqual([1, 2])
    expect(overdue([flex(1), flex(2, 0, 501), flex(3)]).overdue).toEqual([1])
    expect(overdue([flex(1, 0, 100), flex(2, 0, 100), flex(3, 0, 100)]).overdue).toEqual([1, 2])
  })

  test("are at least one, however large it is and however small the engine", () => {
    expect(overdue([flex(1, 0, 2000), flex(2)]).overdue).toEqual([1])
    expect(overdue([flex(1), flex(2)], PATIENCE_US, contextWith({ maxSequences: 4 })).overdue).toEqual([1])
  })

  test("are none of those that hold KV: they go on anyway", () => {
    const context = contextWith()
    expect(overdue([decoding(flex(1), context), flex(2)], PATIENCE_US, context).overdue).toEqual([2])
  })

  test("stay until their end, and take their share until then", () => {
    const context = contextWith()
    const work = emptyWork()
    const [first, second, third] = [flex(1), flex(2), flex(3)]
    overdue([first, second, third], PATIENCE_US, context, work)
    // They have KV by now, and the third waits all the same.
    for (const request of [first, second]) decoding(request, context)
    expect(overdue([first, second, third], PATIENCE_US, context, work).overdue).toEqual([1, 2])
    first.gone = true
    expect(overdue([second, third], PATIENCE_US, context, work)).toMatchObject({
      ...{ overdue: [2, 3], yielding: [] },
    })
    second.tier = "slo"
    expect(overdue([second, third], PATIENCE_US, context, work).overdue).toEqual([3])
  })

  test("that stay may be all that their share of KV holds", () => {
    const work = emptyWork()
    const [large, small] = [flex(1, 0, 990), flex(2, 0, 10)]
    overdue([large], PATIENCE_US, contextWith(), work)
    expect(overdue([large, small], PATIENCE_US, contextWith(), work).overdue).toEqual([1])
  })

  test("are served before other work: decodes always, prompts as far as they fit", () => {
    const context = contextWith()
    const work = emptyWork()
    const [first, second] = [decoding(flex(1), context), flex(2)]
    workOf([first, second], work)
    work.overdue = [first, second]
    work.yielding = []
    const batch = new BatchBuilder(context)
    serveOverdue(batch, work, 20_000, PATIENCE_US)
    expect(batch.items).toMatchObject([
      { id: 1, tokens: 1 },
      { id: 2, tokens: 149 },
    ])
    // What is in the batch already is not added again, and what does not fit is left out.
    serveOverdue(batch, work, 20_000, PATIENCE_US)
    expect(batch.items).toHaveLength(2)
    batch.reset()
    serveOverdue(batch, work, 5_000, PATIENCE_US)
    expect(batch.items).toEqual([])
  })

  test("beside prompts with an SLO get one batch in sixty-four for theirs", () => {
    const context = contextWith()
    const work = emptyWork()
    const [late, prompt] = [flex(1), liveOf(2)]
    const batch = new BatchBuilder(context)
    const served = (nowUs: number, requests = [late, prompt]) => {
      workOf(requests, work)
      work.overdue = [late]
      work.yielding = []
      batch.reset()
      serveOverdue(batch, work, 6_000, nowUs)
      return batch.items.map(({ tokens }) => tokens)
    }
    expect(served(384_000)).toEqual([10])
    expect(work.overdueServedUs).toBe(384_000)
    expect(served(384_000 + 383_999)).toEqual([])
    expect(served(384_000 + 384_000)).toEqual([10])
    prompt.gone = true
    expect(served(768_001, [late])).toEqual([10])
  })
})

describe("what is left of a batch", () => {
  const options: PolicyOptions = { ...DEFAULT_OPTIONS, margin: 0 }
  /** Tokens that a waiting prompt of 400 gets in a batch beside these SLO requests that decode. */
  function given(
    decodes: (context: PlanningContext) => LiveRequest[],
    { limitUs = 60_000, nowUs = 0, ...changes }: Partial<Work> & { limitUs?: number; nowUs?: number } = {},
  ): number {
    const context = contextWith()
    const running = decodes(context)
    const work = Object.assign(workOf([...running, flex(999)]), changes)
    const batch = new BatchBuilder(context)
    for (const request of running) batch.decode(request)
    serveBestEffort(batch, work, limitUs, options, nowUs)
    return batch.items.find(({ id }) => id === 999)?.tokens ?? 0
  }
  const decodes = (count: number) => (context: PlanningContext) =>
    Array.from({ length: count }, (_, id) => decoding(liveOf(id), context))

  test("is a little while SLO work runs, less where the batch must be shorter", () => {
    // 20 ms, of which the step takes 5.
    expect(given(decodes(1))).toBe(149)
    expect(given(decodes(50))).toBe(100)
    expect(given(decodes(1), { limitUs: 10_000 })).toBe(49)
    // A hundred and sixty would be all of it.
    expect(given(decodes(120), { limitUs: 17_000 })).toBe(0)
  })

  test("is the share that SLO work has not needed of late, as long as arrivals can wait", () => {
    // A decode takes a twentieth of its pace: what was needed sinks by 0.0006 to 0.2994.
    const spareUs = (0.8 - 0.299365) * (60_000 - 5_100)
    expect(given(decodes(1), { slackNeeded: 0.3 })).toBe(Math.floor((5_100 + spareUs - 5_100) / 100))
    expect(given(decodes(1), { slackNeeded: 0.8 })).toBe(149)
    const arrivalSlack = new ArrivalSlack()
    arrivalSlack.observe(25_000)
    expect(given(decodes(1), { slackNeeded: 0.3, arrivalSlack })).toBe(
      Math.floor((arrivalSlack.us - 5_100) / 100),
    )
    // Arrivals that cannot wait at all leave the little that there always is.
    arrivalSlack.observe(0)
    for (let i = 0; i < 100; i++) arrivalSlack.observe(0)
    expect(given(decodes(1), { slackNeeded: 0.3, arrivalSlack })).toBe(149)
  })

  test("is remembered as needed for two seconds of steps", () => {
    const context = contextWith()
    const slo = { ...liveOf(0).spec.slo, tpotUs: 50_000 }
    const running = Array.from({ length: 50 }, (_, id) => decoding(liveOf(id, { slo }), context))
    const batch = new BatchBuilder(context)
    for (const request of running) batch.decode(request)
    const work = workOf([...running, flex(999)])
    serveBestEffort(batch, work, 60_000, options, 7)
    // Ten of fifty milliseconds were needed.
    expect(work.slackNeeded).toBeCloseTo(1 - 0.005 * 0.8, 6)
    expect(work.bestEffortServedUs).toBe(7)
  })

  test("is a whole batch where nothing has an SLO, as long as arrivals can wait, and worth its fixed cost", () => {
    expect(given(() => [])).toBe(400)
    const arrivalSlack = new ArrivalSlack()
    arrivalSlack.observe(15_000)
    expect(given(() => [], { arrivalSlack })).toBe(Math.floor((arrivalSlack.us - 5_000) / 100))
    for (let i = 0; i < 100; i++) arrivalSlack.observe(0)
    // 1.7 times a step of one token.
    expect(given(() => [], { arrivalSlack })).toBe(36)
    expect(given(() => [], { prefills: [liveOf(1)] })).toBe(150)
  })

  test("is all that the tightest decode can spare after five seconds of nothing", () => {
    expect(given(decodes(1), { nowUs: 4_999_999 })).toBe(149)
    expect(given(decodes(1), { nowUs: 5_000_000 })).toBe(400)
    expect(given(decodes(1), { nowUs: 7_000_000, bestEffortServedUs: 2_000_001 })).toBe(149)
    expect(given(decodes(1), { nowUs: 5_000_000, limitUs: 30_000 })).toBe(249)
  })

  test("counts from when it was last served, or there was nothing to serve", () => {
    const context = contextWith()
    const work = workOf([flex(1)])
    serveBestEffort(new BatchBuilder(context), work, 1_000, options, 7)
    expect(work.bestEffortServedUs).toBe(7)
    const busy = workOf([decoding(liveOf(2), context), flex(3)])
    serveBestEffort(new BatchBuilder(context), busy, 1_000, options, 7)
    expect(busy.bestEffortServedUs).toBe(0)
    serveBestEffort(new BatchBuilder(context), workOf([], busy), 1_000, options, 8)
    expect(busy.bestEffortServedUs).toBe(8)
  })

  test("goes to decodes, too, as far as they fit", () => {
    const context = contextWith()
    const [slo, first, second] = [
      decoding(liveOf(1), context),
      decoding(flex(2), context),
      decoding(flex(3), context),
    ]
    const work = workOf([slo, first, second])
    const within = (limitUs: number) => {
      const batch = new BatchBuilder(context)
      for (const request of [slo, first, second]) request.batch = 0
      batch.decode(slo)
      serveBestEffort(batch, work, limitUs, options, 0)
      return ids(batch.requests)
    }
    expect(within(5_300)).toEqual([1, 2, 3])
    expect(within(5_299)).toEqual([1, 2])
    expect(within(5_199)).toEqual([1])
  })

  test("begins nothing for which promises leave no KV", () => {
    expect(given(decodes(1), { forecastSpareKv: () => 450 })).toBe(0)
    expect(given(decodes(1), { forecastSpareKv: () => 464 })).toBe(149)
  })

  test("is not spent twice on what two prompts begin with: the second waits for the first", () => {
    const begun = (second: number[]) => {
      const prefix = Array.from({ length: 6 }, (_, i) => i)
      const both = [prefix, second].map((prefix, i) =>
        liveOf(i + 1, { tier: "bestEffort", promptTokens: 100, prefix }),
      )
      const batch = new BatchBuilder(contextWith())
      serveBestEffort(batch, workOf(both), 60_000, options, 0)
      return ids(batch.requests)
    }
    expect(begun([0, 1, 2, 3, 4, 9])).toEqual([1])
    expect(begun([9, 1, 2, 3, 4, 5])).toEqual([1, 2])
  })

  test("goes to them by arrival, and KV is taken from the later ones", () => {
    const context = contextWith({ kvTokens: 256, contextTokens: 256 })
    const [first, second] = [flex(1, 0, 100), decoding(flex(2, 0, 200), context)]
    const batch = new BatchBuilder(context)
    serveBestEffort(batch, workOf([first, second]), 60_000, options, 0)
    expect(ids(batch.requests)).toContain(1)
    expect(batch.requests[0]).toBe(first)
    expect(second.preemptions).toBe(1)
    // Never from an earlier one, nor from one that is overdue.
    const other = contextWith({ kvTokens: 256, contextTokens: 256 })
    const [early, late] = [decoding(flex(1, 0, 200), other), flex(2, 0, 100)]
    const next = new BatchBuilder(other)
    serveBestEffort(next, workOf([early, late]), 60_000, options, 0)
    expect(early.preemptions).toBe(0)
    const third = contextWith({ kvTokens: 256, contextTokens: 256 })
    const [waits, overdue] = [flex(1, 0, 100), decoding(flex(2, 0, 200), third)]
    const work = workOf([waits, overdue])
    work.overdue = [overdue]
    serveBestEffort(new BatchBuilder(third), work, 60_000, options, 0)
    expect(overdue.preemptions).toBe(0)
  })
})

describe("a request without a promise may begin", () => {
  test("where the promises leave it the KV that it needs to its end", () => {
    const context = contextWith()
    const batch = new BatchBuilder(context)
    const work = emptyWork()
    let asked = 0
    work.forecastSpareKv = () => {
      asked++
      return 1000
    }
    // 450 tokens each, in whole blocks of 16.
    expect(mayStart(flex(1), batch, work)).toBe(true)
    expect(work.spareKvTokens).toBe(1000 - 464)
    expect(mayStart(flex(2), batch, work)).toBe(true)
    expect(mayStart(flex(3), batch, work)).toBe(false)
    expect(mayStart(flex(4, 0, 14), batch, work)).toBe(true)
    expect([work.spareKvTokens, asked]).toEqual([8, 1])
  })

  test("in any case where it holds KV already or is overdue", () => {
    const context = contextWith()
    const batch = new BatchBuilder(context)
    const work = emptyWork()
    work.forecastSpareKv = () => 0
    const late = flex(2)
    work.overdue = [late]
    expect(mayStart(decoding(flex(1), context), batch, work)).toBe(true)
    expect(mayStart(late, batch, work)).toBe(true)
    expect(mayStart(flex(3), batch, work)).toBe(false)
  })
})
