/** Which requests change their tier in a decision of the default policy, which of the turned down may return, and what it
 * learns of arrivals. A step is 5 ms and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import { ArrivalSlack } from "../learn/arrival-slack.ts"
import { Tenants } from "../learn/tenants.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import { BatchBuilder } from "../planner/batch-builder.ts"
import type { PlanningContext } from "../planner/context.ts"
import type { RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { slosServe } from "./slos-serve.ts"

const NOW_US = 10_000_000
const limits = { ...LIMITS, kvTokens: 64_000, maxSequences: 2048, maxBatchTokens: 4096, minChunkTokens: 1 }

function prompt(id: number, promptTokens: number, dueUs: number, changes: Partial<RequestSpec> = {}) {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US)
}
const turnedDown = (request: LiveRequest) => Object.assign(request, { tier: "bestEffort" as const })
const bestEffort = (id: number, promptTokens = 900) =>
  liveOf(id, { tier: "bestEffort", promptTokens, maxOutputTokens: 1 }, NOW_US)

/** A policy that decides again and again: what changed, and what runs. */
function deciding(
  options: Partial<PolicyOptions> = {},
  changes: Partial<typeof limits> = {},
  tenants?: Tenants,
) {
  const log: string[] = []
  let order: number[] = []
  const given = { ...DEFAULT_OPTIONS, margin: 0, ...options }
  const actions = {
    demoted: ({ id }: LiveRequest, reason: string) => void log.push(`${id} ${reason}`),
    promoted: ({ id }: LiveRequest) => void log.push(`${id} promoted`),
    admitted: ({ id }: LiveRequest) => void log.push(`${id} admitted`),
    preempted: ({ id }: LiveRequest) => void log.push(`${id} preempted`),
  }
  const parts = { margin: given.margin, actions, ...(tenants && { tenants }) }
  const context = contextOf({ ...limits, ...changes }, parts)
  const batch = new BatchBuilder(context)
  const policy = slosServe(given)
  const decide = (requests: LiveRequest[], nowUs = NOW_US) => {
    log.length = 0
    batch.reset(nowUs)
    policy.decide(requests, batch, nowUs)
    expect(policy.name).toBe("slos-serve")
    order = batch.items.map(({ id }) => id)
    return { log: [...log], items: Object.fromEntries(batch.items.map(({ id, tokens }) => [id, tokens])) }
  }
  return { context, decide, batch, order: () => order }
}

/** It runs: `promptTokens` are computed and a token is out, the next due so long from now. */
function decoding(
  context: PlanningContext,
  id: number,
  dueUs: number,
  changes: Partial<RequestSpec> = {},
  tpotUs = 1e6,
) {
  const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
  const request = liveOf(id, { slo, maxOutputTokens: 50, ...changes }, NOW_US)
  const { promptTokens } = request.spec
  context.kv.attach(id, [], -1, null)
  context.kv.grow(id, promptTokens + 1)
  request.computed = promptTokens
  request.emit(1, -1, NOW_US, () => {})
  return Object.assign(request, { dueUs: NOW_US + dueUs, violated: false })
}

