/** One suite over every policy: what must hold whatever is decided. Workloads are random; a failing one is
 * printed by fast-check with its seed and path (replay: FC_SEED=… FC_PATH=… npx vitest run policy.suite). */
import { deepStrictEqual, equal, ok } from "node:assert/strict"
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { CostModel } from "../cost.ts"
import type { PolicyOptions } from "../options.ts"
import type { Batch, Effect, EngineLimits, RequestId } from "../protocol.ts"
import { POLICY_NAMES, type PolicyName } from "./index.ts"

const COST: CostModel = {
  pieces: [
    { step: 4000, passes: 3000, tokens: 400, sequences: 500, fastPairs: 0.2, slowPairs: 0.9, outputs: 100 },
    { step: 1000, tokens: 420, specSteps: 1500 },
  ],
  residualSigma: 0.05,
  fastPassTokens: 64,
  unifiedKv: false,
}

const replay = {
  ...(process.env.FC_SEED && { seed: Number(process.env.FC_SEED) }),
  ...(process.env.FC_PATH && { path: process.env.FC_PATH }),
}

const limitsArbitrary = fc.record({
  unifiedKv: fc.boolean(),
  maxSequences: fc.integer({ min: 2, max: 12 }),
  poolRequests: fc.integer({ min: 1, max: 4 }),
  cachedSequences: fc.constantFrom(0, 3, 100),
})

function limitsOf({
  unifiedKv,
  maxSequences,
  poolRequests,
  cachedSequences,
}: {
  unifiedKv: boolean
  maxSequences: number
  poolRequests: number
  cachedSequences: number
}): EngineLimits {
  const contextTokens = 512
  const kvTokens = contextTokens * (unifiedKv ? Math.min(maxSequences, poolRequests) : maxSequences)
  return {
    kvTokens,
    blockTokens: 16,
    maxSequences,
    cachedSequences: unifiedKv ? cachedSequences : 0,
    maxBatchTokens: 256,
    contextTokens,
    minChunkTokens: 64,
    unifiedKv,
  }
}

const requestArbitrary = fc.record({
  gapUs: fc.integer({ min: 0, max: 400_000 }),
  promptTokens: fc.integer({ min: 1, max: 400 }),
  outputTokens: fc.integer({ min: 1, max: 60 }),
  thinkingTokens: fc.integer({ min: 0, max: 30 }),
  spareTokens: fc.integer({ min: 0, max: 50 }),
  ttftUs: fc.constantFrom(50_000, 500_000, 2_000_000, Infinity),
  tpotUs: fc.constantFrom(20_000, 60_000, 200_000, Infinity),
  maxGapUs: fc.constantFrom(30_000, 150_000, Infinity),
  bestEffort: fc.boolean(),
  /** Requests of one family share their prompts' leading blocks. */
  family: fc.integer({ min: 0, max: 2 }),
  session: fc.integer({ min: -1, max: 2 }),
  acceptance: fc.constantFrom<number>(0, 0.3, 0.7, 1),
  cancelAfterUs: fc.option(fc.integer({ min: 0, max: 2_000_000 }), { freq: 5, nil: undefined }),
})
type Shape = typeof requestArbitrary extends fc.Arbitrary<infer T> ? T : never

function requestsOf(shapes: readonly Shape[]): SimRequest[] {
  let atUs = 0
  return shapes.map((shape, id) => {
    // Whole milliseconds: simultaneous events must happen often.
    atUs += Math.round(shape.gapUs / 100_000) * 100_000
    const thinkingTokens = Math.min(shape.thinkingTokens, shape.outputTokens - 1)
    return {
      atUs,
      outputTokens: shape.outputTokens,
      thinkingTokens,
      acceptance: shape.acceptance,
      ...(shape.cancelAfterUs !== undefined && { cancelAtUs: atUs + shape.cancelAfterUs }),
      spec: {
        id,
        app: shape.family,
        session: shape.session,
        promptTokens: shape.promptTokens,
        maxOutputTokens: shape.outputTokens + shape.spareTokens,
        prefix: Array.from(
          { length: Math.floor(shape.promptTokens / 16) },
          (_, i) => shape.family * 1000 + i,
        ),
        slo: {
          ttftUs: shape.ttftUs,
          ttftSlowdown: 0,
          tpotUs: shape.tpotUs,
          thinkingTpotUs: shape.tpotUs / 2,
          maxGapUs: shape.maxGapUs,
        },
        tier: shape.bestEffort ? ("bestEffort" as const) : ("slo" as const),
        thinking: thinkingTokens > 0,
      },
    }
  })
}

