/** The default policy's own rules: what turns a request down, what waits for what, and how long best effort may take. */
import { describe, expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import { DEFAULT_OPTIONS } from "../options.ts"
import { BatchBuilder } from "../planner/batch-builder.ts"
import type { Batch, EngineLimits, Outcome, Slo } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { COST, contextOf, LIMITS, liveOf, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"
import { slosServe } from "./slos-serve.ts"

const sloOf = (ttftMs: number, tpotMs: number): Slo => ({
  ttftUs: ttftMs * 1000,
  ttftSlowdown: 0,
  tpotUs: tpotMs * 1000,
  thinkingTpotUs: tpotMs * 1000,
  maxGapUs: Infinity,
})

/** One decision about these requests, at time 0. Answers which were turned down. */
function decide(requests: readonly LiveRequest[], limits = LIMITS): Set<number> {
  const options = { ...DEFAULT_OPTIONS, margin: 0 }
  const down = new Set<number>()
  const actions = {
    demoted: ({ id }: LiveRequest) => void down.add(id),
    promoted: ({ id }: LiveRequest) => void down.delete(id),
    admitted() {},
    preempted() {},
  }
  const batch = new BatchBuilder(contextOf(limits, { margin: 0, actions }))
  slosServe(options).decide(requests, batch, 0)
  expect(batch.items.length).toBeGreaterThan(0)
  return down
}

interface Seen {
  outcomes: Map<number, Outcome>
  batches: { batch: Batch; atUs: number }[]
  /** First token, by request, µs. */
  firstUs: Map<number, number>
}

function run(policy: PolicyName, requests: readonly SimRequest[], limits: EngineLimits): Seen {
  const seen: Seen = { outcomes: new Map(), batches: [], firstUs: new Map() }
  simulate({
    config: { limits, cost: COST, policy, apps: 2 },
    requests,
    onEffect: (effect, atUs) => {
      if (effect.type === "finished") {
        expect(seen.outcomes.has(effect.id)).toBe(false)
        seen.outcomes.set(effect.id, effect.outcome)
      } else if (effect.type === "run") seen.batches.push({ batch: effect.batch, atUs })
      else if (effect.type === "token" && !seen.firstUs.has(effect.id)) seen.firstUs.set(effect.id, atUs)
    },
  })
  return seen
}

describe("a stream that runs", () => {
  /** A prompt of 500 tokens due in 70 ms, beside a stream of this pace whose first token came out just now. */
  function promptIsKept(tpotMs: number): boolean {
    const stream = liveOf(1, { slo: sloOf(0, tpotMs) })
    stream.computed = 100
    stream.emit(1, -1, 0, () => {})
    const prompt = liveOf(2, { promptTokens: 500, slo: sloOf(70, 1000) })
    return !decide([stream, prompt]).has(2)
  }

  test("and can keep its pace is a reason to turn a prompt down", () => {
    expect(promptIsKept(60)).toBe(true)
    expect(promptIsKept(10)).toBe(false)
  })

  test("and cannot, as no step is so short, is none", () => {
    expect(promptIsKept(5)).toBe(true)
    expect(promptIsKept(1)).toBe(true)
  })
})

describe("a deep queue", () => {
  const limits = { ...LIMITS, maxSequences: 4096, kvTokens: 1_048_576 }

  /** 2,000 prompts of 10 ms each, 20 s of work; the last to come is the first due. */
  const queue = () =>
    Array.from({ length: 2000 }, (_, id) =>
      liveOf(id, { promptTokens: 100, maxOutputTokens: 1, slo: sloOf(1000 + (2000 - id), 1000) }),
    )

  test("is decided as far as it is due first; the others wait as they are", () => {
    const all = queue()
    const down = decide(all, limits)
    const decided = all.filter(({ id, admitted }) => admitted || down.has(id))
    const firstDue = [...all].sort((a, b) => a.dueUs - b.dueUs).slice(0, 512)
    expect(new Set(decided)).toEqual(new Set(firstDue))
    // Not all 512 fit, nor none.
    expect(down.size).toBeGreaterThan(256)
    expect(down.size).toBeLessThan(512)
    expect(all.filter(({ tier }) => tier === "slo")).toHaveLength(2000 - down.size)
  })

  test("loses none: every request ends, and those that can be in time are", () => {
    const requests = queue().map(({ id, spec }): SimRequest => {
      const slo = id < 200 ? sloOf(60_000, 1000) : spec.slo
      return { atUs: 0, outputTokens: 1, spec: { ...spec, promptTokens: 20, slo } }
    })
    const { outcomes } = run("slos-serve", requests, limits)
    expect(outcomes.size).toBe(2000)
    for (let id = 0; id < 200; id++) expect(outcomes.get(id)!.attained).toBe(true)
    expect([...outcomes.values()].filter(({ outputTokens }) => outputTokens === 1)).toHaveLength(2000)
  })
})

describe("two first users of a prefix", () => {
  const prefix = Array.from({ length: 48 }, (_, i) => i)
  const users = (count: number, atUs: number, ttftMs: number) =>
    Array.from({ length: count }, (_, id): SimRequest => {
      const spec = specOf(id, { promptTokens: 800, maxOutputTokens: 2, prefix, slo: sloOf(ttftMs, 1000) })
      return { atUs: id * atUs, outputTokens: 2, spec }
    })
  const limits = { ...LIMITS, kvTokens: 65_536, maxSequences: 64 }

  test.each([0, 1000])(
    "the second comes %i µs later, waits, and shares what the first has computed",
    (atUs) => {
      const { outcomes, firstUs } = run("slos-serve", users(2, atUs, 2000), limits)
      expect(outcomes.get(0)!.cachedTokens).toBe(0)
      expect(outcomes.get(1)!.cachedTokens).toBe(768)
      // 800 tokens and 32: 83 ms and the steps' fixed cost.
      expect(firstUs.get(1)!).toBeLessThan(110_000)
    },
  )

  test.each([
    ["work", 250, LIMITS.kvTokens * 4],
    ["memory", 20_000, 2048],
  ])(
    "of eight it counts once as %s: none is turned down, as most are that begin otherwise",
    (_, ttftMs, kvTokens) => {
      const downOf = (familyOf: (id: number) => number) => {
        const requests = Array.from({ length: 8 }, (_, id) => {
          const own = prefix.map((hash) => 1000 * familyOf(id) + hash)
          return liveOf(id, { promptTokens: 800, maxOutputTokens: 2, prefix: own, slo: sloOf(ttftMs, 1000) })
        })
        return decide(requests, { ...limits, kvTokens }).size
      }
      expect(downOf(() => 0)).toBe(0)
      expect(downOf((id) => id)).toBeGreaterThan(4)
      // Two groups of four fit as well as one of eight, but for one prefix more.
      expect(downOf((id) => id % 2)).toBe(0)
    },
  )

  test("computing it once is sooner for all of many, and none is turned down", () => {
    const ours = run("slos-serve", users(8, 0, 250), limits)
    const vllm = run("vllm", users(8, 0, 250), limits)
    const last = ({ firstUs }: Seen) => Math.max(...firstUs.values())
    expect(last(ours)).toBeLessThan(last(vllm))
    // Each on its own would take 640 ms of the 250.
    expect([...ours.outcomes.values()].every(({ attained }) => attained)).toBe(true)
    expect([...ours.outcomes.values()].filter(({ cachedTokens }) => cachedTokens === 768)).toHaveLength(7)
  })
})

describe("best effort", () => {
  const limits = { ...LIMITS, kvTokens: 65_536, maxSequences: 64, maxBatchTokens: 2048 }
  const SLACK_MS = 30
  const FIRST_ARRIVAL_US = 12_000_000

  /** Long prompts without an objective, and from some time on short ones that can wait 30 ms. */
  const flood = Array.from({ length: 200 }, (_, id): SimRequest => {
    const spec = specOf(id, { tier: "bestEffort", promptTokens: 900, maxOutputTokens: 2 })
    return { atUs: 0, outputTokens: 2, spec }
  })
  const arrivals = Array.from({ length: 100 }, (_, i): SimRequest => {
    // 7 ms alone.
    const slo = sloOf(7 + SLACK_MS, 1000)
    const spec = specOf(1000 + i, { app: 1, promptTokens: 20, maxOutputTokens: 1, slo })
    return { atUs: FIRST_ARRIVAL_US + i * 61_000, outputTokens: 1, spec }
  })

  /** A step a token, and far ahead of their pace: all the rest of a batch is slack. */
  const streams = Array.from({ length: 2 }, (_, i): SimRequest => {
    const spec = specOf(2000 + i, { promptTokens: 20, maxOutputTokens: 900, slo: sloOf(5000, 100) })
    return { atUs: 0, outputTokens: 900, spec }
  })

  test.each([
    ["alone", [], 80_000],
    ["beside promised streams", streams, 45_000],
  ])(
    "%s fills batches, and once some arrive that cannot wait none outlasts their slack",
    (_, promised, longUs) => {
      const { batches, outcomes } = run("slos-serve", [...flood, ...promised, ...arrivals], limits)
      const predicted = (fromUs: number, toUs: number) =>
        batches.filter(({ atUs }) => atUs >= fromUs && atUs < toUs).map(({ batch }) => batch.predictedUs)
      // It takes some arrivals to learn that these are in a hurry.
      const [learnt, last] = [arrivals[50]!.atUs, arrivals[99]!.atUs]
      expect(Math.max(...predicted(0, FIRST_ARRIVAL_US))).toBeGreaterThan(longUs)
      const since = predicted(learnt, last)
      expect(since.length).toBeGreaterThan(60)
      expect(Math.max(...since)).toBeLessThan(1.15 * SLACK_MS * 1000)
      expect(arrivals.slice(50).every(({ spec }) => outcomes.get(spec.id)!.attained)).toBe(true)
      expect(promised.every(({ spec }) => outcomes.get(spec.id)!.attained)).toBe(true)
      expect(outcomes.size).toBe(flood.length + promised.length + arrivals.length)
    },
  )

  test("is as long as it likes where arrivals can wait", () => {
    const patient = arrivals.map((one) => ({ ...one, spec: { ...one.spec, slo: sloOf(500, 1000) } }))
    const { batches, outcomes } = run("slos-serve", [...flood, ...patient], limits)
    const during = batches.filter(
      ({ atUs }) => atUs > FIRST_ARRIVAL_US + 200_000 && atUs < patient.at(-1)!.atUs,
    )
    expect(Math.max(...during.map(({ batch }) => batch.predictedUs))).toBeGreaterThan(80_000)
    expect(patient.every(({ spec }) => outcomes.get(spec.id)!.attained)).toBe(true)
  })
})

test("where KV is short and most of it shared, it keeps more than EDF that drops the doomed, with less KV lost", () => {
  // Losing KV costs these 100 tokens each, not 600: while there is time to compute them again, to keep KV free for fear of
  // it would cost more; where there is none, to lose it.
  const limits = { ...LIMITS, kvTokens: 2048, maxSequences: 64 }
  const requests = Array.from({ length: 300 }, (_, id): SimRequest => {
    const prefix = Array.from({ length: 37 }, (_, block) => (block < 32 ? block : 1000 * (id + 1) + block))
    const size = { promptTokens: 592, maxOutputTokens: 200, prefix }
    return {
      atUs: 25_000 * id,
      outputTokens: 20 + ((37 * id) % 60),
      spec: specOf(id, { ...size, slo: sloOf(600, 60) }),
    }
  })
  const keeps = (policy: PolicyName) => {
    const outcomes = [...run(policy, requests, limits).outcomes.values()]
    const kept = outcomes.filter(({ attained }) => attained).length
    return { kept, preemptions: outcomes.reduce((sum, { preemptions }) => sum + preemptions, 0) }
  }
  const [ours, edfDrop] = [keeps("slos-serve"), keeps("edf-drop")]
  expect(edfDrop.kept).toBeLessThan(200)
  expect(ours.kept).toBeGreaterThan(1.05 * edfDrop.kept)
  expect(ours.preemptions).toBeLessThan(0.7 * edfDrop.preemptions)
})