describe("a decision", () => {
  test("turns down what does not fit, and says so; one that was counted on is told apart", () => {
    const requests = () => [prompt(1, 500, 60_000), prompt(2, 100, 60_000)]
    const turning = deciding()
    const turned = turning.decide(requests())
    expect(turned.log).toEqual(["1 wontFit"])
    // It comes after what is kept.
    expect([turning.order(), turned.items[2]]).toEqual([[2, 1], 100])
    const [first, second] = requests()
    const { decide } = deciding()
    expect(decide([first!]).log).toEqual([])
    expect(first!.admitted).toBe(true)
    first!.computed = 0
    expect(decide([first!, second!]).log).toEqual(["1 revoked"])
    expect([first!.admitted, second!.admitted]).toEqual([false, true])
  })

  test("takes back what fits again, once", () => {
    const { decide } = deciding()
    const [large, small] = [prompt(1, 500, 90_000), turnedDown(prompt(2, 100, 90_000))]
    // In two batches of 50 ms at most both are in time.
    expect(decide([large, small])).toEqual({ log: ["2 promoted"], items: { 1: 450 } })
    expect(small.tier).toBe("slo")
    expect([large.admitted, small.admitted]).toEqual([true, true])
  })

  test("tells what is promised from admission on where that is firm", () => {
    const { decide } = deciding({ admission: "firm", margin: 0.01 })
    const requests = [prompt(1, 500, 90_000), prompt(2, 100, 90_000)]
    expect(decide(requests).log).toEqual(["1 admitted", "2 admitted"])
    expect(decide(requests).log).toEqual([])
  })

  test("takes back no request that never had an SLO, is late, or cannot be in time", () => {
    const late = Object.assign(turnedDown(prompt(2, 10, 900_000)), { violated: true })
    const hopeless = turnedDown(prompt(3, 500, 54_999))
    const requests = [bestEffort(1, 10), late, hopeless]
    expect(deciding().decide(requests).log).toEqual([])
    expect(requests.map(({ tier }) => tier)).toEqual(["bestEffort", "bestEffort", "bestEffort"])
  })

  test("takes back one that had begun to decode, and it runs at once", () => {
    const { context, decide } = deciding()
    const decode = prompt(1, 100, 900_000, { maxOutputTokens: 50 })
    context.kv.attach(1, [], -1, null)
    context.kv.grow(1, 101)
    decode.computed = 100
    decode.emit(1, -1, NOW_US, () => {})
    turnedDown(decode)
    // 101 and 900 tokens take longer than a batch may; best effort would come last.
    const line = [decode, prompt(2, 1500, 900_000)]
    expect(decide(line)).toEqual({ log: ["1 promoted"], items: { 1: 1, 2: 949 } })
  })

  test("serves what may still be in time before other best effort, by when it is due, and only while it may", () => {
    const { decide } = deciding()
    // Arrivals can wait, and those below are counted no more.
    decide([Object.assign(prompt(99, 1, 60_000_000), { gone: true })])
    const hopeful = () => [prompt(1, 600, 70_500), prompt(3, 600, 70_000)].map(turnedDown)
    // It leaves room for ten tokens.
    const firm = () => prompt(2, 700, 76_000, { firm: true })
    const [first, second] = hopeful()
    const last = firm()
    expect(decide([bestEffort(0), first!, last, second!])).toEqual({ log: [], items: { 2: 700, 3: 10 } })
    for (const request of [first!, second!, last]) request.gone = true
    expect(decide([bestEffort(9, 20)]).items).toEqual({ 9: 20 })
  })
})

describe("besides, a decision", () => {
  test("turns down what is late, before anything else", () => {
    const violated = Object.assign(prompt(1, 10, 900_000), { violated: true })
    expect(deciding().decide([violated, prompt(2, 500, 54_999)]).log).toEqual(["1 violated", "2 wontFit"])
  })

  test("leaves the KV that promises will need, those that run and those that are yet to", () => {
    const small = { kvTokens: 1024 }
    expect(deciding({}, small).decide([prompt(1, 500, 900_000), bestEffort(2, 600)]).items).toEqual({
      1: 500,
    })
    expect(
      deciding({}, small).decide([prompt(1, 300, 900_000), bestEffort(2, 600)]).items[2],
    ).toBeGreaterThan(0)
    const { context, decide } = deciding({}, small)
    expect(decide([decoding(context, 1, 900_000, { promptTokens: 600 }), bestEffort(2, 600)]).items).toEqual({
      1: 1,
    })
  })

  test("chooses how much is drafted", () => {
    const { context, decide, batch } = deciding({ speculation: "on" })
    decide([decoding(context, 1, 900_000)])
    expect(batch.items[0]!.draft).toBeGreaterThan(0)
  })

  test("begins with those that have waited for too long, but where it counts to the token", () => {
    const waits = () => liveOf(1, { tier: "bestEffort", promptTokens: 300 }, 0)
    const options = { bestEffortPatienceUs: NOW_US }
    const line = () => [waits(), prompt(2, 900, 900_000)]
    const overdue = deciding(options)
    expect([overdue.decide(line()).items, overdue.order()]).toEqual([{ 1: 300, 2: 650 }, [1, 2]])
    const patient = deciding({ bestEffortPatienceUs: NOW_US + 1 })
    expect([patient.decide(line()).items[2], patient.order()[0]]).toEqual([900, 2])
    const exact = deciding({ ...options, admission: "firm" })
    expect([exact.decide(line()).items[2], exact.order()[0]]).toEqual([900, 2])
  })

  test("has decodes wait as long as they may where it counts to the token, though steps are dear", () => {
    for (const [admission, waits] of [
      ["firm", true],
      ["revocable", false],
    ] as const) {
      const { context, decide } = deciding({ admission })
      const line = [decoding(context, 1, 10_000), decoding(context, 2, 900_000), prompt(3, 900, 990_000)]
      expect(2 in decide(line).items).toBe(!waits)
    }
  })

  test("revokes for another tenant what one that is ahead was promised", () => {
    const tenants = new Tenants([], 100)
    tenants.served(liveOf(0), { id: 0, position: 0, tokens: 12_000, sample: true, draft: 0 }, 0)
    for (const tenant of [0, 1]) tenants.arrived(liveOf(0, { tenant }))
    const { context, decide, order } = deciding({}, {}, tenants)
    const stream = decoding(context, 1, 10_000, {}, 10_000)
    const { log, items } = decide([stream, prompt(2, 500, 70_000, { tenant: 1 })])
    expect(log).toEqual(["1 revoked"])
    // It is best effort from now on, and cuts no batch short.
    expect([stream.tier, order()[0], items[2]]).toEqual(["bestEffort", 2, 450])
  })
})

