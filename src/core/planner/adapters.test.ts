/** Adapters: a batch has as many as the engine computes at once, and each gets its turn. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { PolicyName } from "../policy/index.ts"
import { POLICY_NAMES } from "../policy/index.ts"
import type { Batch, RequestId, RequestSpec } from "../protocol.ts"
import { Played } from "../replica-testing.ts"
import { COST, contextOf, LIMITS, liveOf, runs } from "../testing.ts"
import { AdapterSteps } from "./adapter-steps.ts"
import { AdapterPlaces } from "./adapters.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { Demand } from "./feasible.ts"

const one = (id: number, adapter: number) => liveOf(id, adapter === 0 ? {} : { adapter })
const sloOf = (ttftUs: number, tpotUs: number) => ({
  ...{ ttftUs, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity },
})

/** A replica whose requests are known by their adapters. */
class PlayedAdapters extends Played {
  readonly adapters = new Map<RequestId, number>()

  constructor(maxAdapters: number, policy: PolicyName, more: object = {}) {
    super({ policy, limits: { ...LIMITS, maxAdapters }, ...more })
  }

  override arrives(id: RequestId, changes: Partial<RequestSpec> = {}): void {
    this.adapters.set(id, changes.adapter ?? 0)
    super.arrives(id, changes)
  }

  /** Batches until these have ended; fails where that takes too many. */
  until(ids: readonly RequestId[], mostSteps: number): Batch[] {
    const batches: Batch[] = []
    for (;;) {
      const run = this.poll().find((effect) => effect.type === "run")
      const ended = new Set(this.of("finished").map(({ id }) => id))
      if (ids.every((id) => ended.has(id))) return batches
      expect([run !== undefined, batches.length < mostSteps]).toEqual([true, true])
      batches.push(run!.batch)
      this.done(run!.batch)
    }
  }

  in({ items }: Batch): Set<number> {
    return new Set(items.map(({ id }) => this.adapters.get(id)!).filter((adapter) => adapter > 0))
  }
}

describe("places", () => {
  test("are for different adapters; what has none needs none", () => {
    const places = new AdapterPlaces(2)
    for (const adapter of [1, 1, 0, 2, 0]) {
      expect(places.allow(one(9, adapter))).toBe(true)
      places.take(one(9, adapter))
    }
    expect([0, 1, 2, 3].map((adapter) => places.allow(one(9, adapter)))).toEqual([true, true, true, false])
    places.clear()
    expect(places.allow(one(9, 3))).toBe(true)
  })

  test("that are reserved are nothing else's, until they are given up", () => {
    const places = new AdapterPlaces(1)
    places.reserve(1)
    places.reserve(2)
    expect([0, 1, 2].map((adapter) => places.allow(one(9, adapter)))).toEqual([true, true, false])
    places.take(one(9, 1))
    places.release()
    expect([1, 2].map((adapter) => places.allow(one(9, adapter)))).toEqual([true, false])
    places.clear()
    places.reserve(1)
    places.release()
    expect(places.allow(one(9, 2))).toBe(true)
  })

  test("are without end where the engine names no bound", () => {
    const places = new AdapterPlaces()
    for (let adapter = 1; adapter < 100; adapter++) {
      expect(places.allow(one(9, adapter))).toBe(true)
      places.take(one(9, adapter))
    }
  })

  test("no batch has more, and what is refused takes no KV from others", () => {
    const request = fc.record({
      adapter: fc.integer({ min: 0, max: 5 }),
      most: fc.integer({ min: 1, max: 200 }),
    })
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 3 }),
        (asked, maxAdapters) => {
          const context = contextOf({ ...LIMITS, maxAdapters, minChunkTokens: 1 })
          const batch = new BatchBuilder(context)
          batch.reset()
          const spare = asked.map(({ adapter }, id) => one(id, adapter))
          asked.forEach(({ most }, id) => {
            const allowed = batch.adapters.allow(spare[id]!)
            const got =
              id % 2 === 0 ? batch.prefill(spare[id]!, most, spare) : batch.prefillWithin(spare[id]!, 1e6)
            if (!allowed) expect([got, context.kv.holds(id)]).toEqual([0, false])
          })
          const adapters = new Set(
            batch.requests.map(({ spec }) => spec.adapter).filter((one) => one !== undefined),
          )
          expect(adapters.size).toBeLessThanOrEqual(maxAdapters)
          const first = asked[0]!.adapter
          for (const [id, { adapter }] of asked.entries())
            if (adapter === first || adapter === 0)
              expect(batch.has(spare[id]!) || batch.tokensLeft === 0).toBe(true)
        },
      ),
      { numRuns: runs(200) },
    )
  })
})

