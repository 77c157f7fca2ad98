/** The paper's policy: which requests it admits, and what its batches are made of. A step is 5 ms and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import { BatchBuilder } from "../planner/batch-builder.ts"
import type { PlanningContext } from "../planner/context.ts"
import type { RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, LIMITS, liveOf } from "../testing.ts"
import { slosServePaper } from "./slos-serve-paper.ts"

const NOW_US = 1_000_000
const limits = { ...LIMITS, kvTokens: 64_000, maxSequences: 64, maxBatchTokens: 8192, minChunkTokens: 1 }

function prompt(id: number, promptTokens: number, dueUs = 9e6, changes: Partial<RequestSpec> = {}) {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US)
}
const promised = (request: LiveRequest) => Object.assign(request, { admitted: true })
const flex = (id: number, promptTokens = 900) => prompt(id, promptTokens, 9e6, { tier: "bestEffort" })

/** Its prompt of 100 tokens is computed; its next token is due so long from now. */
function decoding(
  context: PlanningContext,
  id: number,
  tpotUs: number,
  dueUs: number,
  changes: Partial<RequestSpec> = {},
) {
  const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
  const request = liveOf(id, { slo, ...changes }, NOW_US)
  context.kv.attach(id, [], -1, null)
  context.kv.grow(id, 101)
  request.computed = 100
  request.emit(1, -1, NOW_US, () => {})
  return promised(Object.assign(request, { dueUs: NOW_US + dueUs }))
}

function deciding(options: Partial<PolicyOptions> = {}, changes: Partial<typeof limits> = {}, cost = COST) {
  const log: string[] = []
  const given = { ...DEFAULT_OPTIONS, margin: 0, ...options }
  const actions = {
    demoted: ({ id }: LiveRequest, reason: string) => void log.push(`${id} ${reason}`),
    promoted: ({ id }: LiveRequest) => void log.push(`${id} promoted`),
    admitted: ({ id }: LiveRequest) => void log.push(`${id} admitted`),
    preempted: ({ id }: LiveRequest) => void log.push(`${id} preempted`),
  }
  const context = contextOf({ ...limits, ...changes }, { margin: given.margin, cost, actions })
  const batch = new BatchBuilder(context)
  const policy = slosServePaper(given)
  expect(policy.name).toBe("slos-serve-paper")
  const decide = (requests: LiveRequest[]) => {
    log.length = 0
    batch.reset(NOW_US)
    policy.decide(requests, batch, NOW_US)
    return batch.items.map(({ id, tokens, draft }) => [id, tokens, ...(draft > 0 ? [draft] : [])])
  }
  return { context, decide, log }
}

describe("arrivals", () => {
  test("are admitted where they can be in time, else turned down, and served all the same", () => {
    const { decide, log } = deciding()
    expect(decide([prompt(1, 500, 55_000)])).toEqual([[1, 500]])
    expect(log).toEqual(["1 admitted"])
    const late = prompt(2, 500, 54_999)
    expect(deciding().decide([late])).toEqual([[2, 500]])
    expect([late.tier, late.admitted]).toEqual(["bestEffort", false])
  })

  test("are as many as fit, and stay: later ones come beside them", () => {
    const { decide, log } = deciding()
    const first = prompt(1, 800, 170_000)
    decide([first])
    expect(log).toEqual(["1 admitted"])
    first.computed = 0
    const [second, third] = [prompt(2, 1000, 175_000), prompt(3, 100, 180_000)]
    decide([first, second, third])
    expect(log).toEqual(["2 wontFit", "3 admitted"])
    decide([first, second, third])
    expect(log).toEqual([])
  })

  test("never push a promise out, though more of them could be kept without it", () => {
    const { decide, log } = deciding()
    const line = [promised(prompt(1, 1600, 331_000)), prompt(2, 1000, 300_000), prompt(3, 1000, 300_000)]
    decide(line)
    expect([...log].sort()).toEqual(["2 admitted", "3 wontFit"])
    // Nor are promises broken where not even they can be kept.
    const short = deciding({}, { kvTokens: 1024 })
    const promises = [1, 2].map((id) => promised(prompt(id, 600)))
    short.decide([...promises, prompt(3, 10)])
    expect([short.log, promises.map(({ tier }) => tier)]).toEqual([["3 wontFit"], ["slo", "slo"]])
  })

  test("that were turned down come after those that were not", () => {
    const line = [prompt(1, 3900, 50_000), prompt(2, 100, 900_000)]
    expect(deciding().decide(line)).toEqual([
      [2, 100],
      [1, 3850],
    ])
  })

  test("find room beside the decodes only", () => {
    const log = (count: number) => {
      const given = deciding()
      const decodes = Array.from({ length: count }, (_, i) => decoding(given.context, 10 + i, 6_000, 6_000))
      given.decide([...decodes, prompt(1, 50, 60_000)])
      return given.log
    }
    // Batches of 6 ms have ten tokens.
    expect(log(2)).toEqual(["1 admitted"])
    expect(log(7)).toEqual(["1 wontFit"])
  })
})