describe("of many that may return", () => {
  /** They are due one µs after the other, the last come first; each in time if it is among few. */
  const many = (count: number, dueUs = (id: number) => 4_000_000 + count - id) =>
    Array.from({ length: count }, (_, id) => turnedDown(prompt(id, 1, dueUs(id))))
  const returned = (requests: LiveRequest[]) =>
    deciding()
      .decide(requests)
      .log.map((line) => Number(line.split(" ")[0]))
      .sort((a, b) => a - b)
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

  test("256 are thought about, the first due", () => {
    expect(returned(many(256))).toEqual(range(0, 256))
    expect(returned(many(300))).toEqual(range(44, 300))
    // More than there was room for.
    expect(returned(many(1100))).toEqual(range(844, 1100))
  })

  test("of those due at one moment the first come", () => {
    expect(returned(many(300, () => 4_000_000))).toEqual(range(0, 256))
  })

  test("as many of a deep queue of prompts as one decision looks at, besides", () => {
    const queue = Array.from({ length: 600 }, (_, i) => prompt(1000 + i, 1, 5_000_000 + i))
    const { decide } = deciding()
    expect(decide([...many(300), ...queue]).log).toHaveLength(256)
    expect(queue.filter(({ admitted }) => admitted).map(({ id }) => id)).toEqual(range(1000, 1512))
  })
})

describe("how long arrivals can wait", () => {
  /** 100 tokens take 15 ms. */
  const waits = (id: number, slackUs: number, changes: Partial<RequestSpec> = {}) =>
    prompt(id, 100, 15_000 + slackUs, changes)
  /** Tokens that best effort gets of 900, alone, after these decisions. */
  function tokensAfter(...decisions: LiveRequest[][]): number {
    const { context, decide } = deciding()
    for (const requests of decisions) {
      decide(requests)
      for (const { id } of requests) if (context.kv.holds(id)) context.kv.drop(id)
      for (const request of requests) Object.assign(request, { computed: 0, batch: 0 })
    }
    for (const requests of decisions) for (const request of requests) request.gone = true
    return decide([bestEffort(99_999)]).items[99_999]!
  }
  function expected(...slacksUs: number[]): number {
    const slack = new ArrivalSlack()
    for (const us of slacksUs) slack.observe(us)
    return Math.floor((slack.us - 5000) / 100)
  }

  test("is learnt from each that comes, once", () => {
    const first = waits(1, 20_000)
    expect(expected(20_000)).toBeLessThan(200)
    expect(tokensAfter([first])).toBe(expected(20_000))
    const [second, third] = [waits(2, 30_000), waits(3, 25_000)]
    expect(tokensAfter([waits(1, 20_000), second], [second, third], [third])).toBe(
      expected(30_000, 20_000, 25_000),
    )
  })

  test("is not of those without an SLO, nor of those that come with a token", () => {
    const moved = Object.assign(waits(2, 1_000, { maxOutputTokens: 9 }), { output: 1 })
    expect(tokensAfter([waits(1, 20_000), moved])).toBe(expected(20_000))
    expect(tokensAfter([waits(1, 20_000), bestEffort(2)])).toBe(expected(20_000))
    expect(tokensAfter([bestEffort(2)])).toBe(900)
  })
})
