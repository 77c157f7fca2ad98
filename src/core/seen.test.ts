/** Requests lost with their replica: what was seen of them from outside says all that the replica knew. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { startRequest } from "./moved.ts"
import type { Policy } from "./policy/policy.ts"
import type { Outcome, Progress, RequestSpec, StepResult } from "./protocol.ts"
import { aboard, Played } from "./replica-testing.ts"
import { progressOf, type SeenStart, type SeenStep } from "./seen.ts"
import { LIMITS, runs, specOf } from "./testing.ts"

/** What an observer outside keeps of one request. */
interface Watched {
  spec: RequestSpec
  steps: SeenStep[]
  start?: SeenStart
}

const slo = fc.record({
  ttftUs: fc.constantFrom(20_000, 200_000, Infinity),
  ttftSlowdown: fc.constantFrom(0, 0, 3),
  maxGapUs: fc.constantFrom(15_000, 60_000, Infinity),
  tpotUs: fc.constantFrom(9_000, 40_000, Infinity),
  thinkingTpotUs: fc.constantFrom(7_000, 20_000, Infinity),
})
const spec = fc.record({
  slo,
  promptTokens: fc.integer({ min: 1, max: 300 }),
  thinking: fc.boolean(),
  tier: fc.constantFrom("slo" as const, "slo" as const, "bestEffort" as const),
  /** Before it arrived. */
  waitedUs: fc.constantFrom(0, 5_000),
  /** Output tokens before the answer begins. */
  thoughts: fc.integer({ min: 0, max: 6 }),
})
/** How the steps go: their time, and how many tokens each request gets. */
const step = fc.record({
  durationUs: fc.integer({ min: 1, max: 50_000 }),
  tokens: fc.integer({ min: 1, max: 3 }),
})
const life = fc.record({
  specs: fc.array(spec, { minLength: 1, maxLength: 5 }),
  steps: fc.array(step, { minLength: 1, maxLength: 25 }),
  kvTokens: fc.constantFrom(768, 4096),
})
type Life = typeof life extends fc.Arbitrary<infer T> ? T : never

const DRAFT = 2

/** A replica's life, and what was seen of it. */
function lived({ specs, steps, kvTokens }: Life): { played: Played; watched: Map<number, Watched> } {
  const played = new Played({ limits: { ...LIMITS, kvTokens, contextTokens: 384 }, policy: drafting })
  const watched = new Map<number, Watched>()
  played.nowUs = 10_000
  for (const [i, { waitedUs, thoughts: _, ...changes }] of specs.entries()) {
    const id = i + 1
    const asked = specOf(id, { ...changes, arrivalUs: played.nowUs - waitedUs, maxOutputTokens: 80 })
    played.arrives(id, asked)
    watched.set(id, { spec: asked, steps: [] })
  }
  for (const { durationUs, tokens } of steps) {
    const batch = played.poll().find((effect) => effect.type === "run")?.batch
    if (batch === undefined) break
    const results: Record<number, Partial<StepResult>> = {}
    for (const { id, sample, draft } of batch.items.filter((item) => item.sample)) {
      const seen = watched.get(id)!
      const before = seen.steps.reduce((sum, one) => sum + one.tokens, 0)
      const count = sample ? Math.min(tokens, 1 + draft, 80 - before) : 0
      const from = specs[id - 1]!.thoughts - before
      const answeringFrom = seen.spec.thinking && from >= 0 && from < count ? from : -1
      results[id] = { tokens: count, answeringFrom }
      const start = played.replica.startOf(id)!
      seen.start = start
      seen.steps.push({ atUs: played.nowUs + durationUs, tokens: count, answeringFrom })
    }
    played.done(batch, results, durationUs)
  }
  return { played, watched }
}

/** First come, first served, with drafts. */
const drafting = (): Policy => ({
  name: "drafting",
  decide: (requests, batch) => {
    for (const request of requests)
      if (request.decoding) batch.decode(request, requests, DRAFT)
      else batch.prefill(request, 128)
  },
})

test("their progress is what the replica would have handed over", () => {
  let compared = 0
  fc.assert(
    fc.property(life, (one) => {
      const { played, watched } = lived(one)
      for (const { request, progress } of played.replica.surrender()) {
        const seen = watched.get(request.id)!
        if (progress.output === 0) continue
        compared++
        const { preemptions: _, ...built } = progressOf(
          seen.spec,
          { ...(seen as Required<Watched>), prefix: [] },
          zeroLoadUs,
        )
        const { preemptions: __, ...own } = progress
        expect(built).toEqual(own)
      }
    }),
    { numRuns: runs(400) },
  )
  expect(compared).toBeGreaterThan(runs(400) / 2)
})