describe("a batch", () => {
  test("without decodes is four longest batches long", () => {
    expect(deciding().decide([promised(prompt(1, 5000))])).toEqual([[1, 3950]])
    expect(deciding({ maxBatchUs: 50_000 }).decide([promised(prompt(1, 5000))])).toEqual([[1, 1950]])
  })

  test("is as long as the tightest pace, prompts by when they are due, then best effort", () => {
    const { context, decide } = deciding()
    const decodes = [decoding(context, 1, 30_000, 30_000), decoding(context, 2, 20_000, 20_000)]
    const prompts = [promised(prompt(3, 900, 800_000)), promised(prompt(4, 100, 700_000))]
    expect(decide([flex(5), ...decodes, ...prompts])).toEqual([
      [2, 1],
      [1, 1],
      [4, 100],
      [3, 48],
    ])
    for (const request of prompts) request.gone = true
    for (const request of decodes) request.batch = 0
    expect(decide([flex(5), ...decodes])).toEqual([
      [2, 1],
      [1, 1],
      [5, 148],
    ])
  })

  test("keeps its margin", () => {
    const { context, decide } = deciding({ margin: 0.2 })
    expect(decide([decoding(context, 1, 20_000, 20_000), promised(prompt(2, 900))])).toEqual([
      [1, 1],
      [2, 115],
    ])
  })

  test("leaves out decodes that are a whole token ahead of it, while there is prefill to do", () => {
    for (const other of [promised(prompt(3, 20)), flex(3, 20)]) {
      for (const [dueUs, runs] of [
        [40_000, false],
        [39_999, true],
      ] as const) {
        const { context, decide } = deciding()
        const items = decide([
          decoding(context, 1, 20_000, dueUs),
          Object.assign(other, { batch: 0, computed: 0 }),
        ])
        expect(items).toEqual(
          runs
            ? [
                [1, 1],
                [3, 20],
              ]
            : [[3, 20]],
        )
      }
    }
    const { context, decide } = deciding()
    expect(decide([decoding(context, 1, 20_000, 40_000)])).toEqual([[1, 1]])
  })

  test("has best-effort decodes where there is time", () => {
    const given = (prompted: number) => {
      const { context, decide } = deciding()
      const other = decoding(context, 9, 1e6, 1e6, { tier: "bestEffort" })
      return decide([other, decoding(context, 1, 20_000, 20_000), promised(prompt(2, prompted))])
    }
    expect(given(148)).toEqual([
      [1, 1],
      [2, 148],
      [9, 1],
    ])
    expect(given(149)).toEqual([
      [1, 1],
      [2, 149],
    ])
  })

  test("takes KV for promised work from best effort, not for best effort from anything", () => {
    const { context, decide, log } = deciding({}, { maxSequences: 1 })
    const other = decoding(context, 9, 1e6, 1e6, { tier: "bestEffort" })
    expect(decide([other, promised(prompt(2, 30))])).toEqual([[2, 30]])
    expect(log).toEqual(["9 preempted"])
    const second = deciding({}, { maxSequences: 1 })
    const holds = decoding(second.context, 9, 1e6, 1e6, { tier: "bestEffort" })
    expect(second.decide([flex(8), holds])).toEqual([[9, 1]])
  })

  test("has the decodes that could wait where nothing else fits", () => {
    const { context, decide, log } = deciding({}, { maxSequences: 1 })
    expect(decide([promised(prompt(2, 20)), decoding(context, 1, 20_000, 90_000)])).toEqual([[1, 1]])
    expect(log).toEqual([])
  })

  test("has the least there is of the first request where not even that is so", () => {
    const short = { maxBatchUs: 1000 }
    expect(deciding(short).decide([promised(prompt(1, 50)), promised(prompt(2, 50))])).toEqual([[1, 2]])
    const { context, decide } = deciding(short)
    const other = decoding(context, 9, 1e6, 1e6, { tier: "bestEffort" })
    expect(decide([other, promised(prompt(2, 50))])).toEqual([[9, 1]])
  })
})

describe("drafts", () => {
  const cost = { ...COST, pieces: [{ step: 5000, tokens: 100, specSteps: 10 }] }

  test("are as many as are set, where lengths are not chosen", () => {
    const { context, decide } = deciding({ fixedDraft: 2 })
    expect(decide([decoding(context, 1, 20_000, 20_000)])).toEqual([[1, 1, 2]])
    const none = deciding()
    expect(none.decide([decoding(none.context, 1, 20_000, 20_000)])).toEqual([[1, 1]])
  })

  test("are the plan's, and batches last as long as these let them, if no token is due before", () => {
    // Three tokens are verified, and two come out: 40 ms.
    for (const [dueUs, limitUs] of [
      [60_000, 40_000],
      [40_000, 40_000],
      [30_000, 30_000],
      [10_000, 20_000],
    ] as const) {
      const { context, decide } = deciding({ speculation: "on", maxSpeculation: 4 }, {}, cost)
      const items = decide([decoding(context, 1, 20_000, dueUs), promised(prompt(2, 900))])
      const tokens = (limitUs - 5000 - 20) / 100 - 3
      const decode = dueUs === 60_000 ? [] : [[1, 1, 2]]
      const prefill = dueUs === 60_000 ? Math.floor((40_000 - 5000) / 100) : Math.floor(tokens)
      expect(items).toEqual([...decode, [2, prefill]])
    }
  })

  test("are more where the pace is tighter", () => {
    const { context, decide } = deciding({ speculation: "on", maxSpeculation: 4 }, {}, cost)
    const decodes = [decoding(context, 1, 20_000, 20_000), decoding(context, 2, 40_000, 40_000)]
    expect(decide(decodes)).toEqual([
      [1, 1, 2],
      [2, 1],
    ])
  })

  test("are none where not even the plan keeps the pace", () => {
    const { context, decide } = deciding({ speculation: "on", fixedDraft: 2 }, {}, cost)
    expect(decide([decoding(context, 1, 1_000, 1_000), promised(prompt(2, 900))])).toEqual([[1, 1]])
  })
})