describe.each(POLICY_NAMES)("%s", (policy) => {
  test("computes all of more adapters than fit one batch, so many at a time", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 3 }),
        (adapters, maxAdapters) => {
          const engine = new PlayedAdapters(maxAdapters, policy)
          adapters.forEach((adapter, id) => {
            engine.arrives(id, { maxOutputTokens: 6, ...(adapter > 0 && { adapter }) })
          })
          const batches = engine.until([...adapters.keys()], 500)
          for (const batch of batches) expect(engine.in(batch).size).toBeLessThanOrEqual(maxAdapters)
        },
      ),
      { numRuns: runs(15) },
    )
  })
})

describe("turns", () => {
  /** Two streams that have just begun, of adapters 1 and 2, on an engine that computes two at once. */
  function streaming(
    tpotUs: number,
    options: object = {},
    policy: PolicyName = "slos-serve",
  ): PlayedAdapters {
    const engine = new PlayedAdapters(2, policy, { options: { margin: 0, ...options } })
    for (const adapter of [1, 2])
      engine.arrives(adapter, { adapter, promptTokens: 16, maxOutputTokens: 400, slo: sloOf(10_000, tpotUs) })
    engine.step()
    return engine
  }

  test.each(["slos-serve", "edf", "edf-drop", "qoserve"] as const)(
    "%s: a prompt of a third adapter is in time beside streams that can wait, and so are they",
    (policy) => {
      const engine = streaming(30_000, {}, policy)
      engine.arrives(3, { adapter: 3, promptTokens: 100, maxOutputTokens: 4, slo: sloOf(150_000, 60_000) })
      engine.until([3], 100)
      expect(engine.of("token").filter(({ lateUs }) => lateUs > 0)).toEqual([])
    },
  )

  test("a stream that found no place is in the next batch, which begins in time for it", () => {
    // A step of one decode takes 5.1 ms: three streams of 16 ms each, two adapters at once.
    const engine = streaming(16_000)
    engine.arrives(3, { adapter: 3, promptTokens: 16, maxOutputTokens: 400, slo: sloOf(1e6, 16_000) })
    for (let i = 0; i < 100; i++) engine.step()
    engine.poll()
    expect(engine.of("token").filter(({ lateUs }) => lateUs > 0)).toEqual([])
    expect(engine.of("token").filter(({ id }) => id === 3).length).toBeGreaterThan(20)
  })

  test("prompts of one adapter do not keep a stream of another waiting, where one is computed at once", () => {
    const engine = new PlayedAdapters(1, "slos-serve", { options: { margin: 0 } })
    engine.arrives(1, { adapter: 1, promptTokens: 16, maxOutputTokens: 40, slo: sloOf(10_000, 20_000) })
    engine.step()
    for (let id = 2; id < 12; id++)
      engine.arrives(id, { adapter: 2, promptTokens: 300, maxOutputTokens: 1, slo: sloOf(2e6, 1e6) })
    engine.until([1, 2, 3, 4, 5], 300)
    expect(engine.of("token").filter(({ lateUs }) => lateUs > 0)).toEqual([])
    // Its prompts do not wait for the end of the stream either.
    expect(engine.of("finished").at(-1)!.id).toBe(1)
  })

  test("nor two streams of others, where there are two places", () => {
    const engine = new PlayedAdapters(2, "slos-serve", { options: { margin: 0 } })
    for (const adapter of [1, 2, 3])
      engine.arrives(adapter, { adapter, promptTokens: 16, maxOutputTokens: 60, slo: sloOf(20_000, 14_000) })
    engine.step()
    engine.step()
    for (let id = 4; id < 8; id++)
      engine.arrives(id, { adapter: 4, promptTokens: 300, maxOutputTokens: 1, slo: sloOf(2e6, 1e6) })
    engine.until([1, 2, 3], 300)
    expect(engine.of("token").filter(({ lateUs }) => lateUs > 0)).toEqual([])
  })

  test("a stream that is late already goes before prompts that can wait", () => {
    const engine = new PlayedAdapters(1, "edf", { options: { margin: 0 } })
    engine.arrives(1, { adapter: 1, promptTokens: 16, maxOutputTokens: 20, slo: sloOf(10_000, 20_000) })
    engine.step()
    engine.nowUs += 1e6
    for (let id = 2; id < 5; id++)
      engine.arrives(id, { adapter: 2, promptTokens: 300, maxOutputTokens: 1, slo: sloOf(9e6, 1e6) })
    engine.until([1], 30)
    expect(engine.of("finished").map(({ id }) => id)).toEqual([1])
  })

  test("a place that was kept for a prompt that finds no sequence is the streams'", () => {
    const limits = { ...LIMITS, maxSequences: 3, maxAdapters: 1 }
    const engine = new PlayedAdapters(1, "edf", { limits, options: { margin: 0 } })
    for (const id of [1, 2, 3])
      engine.arrives(id, { adapter: 1, promptTokens: 16, maxOutputTokens: 20, slo: sloOf(50_000, 200_000) })
    engine.step()
    engine.arrives(4, { adapter: 2, promptTokens: 100, maxOutputTokens: 1, slo: sloOf(2e6, 1e6) })
    for (const { items } of engine.until([1, 2, 3], 30)) expect(items).toHaveLength(3)
  })

  test.each([
    ["waits for long", { bestEffortPatienceUs: 1e6, bestEffortEveryUs: 1e12 }],
    ["has had nothing for a while", { bestEffortPatienceUs: 1e12, bestEffortEveryUs: 1e6 }],
  ])("best effort that %s is computed beside streams that take all places", (_, options) => {
    // A step of both takes 5.2 ms.
    const engine = streaming(5300, options)
    engine.arrives(3, { adapter: 3, promptTokens: 16, maxOutputTokens: 2, tier: "bestEffort" })
    const batches = engine.until([3], 400)
    expect(batches.length).toBeGreaterThan(150)
    expect(engine.of("finished").map(({ id }) => id)).toEqual([3])
  })
})

