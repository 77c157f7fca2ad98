/** Whose SLOs are kept: promises, firm ones, and those of tenants that were served more. */
import { describe, expect, test } from "vitest"
import { Tenants } from "../learn/tenants.ts"
import { countsExactly, DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, liveOf } from "../testing.ts"
import { Admission } from "./admission.ts"
import { type Given, kept, LARGE, NOW_US, OPTIONS, prompt, stream } from "./admission-testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import type { PlanningContext } from "./context.ts"
import { Speculator } from "./speculation/speculator.ts"

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