interface Held {
  computed: number
  output: number
}

/** Plays the engine's part as an independent bookkeeper: refuses every batch that a real one could not run. */
class Auditor {
  readonly log: string[] = []
  readonly ends = new Map<RequestId, string[]>()
  #held = new Map<RequestId, Held>()
  #requests: Map<RequestId, SimRequest>
  #limits: EngineLimits
  #inFlight: Batch | null = null
  #output = new Map<RequestId, number>()

  constructor(requests: readonly SimRequest[], limits: EngineLimits) {
    this.#requests = new Map(requests.map((r) => [r.spec.id, r]))
    this.#limits = limits
  }

  see(effect: Effect, nowUs: number): void {
    this.log.push(`${nowUs} ${JSON.stringify(effect)}`)
    if (effect.type === "run") this.#run(effect.batch)
    else if (effect.type === "token") {
      ok(!this.ends.has(effect.id), `token for ended request ${effect.id}`)
      this.#output.set(effect.id, (this.#output.get(effect.id) ?? 0) + effect.count)
      const most = this.#requests.get(effect.id)!.spec.maxOutputTokens
      ok(this.#output.get(effect.id)! <= most, `too many tokens for request ${effect.id}`)
      // What was accepted is in place, all but the last token.
      this.#held.get(effect.id)!.computed += effect.count - 1
    } else if (effect.type === "finished" || effect.type === "rejected") {
      this.ends.set(effect.id, [...(this.ends.get(effect.id) ?? []), effect.reason])
    }
  }

  /** The step in flight failed: nothing of it happened. */
  failed(): void {
    for (const item of this.#inFlight?.items ?? []) {
      if (item.position === 0 || item.copy) this.#held.delete(item.id)
      else this.#held.get(item.id)!.computed = item.position
    }
  }

  #run(batch: Batch): void {
    const limits = this.#limits
    const tokens = batch.items.reduce((n, item) => n + item.tokens + item.draft, 0)
    ok(tokens <= limits.maxBatchTokens, "more than the engine holds")
    equal(new Set(batch.items.map((item) => item.id)).size, batch.items.length)
    const gone = new Set([...batch.evict, ...batch.release])
    const sources = batch.items.flatMap((item) => (item.copy ? [{ ...item.copy }] : []))
    for (const { from, tokens } of sources) {
      expect(this.#held.get(from)?.computed, `copy of ${tokens} tokens from ${from}`).toBeGreaterThanOrEqual(
        tokens,
      )
    }
    for (const id of gone) this.#held.delete(id)
    for (const { id, tokens } of batch.trim ?? []) {
      const held = this.#held.get(id)!
      ok(this.ends.has(id) && tokens > 0, `trim of request ${id} to ${tokens} tokens`)
      // Cancelled in flight it may hold fewer: what it drafted was not all accepted.
      held.computed = Math.min(held.computed, tokens)
    }
    for (const item of batch.items) {
      const { spec } = this.#requests.get(item.id)!
      ok(!this.ends.has(item.id), `item for ended request ${item.id}`)
      if (item.position === 0 || item.copy)
        this.#held.set(item.id, { computed: item.copy?.tokens ?? 0, output: 0 })
      const held = this.#held.get(item.id)
      equal(held?.computed, item.position, `position of request ${item.id}`)
      held!.computed += item.tokens
      const known = spec.promptTokens + (this.#output.get(item.id) ?? 0)
      ok(held!.computed <= known, "more than the engine holds")
      equal(item.sample, held!.computed === known)
      ok(item.draft === 0 || item.sample, "a draft without a sampled row")
      ok(known + item.draft < spec.promptTokens + spec.maxOutputTokens, "a draft beyond the end")
    }
    const live = [...this.#held.keys()].filter((id) => !this.ends.has(id))
    ok(live.length <= limits.maxSequences, "more live requests than the engine holds")
    ok(this.#held.size <= limits.maxSequences + (limits.cachedSequences ?? 0), "more than the engine holds")
    if (!limits.unifiedKv) return void (this.#inFlight = batch)
    // Cells of shared prefixes count once in the pool: blocks by family, the rest per request.
    const shared = new Map<string, true>()
    let own = batch.items.reduce((n, item) => n + item.draft, 0)
    for (const [id, held] of this.#held) {
      const { spec } = this.#requests.get(id)!
      const full = Math.min(spec.prefix.length, Math.floor(held.computed / limits.blockTokens))
      for (let i = 0; i < full; i++) shared.set(`${spec.prefix[i]}`, true)
      own += held.computed - full * limits.blockTokens
    }
    ok(own + shared.size * limits.blockTokens <= limits.kvTokens, "more than the engine holds")
    this.#inFlight = batch
  }
}

function play(
  policy: PolicyName,
  shapes: readonly Shape[],
  limits: EngineLimits,
  failing: readonly number[] = [],
  options: Partial<PolicyOptions> = {},
) {
  const requests = requestsOf(shapes)
  const auditor = new Auditor(requests, limits)
  const config = { limits, cost: { ...COST, unifiedKv: limits.unifiedKv }, policy, apps: 3, options }
  let noise = 0
  simulate({
    config,
    requests,
    noise: () => 0.9 + 0.2 * ((noise = (noise * 7 + 3) % 11) / 11),
    fails: (batch) => {
      if (!failing.includes(batch)) return null
      auditor.failed()
      return batch % 2 === 0 ? "kvFull" : "engineError"
    },
    check: true,
    maxPolls: 20_000,
    onEffect: (effect, nowUs) => auditor.see(effect, nowUs),
  })
  return { auditor, requests }
}

const modes: [string, Partial<PolicyOptions>][] = [
  ["", {}],
  [" speculating", { speculation: "on", acceptancePrior: 0.6 }],
  [" with fixed drafts", { fixedDraft: 3 }],
]
const cases = POLICY_NAMES.flatMap((policy) =>
  modes.map(([mode, options]) => ({ name: policy + mode, policy, mode, options })),
)

describe.each(cases)("policy $name", ({ policy, mode, options }) => {
  const workload = fc.array(requestArbitrary, { minLength: 1, maxLength: 24 })

  test("runs only what the engine can run, and ends every request exactly once", () => {
    fc.assert(
      fc.property(workload, limitsArbitrary, (shapes, size) => {
        const { auditor, requests } = play(policy, shapes, limitsOf(size), [], options)
        for (const { spec } of requests) equal(auditor.ends.get(spec.id)?.length, 1, `ends of ${spec.id}`)
      }),
      { numRuns: mode === "" ? 100 : 60, ...replay },
    )
  })

  test("loses no request when steps fail now and then", () => {
    const failing = fc.uniqueArray(fc.integer({ min: 1, max: 60 }), { maxLength: 8 })
    fc.assert(
      fc.property(workload, limitsArbitrary, failing, (shapes, size, steps) => {
        const { auditor, requests } = play(policy, shapes, limitsOf(size), steps, options)
        for (const { spec } of requests) equal(auditor.ends.get(spec.id)?.length, 1, `ends of ${spec.id}`)
      }),
      { numRuns: mode === "" ? 60 : 30, ...replay },
    )
  })

  test("decides the same for the same events", () => {
    fc.assert(
      fc.property(workload, limitsArbitrary, (shapes, size) => {
        const run = () => play(policy, shapes, limitsOf(size), [], options).auditor.log
        deepStrictEqual(run(), run())
      }),
      { numRuns: 20, ...replay },
    )
  })

  test("serves a lone request at once, whatever its size", () => {
    const one = { gapUs: 0, promptTokens: 400, outputTokens: 20, thinkingTokens: 0, spareTokens: 0 }
    const shape = {
      ...one,
      ttftUs: 1e6,
      tpotUs: 2e5,
      bestEffort: false,
      family: 0,
      session: -1,
      cancelAfterUs: undefined,
      acceptance: 0.7,
      maxGapUs: Infinity,
    }
    const { auditor } = play(
      policy,
      [shape],
      limitsOf({ unifiedKv: false, maxSequences: 4, poolRequests: 4, cachedSequences: 0 }),
      [],
      options,
    )
    const finished = auditor.log.at(-1)!
    expect(finished).toContain('"type":"finished"')
    expect(JSON.parse(finished.slice(finished.indexOf("{"))).outcome.attained).toBe(true)
    const { fixedDraft } = options
    if (fixedDraft !== undefined)
      expect(auditor.log.some((line) => line.includes(`"draft":${fixedDraft}`))).toBe(true)
  })
})