describe("promises", () => {
  test("count the steps that adapters need one after the other", () => {
    const steps = new AdapterSteps(2)
    // 10 steps each by 100 ms.
    for (let adapter = 1; adapter <= 3; adapter++) steps.add(adapter, adapter, 0, 1e-4, 50)
    steps.add(undefined, 4, 0, 1e-4, 50)
    expect(steps.most(100_000)).toBeCloseTo(15)
    steps.drop(2)
    expect(steps.most(100_000)).toBeCloseTo(10)
    steps.restore(2)
    steps.addPrefill(4, 1)
    expect(steps.most(100_000)).toBeCloseTo(15.5)
    // Not for its prompt apart.
    steps.addPrefill(1, 1)
    expect(steps.most(100_000)).toBeCloseTo(15.5)
    steps.clear()
    expect(steps.most(100_000)).toBe(0)
  })

  test("are fewer where streams of several adapters share an engine that computes one at once", () => {
    const fits = (adapters: readonly (number | undefined)[], maxAdapters: number) => {
      const demand = new Demand(COST, { ...LIMITS, maxAdapters })
      demand.reset(0, 100_000, 1, 0)
      for (const adapter of adapters) {
        const stream = { startUs: 0, tpotUs: 8000, remaining: 100, contextTokens: 50, length: 1, expected: 1 }
        demand.addStream({ ...stream, ...(adapter !== undefined && { adapter }) })
      }
      return demand.fits(400_000)
    }
    // A step takes 5 ms and 0.1 ms a token.
    expect(fits([1, 1], 1)).toBe(true)
    expect(fits([1, undefined], 1)).toBe(true)
    expect(fits([1, 2], 1)).toBe(false)
    expect(fits([1, 2], 2)).toBe(true)
  })
})