test("wherever a stream is cut, it is judged as if it had not been", () => {
  fc.assert(
    fc.property(
      spec,
      fc.array(
        fc.record({ afterUs: fc.integer({ min: 1, max: 60_000 }), tokens: fc.integer({ min: 1, max: 3 }) }),
        {
          minLength: 2,
          maxLength: 20,
        },
      ),
      fc.nat(),
      (asked, gaps, at) => {
        const { thoughts, waitedUs: _, ...changes } = asked
        const full = specOf(1, { ...changes, arrivalUs: 5_000, maxOutputTokens: 80 })
        let nowUs = 8_000
        let count = 0
        const steps = gaps.map(({ afterUs, tokens }): SeenStep => {
          const from = thoughts - count
          count += tokens
          nowUs += afterUs
          const answers = full.thinking && from >= 0 && from < tokens
          return { atUs: nowUs, tokens, answeringFrom: answers ? from : -1 }
        })
        const whole = judged(full, steps)
        const cut = 1 + (at % (steps.length - 1))
        const start = { ttftUs: whole.ttftUs, queuedUs: 500, cachedTokens: 16 }
        const begun = progressOf(full, { steps: steps.slice(0, cut), prefix: [7], start }, zeroLoadUs)
        const rest = judged(full, steps.slice(cut), begun)
        expect(rest).toEqual({ ...whole, startedUs: 5_500, cachedTokens: 16, preemptions: 1 })
      },
    ),
    { numRuns: runs(400) },
  )
})

/** The outcome of a request whose steps these are, or are the rest. */
function judged(asked: RequestSpec, steps: readonly SeenStep[], begun?: Progress): Outcome {
  const request = startRequest(asked, 0, 0, zeroLoadUs, begun)
  for (const { tokens, answeringFrom, atUs } of steps) request.emit(tokens, answeringFrom, atUs, () => {})
  return request.outcome(steps.at(-1)!.atUs, true)
}
const zeroLoadUs = (tokens: number) => 20_000 + tokens * 100

describe("a request of which little was said", () => {
  const step = { atUs: 40_000, tokens: 2, answeringFrom: -1 }

  test("is due by this replica's prefill time, and began with its first token", () => {
    const asked = specOf(1, {
      arrivalUs: 10_000,
      slo: { ...specOf(1).slo, ttftSlowdown: 5 },
      promptTokens: 100,
    })
    const progress = progressOf(asked, { steps: [step], prefix: [] }, zeroLoadUs)
    expect(progress).toMatchObject({ deadlineUs: 160_000, startedUs: 40_000, cachedTokens: 0, output: 2 })
    const start = { ttftUs: 70_000, queuedUs: 3_000, cachedTokens: 32 }
    expect(progressOf(asked, { steps: [step], prefix: [], start }, zeroLoadUs)).toMatchObject({
      ...{ deadlineUs: 80_000, startedUs: 13_000, cachedTokens: 32 },
    })
  })

  test("comes without a promise, in the tier that it asked for, its KV lost", () => {
    const asked = specOf(1, { arrivalUs: 10_000 })
    expect(progressOf(asked, { steps: [step], prefix: [4] }, zeroLoadUs)).toMatchObject({
      ...{ admitted: false, tier: "slo", preemptions: 1, prefix: [4] },
    })
  })
})

describe("a request whose tokens are all out, only its end was lost with its replica", () => {
  const steps = [
    { atUs: 40_000, tokens: 1, answeringFrom: -1 },
    { atUs: 60_000, tokens: 2, answeringFrom: -1 },
  ]
  const asked = specOf(1, { arrivalUs: 10_000, maxOutputTokens: 3 })

  test.each([
    ["length", asked, false],
    ["stop", { ...asked, maxOutputTokens: 9 }, true],
    // The last token may be both.
    ["stop", asked, true],
  ] as const)("ends at once (%s) as of its last token, whatever else there is", (reason, of, stopped) => {
    const played = new Played({ maxQueue: 0, limits: { ...LIMITS, contextTokens: 50, kvTokens: 64 } })
    played.nowUs = 900_000
    played.arrives(1, of, progressOf(of, { steps, prefix: [], stopped }, zeroLoadUs))
    expect(played.poll().map(({ type }) => type)).toEqual(["stageDone", "finished"])
    const [finished] = played.of("finished")
    expect(finished).toMatchObject({
      reason,
      outcome: {
        finishedUs: 60_000,
        outputTokens: 3,
        maxGapUs: 20_000,
        attained: true,
        firstTokenUs: 40_000,
      },
    })
    expect(played.replica.snapshot(900_000)).toMatchObject({ waiting: 0, running: 0 })
    // The engine never had it.
    played.arrives(2, { promptTokens: 8, maxOutputTokens: 4 }, firstOf(2))
    expect(played.runs()).toMatchObject({ evict: [], release: [1] })
  })

  test("is a request like any other where a token is still to come", () => {
    const played = new Played()
    const more = { ...asked, maxOutputTokens: 4 }
    played.nowUs = 70_000
    played.arrives(1, more, progressOf(more, { steps, prefix: [] }, zeroLoadUs))
    const batch = played.runs()
    expect(batch.items).toMatchObject([{ position: 0, tokens: 103, sample: true }])
    played.done(batch)
    played.poll()
    expect(aboard(batch)).toEqual([1])
    expect(played.of("finished")).toMatchObject([
      { reason: "length", outcome: { outputTokens: 4, promptTokens: 100 } },
    ])
  })

  function firstOf(id: number): Progress {
    const of = specOf(id, { arrivalUs: 10_000 })
    return progressOf(of, { steps: steps.slice(0, 1), prefix: [] }, zeroLoadUs)
  }
})
