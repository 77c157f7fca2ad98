/** What a replica offers a request that it does not have yet: to keep its SLO and all that it has promised. A step is 5 ms
 * and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import { Tenants } from "../learn/tenants.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { PlanningContext } from "../planner/context.ts"
import type { RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { slosServe } from "./slos-serve.ts"

const NOW_US = 1_000_000
const limits = { ...LIMITS, kvTokens: 64_000, maxSequences: 1024, maxBatchTokens: 4096 }
const policyOf = (options: Partial<PolicyOptions> = {}) =>
  slosServe({ ...DEFAULT_OPTIONS, margin: 0, ...options })
const contextWith = (tenants?: Tenants) => contextOf(limits, { margin: 0, ...(tenants && { tenants }) })

/** Its first token is due so long from now. */
function prompt(id: number, promptTokens: number, dueUs: number, changes: Partial<RequestSpec> = {}) {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US)
}

function offered(
  request: LiveRequest,
  line: LiveRequest[] = [],
  policy = policyOf(),
  context: PlanningContext = contextWith(),
): boolean {
  const before = JSON.stringify(line.map(({ tier, admitted, computed }) => [tier, admitted, computed]))
  const answer = policy.offer!(line, request, context, NOW_US)
  expect(JSON.stringify(line.map(({ tier, admitted, computed }) => [tier, admitted, computed]))).toBe(before)
  expect([request.tier, request.admitted]).toEqual(["slo", false])
  return answer
}

test("no offer is made to a tenant that has no turn: late requests of another wait that was served far less", () => {
  const tenants = new Tenants([], 10)
  for (const tenant of [0, 1]) tenants.arrived({ tenant })
  const offeredTo = (tenant: number) =>
    offered(prompt(1, 10, 900_000, { tenant }), [late], policyOf(), contextWith(tenants))
  const late = Object.assign(prompt(2, 10, 0, { tenant: 1 }), { tier: "bestEffort" as const, order: 0 })
  expect([0, 1].map(offeredTo)).toEqual([true, true])
  tenants.served(prompt(3, 1000, 0), { position: 0, tokens: 1000 } as never, 0)
  expect([0, 1].map(offeredTo)).toEqual([false, true])
})

describe("an offer is made", () => {
  test("where the request can be in time", () => {
    expect([54_999, 55_000].map((dueUs) => offered(prompt(1, 500, dueUs)))).toEqual([false, true])
    const violated = Object.assign(prompt(1, 10, 900_000), { violated: true })
    expect(offered(violated)).toBe(false)
  })

  test("where all are in time beside it that were to be", () => {
    const line = () => [prompt(1, 300, 60_000)]
    expect(offered(prompt(2, 250, 60_000), line())).toBe(true)
    expect(offered(prompt(2, 251, 60_000), line())).toBe(false)
    // The larger one would go: it is here already.
    expect(offered(prompt(2, 100, 60_000), [prompt(1, 500, 60_000)])).toBe(false)
    expect(offered(prompt(2, 50, 60_000), [prompt(1, 500, 60_000)])).toBe(true)
  })

  test("whatever is late elsewhere: another tenant's would be, or cannot be in time anyway", () => {
    expect(offered(prompt(2, 100, 60_000, { tenant: 1 }), [prompt(1, 500, 60_000)])).toBe(true)
    expect(offered(prompt(2, 501, 60_000, { tenant: 1 }), [prompt(1, 500, 60_000)])).toBe(false)
  })

  test("by when each is due, in whatever order they came", () => {
    const line = () => [prompt(1, 200, 900_000), prompt(2, 300, 52_000)]
    expect(offered(prompt(3, 250, 60_000), line())).toBe(true)
    expect(offered(prompt(3, 260, 60_000), line())).toBe(false)
  })

  test("without regard to what has no promise, or to an offer made before", () => {
    const turnedDown = Object.assign(prompt(1, 500, 60_000), { tier: "bestEffort" as const })
    const none = liveOf(2, { tier: "bestEffort", promptTokens: 800 }, NOW_US)
    expect(offered(prompt(3, 500, 60_000), [turnedDown, none])).toBe(true)
    const policy = policyOf()
    for (const id of [3, 4]) expect(offered(prompt(id, 500, 60_000), [], policy)).toBe(true)
  })

  test("less what those take that have waited for too long", () => {
    const options = { bestEffortPatienceUs: 500_000 }
    const waits = (arrivalUs: number) => liveOf(1, { tier: "bestEffort", promptTokens: 800 }, arrivalUs)
    const beside = (dueUs: number, arrivalUs: number, changes: Partial<PolicyOptions> = {}) =>
      offered(prompt(3, 500, dueUs), [waits(arrivalUs)], policyOf({ ...options, ...changes }))
    // 65 / 64 of 55.1 ms.
    expect([55_960, 55_961].map((dueUs) => beside(dueUs, 500_000))).toEqual([false, true])
    expect(beside(55_000, 500_001)).toBe(true)
    // A plan to the token has no share to give away.
    expect(beside(55_001, 500_000, { admission: "firm" })).toBe(true)
  })

  test("not at the cost of a promise that was made, be its tenant far ahead", () => {
    const served = (tokens: number) => {
      const tenants = new Tenants([], 100)
      tenants.served(liveOf(0), { id: 0, position: 0, tokens, sample: true, draft: 0 }, 0)
      for (const tenant of [0, 1]) tenants.arrived(liveOf(0, { tenant }))
      return contextWith(tenants)
    }
    const context = served(12_000)
    const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs: 10_000, thinkingTpotUs: 10_000, maxGapUs: Infinity }
    const stream = liveOf(1, { slo }, NOW_US)
    context.kv.attach(1, [], -1, null)
    context.kv.grow(1, 101)
    stream.computed = 100
    stream.emit(1, -1, NOW_US, () => {})
    const ours = (promptTokens: number) => prompt(2, promptTokens, 70_000, { tenant: 1 })
    expect(offered(ours(500), [stream], policyOf(), context)).toBe(false)
    expect(offered(ours(300), [stream], policyOf(), context)).toBe(true)
  })

  test("not where it would stand behind as many as one decision looks at", () => {
    const line = (count: number) => Array.from({ length: count }, (_, id) => prompt(id, 1, 5_000_000))
    expect(offered(prompt(1000, 1, 5_000_001), line(511))).toBe(true)
    expect(offered(prompt(1000, 1, 5_000_001), line(512))).toBe(false)
    expect(offered(prompt(1000, 1, 4_999_999), line(512))).toBe(true)
  })
})
