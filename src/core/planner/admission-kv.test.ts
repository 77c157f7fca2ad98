/** Whose SLOs are kept where KV is scarce. */
import { describe, expect, test } from "vitest"
import type { PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf } from "../testing.ts"
import { Admission } from "./admission.ts"
import { kept, LARGE, large, lengths, NOW_US, OPTIONS, prompt, stream } from "./admission-testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { Speculator } from "./speculation/speculator.ts"

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
