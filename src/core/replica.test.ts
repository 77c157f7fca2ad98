/** What a replica makes of what it is told: arrivals, results, ends, and what it learns from them. */
import { describe, expect, test } from "vitest"
import { OutputLengths } from "./learn/output-lengths.ts"
import type { Policy } from "./policy/policy.ts"
import { eventRank } from "./replica.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS, specOf } from "./testing.ts"

test("simultaneous events: results, then cancellations, arrivals, timers", () => {
  const [done, cancelled, arrived, woke] = [
    eventRank({ type: "stepDone", batch: 1, durationUs: 1, results: [] }),
    eventRank({ type: "cancelled", id: 1 }),
    eventRank({ type: "arrived", request: specOf(1) }),
    eventRank({ type: "woke" }),
  ]
  expect(eventRank({ type: "stepFailed", batch: 1, reason: "kvFull" })).toBe(done)
  expect(done).toBeLessThan(cancelled)
  expect(cancelled).toBeLessThan(arrived)
  expect(arrived).toBeLessThan(woke)
})

describe("arrivals", () => {
  test("that could never be held are refused, those that just fit are not", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 1000, maxOutputTokens: 24 })
    played.arrives(2, { promptTokens: 1000, maxOutputTokens: 25 })
    played.poll()
    expect(played.of("rejected")).toEqual([{ type: "rejected", id: 2, reason: "promptTooLong" }])
    // The KV is the limit where it is smaller than the context.
    const small = new Played({ limits: { ...LIMITS, kvTokens: 512 } })
    small.arrives(1, { promptTokens: 500, maxOutputTokens: 12 })
    small.arrives(2, { promptTokens: 500, maxOutputTokens: 13 })
    small.poll()
    expect(small.of("rejected").map(({ id }) => id)).toEqual([2])
  })

  test("past the queue are refused, but not what was accepted once", () => {
    const played = new Played({ maxQueue: 2 })
    const other = new Played()
    other.arrives(5)
    const { progress } = other.replica.withdraw(5)!
    for (const id of [1, 2, 3]) played.arrives(id)
    played.arrives(5, {}, progress)
    played.arrives(6, { promptTokens: 2000 }, progress)
    played.poll()
    expect(played.of("rejected").map(({ id, reason }) => [id, reason])).toEqual([
      [3, "queueFull"],
      [6, "promptTooLong"],
    ])
    expect(played.replica.snapshot(0).waiting + played.replica.snapshot(0).running).toBe(3)
  })

  test("are wrong calls when they came before or have nothing to compute", () => {
    const played = new Played()
    played.arrives(1)
    expect(() => played.arrives(1)).toThrow("arrived twice")
    expect(() => played.arrives(2, { promptTokens: 0 })).toThrow("nothing to compute")
    expect(() => played.arrives(2, { maxOutputTokens: 0 })).toThrow("nothing to compute")
    played.arrives(2, { promptTokens: 1, maxOutputTokens: 1 })
    expect(played.step().items).toHaveLength(2)
  })

  test("of one moment keep their order", () => {
    const seen: number[][] = []
    const policy = (): Policy => ({
      name: "spy",
      decide: (requests) => void seen.push(requests.map(({ order }) => order)),
    })
    const played = new Played({ policy })
    for (const id of [8, 3, 5]) played.arrives(id)
    expect(played.poll()).toEqual([])
    expect(seen).toEqual([[0, 1, 2]])
  })

  test("with a slowdown are due after so many prefill times, 100 ms at least", () => {
    const played = new Played()
    const slo = { ttftUs: 0, ttftSlowdown: 5, maxGapUs: Infinity, tpotUs: 1e6, thinkingTpotUs: 1e6 }
    expect(played.replica.zeroLoadPrefillUs(600)).toBe(70_000)
    played.arrives(1, { promptTokens: 600, slo, maxOutputTokens: 1 })
    played.arrives(2, { promptTokens: 100, slo, maxOutputTokens: 1 })
    played.step()
    played.step()
    played.poll()
    expect(played.of("finished").map(({ id, outcome }) => [id, outcome.ttftUs])).toEqual([
      [1, 350_000],
      [2, 100_000],
    ])
  })

  test("with a slowdown are due after multiples of what prefills take here, if the profile is far off", () => {
    const slo = { ttftUs: 0, ttftSlowdown: 5, maxGapUs: Infinity, tpotUs: 1e6, thinkingTpotUs: 1e6 }
    const asked = { promptTokens: 600, slo, maxOutputTokens: 1 }
    const due = (id: number, factor: number, arrivals: number) => {
      const played = new Played()
      for (let n = 0; n < arrivals; n++) {
        played.arrives(id + n, asked)
        for (let batch = played.runs(); ; batch = played.runs()) {
          played.done(batch, {}, Math.round(batch.predictedUs * factor))
          if (batch.items[0]!.sample) break
        }
        played.poll()
      }
      return played.of("finished").map(({ outcome }) => outcome.ttftUs)
    }
    // 70 ms by the profile. All its steps together took a tenth of what was predicted: the next prompt knows.
    const [first, second] = due(1, 0.1, 2)
    expect(first).toBe(350_000)
    expect(second).toBe(100_000)
    // Ten times: believed after three with the engine to themselves.
    expect(due(1, 10, 4)[2]).toBe(350_000)
    expect(due(1, 10, 4)[3]).toBeGreaterThan(2_000_000)
    // Somewhat off is somewhat off: the calibration's business, not that of objectives.
    expect(due(1, 1.4, 5)).toEqual([350_000, 350_000, 350_000, 350_000, 350_000])
  })
})

describe("a decision", () => {
  test("waits for the engine, and for something to do", () => {
    const played = new Played()
    expect(played.poll()).toEqual([])
    played.arrives(1)
    const batch = played.runs()
    played.arrives(2)
    expect(played.poll()).toEqual([])
    played.done(batch)
    expect(aboard(played.runs())).toEqual([1, 2])
  })

  test("says how long the batch should take, and numbers it", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 100 })
    expect(played.step()).toMatchObject({ number: 1, predictedUs: 15_000, evict: [], release: [] })
    expect(played.step()).toMatchObject({ number: 2, predictedUs: 5_100 })
  })

  test("marks when a request began: once", () => {
    for (const startUs of [0, 3_000]) {
      const played = new Played()
      played.nowUs = startUs
      played.arrives(1, { maxOutputTokens: 2 })
      played.step()
      played.step()
      played.poll()
      expect(played.of("finished")[0]!.outcome.startedUs).toBe(startUs)
    }
  })
})

test("what a decision makes of requests is told", () => {
  const policy = (): Policy => ({
    name: "spy",
    decide: ([request], { context }) => {
      context.demote(request!, "wontFit")
      context.promote(request!)
      context.admit(request!)
    },
  })
  const played = new Played({ policy })
  played.arrives(1)
  expect(played.poll()).toEqual([
    { type: "demoted", id: 1, reason: "wontFit" },
    { type: "promoted", id: 1 },
    { type: "admitted", id: 1 },
  ])
})

test("a request that gives its KV up to another is told", () => {
  const played = new Played({ limits: { ...LIMITS, kvTokens: 128, contextTokens: 128 } })
  for (const id of [1, 2]) played.arrives(id, { promptTokens: 64 })
  played.step()
  played.step()
  expect(played.of("preempted")).toEqual([{ type: "preempted", id: 2 }])
})

test("a cached request that gives up blocks is trimmed with the batch that needs them, and only with it", () => {
  const played = new Played({ limits: { ...LIMITS, kvTokens: 128, contextTokens: 128 } })
  played.arrives(1, { promptTokens: 64, prefix: [1, 2, 3, 4], maxOutputTokens: 1 })
  expect(played.step()).not.toHaveProperty("trim")
  played.arrives(2, { promptTokens: 90, maxOutputTokens: 20 })
  expect(played.step()).toMatchObject({ trim: [{ id: 1, tokens: 32 }], release: [] })
  expect(played.step()).not.toHaveProperty("trim")
})

describe("results", () => {
  test("belong to the batch in flight, in any order", () => {
    const played = new Played()
    for (const id of [1, 2, 3]) played.arrives(id)
    const batch = played.runs()
    const results = [3, 1, 2].map((id) => ({ id, tokens: 1, stopped: id === 1, answeringFrom: -1 }))
    const done = { type: "stepDone", durationUs: 1000, results } as const
    expect(() => played.replica.handle({ ...done, batch: 2 }, 1000)).toThrow("not the one in flight")
    played.replica.handle({ ...done, batch: batch.number }, 1000)
    played.poll()
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2, 3])
    expect(played.of("finished").map(({ id }) => id)).toEqual([1])
  })

  test("of an engine that disagrees are refused", () => {
    const played = new Played({ limits: { ...LIMITS, maxBatchTokens: 64 } })
    played.arrives(1)
    const first = played.runs()
    expect(first.items[0]).toMatchObject({ tokens: 64, sample: false })
    expect(() => played.done(first, { 1: { tokens: 1 } })).toThrow("a token too early")
    const other = new Played()
    other.arrives(1)
    expect(() => other.done(other.runs(), { 1: { tokens: 0 } })).toThrow("yielded no token")
    const drafting = new Played({ options: { fixedDraft: 2 } })
    drafting.arrives(1)
    drafting.step()
    const batch = drafting.runs()
    expect(batch.items[0]!.draft).toBe(2)
    expect(() => drafting.done(batch, { 1: { tokens: 4 } })).toThrow("accepted more than was drafted")
  })

  test("with accepted drafts move a request on by all of them, and give the refused ones' KV back", () => {
    const played = new Played({ options: { fixedDraft: 20 } })
    played.arrives(1, { promptTokens: 100 })
    played.step()
    const batch = played.runs()
    expect(batch.items[0]).toMatchObject({ position: 100, tokens: 1, draft: 20 })
    // 121 tokens are in eight blocks, 105 in seven.
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(128)
    played.done(batch, { 1: { tokens: 5 } })
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(112)
    expect(played.runs().items[0]).toMatchObject({ position: 105, tokens: 1 })
    expect(played.of("token").map(({ count }) => count)).toEqual([1, 5])
    expect(played.replica.snapshot(0).speculation[0]).toMatchObject({ draftedTokens: 20, acceptedTokens: 4 })
  })

  test("of the first token say nothing of drafts", () => {
    const played = new Played({ options: { fixedDraft: 2 } })
    played.arrives(1)
    played.step()
    expect(played.replica.snapshot(0).speculation).toEqual([])
    played.step()
    played.arrives(2)
    played.step()
    // Two decodes that drafted: the mean moves a fiftieth of the way to three tokens with each.
    expect(played.replica.snapshot(0).speculation[0]!.length).toBeCloseTo(3 - 2 * 0.98 ** 2, 6)
  })

  test("say how far the model of step times is off, apart for prefill and decode", () => {
    const played = new Played()
    played.arrives(1)
    played.step({}, 30_000)
    const [decode, mixed] = played.replica.snapshot(0).calibration
    expect(mixed).toBeCloseTo(1.05)
    expect(decode).toBe(1)
    // Twice what the model says, uncalibrated: 5.1 ms.
    for (let i = 0; i < 40; i++) played.step({}, 10_200)
    expect(played.replica.snapshot(0).calibration[0]).toBeCloseTo(2 - 0.95 ** 40)
    expect(played.replica.snapshot(0).calibration[1]).toBe(mixed)
  })

  test("of a step in which nothing was drafted tell of plain decodes, also where drafts were asked for", () => {
    const calibrationAfter = (first: number, second: number) => {
      const played = new Played({ options: { fixedDraft: 2 } })
      for (const id of [1, 2]) played.arrives(id, { maxOutputTokens: 100 })
      played.step()
      // Twice as long as the model says of what was drafted.
      const tokens = 2 + first + second
      played.step({ 1: { drafted: first }, 2: { drafted: second } }, 2 * (5_000 + 100 * tokens))
      return played.replica.snapshot(0).calibration
    }
    expect(calibrationAfter(0, 0)[0]).toBeCloseTo(1.05)
    for (const [first, second] of [
      [0, 2],
      [2, 2],
    ] as const) {
      const [decode, mixed, drafted] = calibrationAfter(first, second)
      expect([decode, mixed]).toEqual([1, 1])
      expect(drafted).toBeCloseTo(1.05)
    }
    const prompts = new Played()
    prompts.arrives(1)
    prompts.step({ 1: { drafted: 0 } }, 30_000)
    expect(prompts.replica.snapshot(0).calibration[0]).toBe(1)
  })

  test("need not be given of a prompt that is not at its end", () => {
    const played = new Played({ limits: { ...LIMITS, maxBatchTokens: 64 } })
    played.arrives(1)
    const { number } = played.runs()
    played.replica.handle({ type: "stepDone", batch: number, durationUs: 1000, results: [] }, 1000)
    expect(played.runs().items).toMatchObject([{ id: 1, position: 64, tokens: 36, sample: true }])
  })

  test("fill blocks that a later prompt shares", () => {
    const played = new Played()
    const hashes = [1, 2, 3, 4, 5, 6]
    played.arrives(1, { promptTokens: 96, prefix: hashes, maxOutputTokens: 17 })
    played.step()
    for (let i = 1; i <= 15; i++) played.step()
    // The sixteenth decode fills a block.
    played.step({ 1: { prefix: [7] } })
    played.arrives(2, { promptTokens: 200, prefix: [...hashes, 7, 8] })
    expect(played.runs().items.find(({ id }) => id === 2)).toMatchObject({ copy: { from: 1, tokens: 112 } })
  })
})

describe("the first token", () => {
  /** Effects of three steps with a token each. */
  const told = (options: object, changes = {}) => {
    const played = new Played({ options })
    played.arrives(1, changes)
    for (let i = 0; i < 3; i++) played.step()
    return played.effects.flatMap(({ type }) => (type === "token" || type === "admitted" ? [type] : []))
  }
  test("is the promise where promises can be revoked until then", () => {
    expect(told({ admission: "revocable" })).toEqual(["token", "admitted", "token"])
    expect(told({ admission: "firm" })).toEqual(["token", "token"])
    expect(told({ admission: "revocable" }, { tier: "bestEffort" })).toEqual(["token", "token"])
  })
})

describe("the end", () => {
  const ended = (changes: object, result: object, steps: number) => {
    const played = new Played()
    played.arrives(1, { maxOutputTokens: 3, ...changes })
    for (let i = 1; i < steps; i++) played.step()
    played.step({ 1: result })
    played.poll()
    return played.of("finished")[0]
  }
  test("comes when the output stops or is as long as it may be", () => {
    expect(ended({}, {}, 2)).toBeUndefined()
    expect(ended({}, {}, 3)).toMatchObject({ reason: "length", outcome: { attained: true } })
    expect(ended({}, { stopped: true }, 2)).toMatchObject({ reason: "stop", outcome: { attained: true } })
    expect(ended({}, { stopped: true }, 3)).toMatchObject({ reason: "stop" })
  })

  test("of a request without an SLO, or a cancelled one, attains nothing", () => {
    expect(ended({ tier: "bestEffort" }, {}, 3)).toMatchObject({ outcome: { attained: false } })
    const played = new Played()
    played.arrives(1)
    played.step()
    played.cancels(1)
    played.cancels(7)
    played.poll()
    const ends = played.of("finished")
    expect(ends).toMatchObject([
      { id: 1, reason: "cancelled", outcome: { attained: false, outputTokens: 1 } },
    ])
    expect(played.poll()).toEqual([])
  })

  test("closes the stage in progress, if there is one", () => {
    const played = new Played()
    played.arrives(1)
    played.arrives(2)
    played.cancels(2)
    played.step()
    played.cancels(1)
    played.poll()
    expect(played.of("stageDone").map(({ id, outcome }) => [id, outcome.stage])).toEqual([
      [1, "prefill"],
      [1, "answer"],
    ])
  })

  test("of a request that is being computed: no token of it, and its KV is free when the batch is done", () => {
    const played = new Played()
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 100 })
    const batch = played.runs()
    played.cancels(1)
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(224)
    played.done(batch)
    expect(played.replica.snapshot(0).kvUsedTokens).toBe(112)
    const next = played.runs()
    expect(next).toMatchObject({ release: [1] })
    expect(aboard(next)).toEqual([2])
    expect(played.of("token").map(({ id }) => id)).toEqual([2])
  })

  test("of a request that never began leaves the engine nothing to forget", () => {
    const played = new Played()
    played.arrives(1)
    played.arrives(2)
    played.cancels(1)
    expect(played.runs()).toMatchObject({ release: [] })
  })
})

/** An objective that no step can keep. */
const LATE = { ttftUs: 1, ttftSlowdown: 0, tpotUs: 1, thinkingTpotUs: 1, maxGapUs: Infinity }

describe("what is learnt of an end", () => {
  /** Expected tokens still to come of an output that begins, after thirty requests with this end. */
  const remainingAfter = (result: object, maxOutputTokens: number) => {
    const played = new Played()
    for (let id = 1; id <= 30; id++) {
      played.arrives(id, { maxOutputTokens })
      for (let i = 1; i < 20; i++) played.step()
      played.step({ [id]: result })
    }
    return played.context!.outputLengths.remaining(0, 0, 10_000)
  }
  test("an output that was cut at its limit has not shown its length; one that stopped has", () => {
    expect(remainingAfter({ stopped: true }, 50)).toBeLessThan(30)
    // It has come so far all the same.
    expect(remainingAfter({}, 20)).toBeGreaterThan(new OutputLengths(1).remaining(0, 0, 10_000) + 1)
  })

  test("a session with a round that missed is known by it, and no other one", () => {
    const missed: [number, boolean][] = []
    const policy = (): Policy => ({
      name: "spy",
      decide(requests, batch) {
        for (const request of requests) {
          missed.push([request.id, request.sessionMissed])
          batch.prefill(request, 100)
        }
      },
    })
    const played = new Played({ policy })
    const round = (id: number, session: number, durationUs: number) => {
      played.arrives(id, { session, maxOutputTokens: 1 })
      played.step({}, durationUs)
    }
    round(1, 5, 1_000)
    round(2, 0, 1_000_001)
    round(3, -1, 1_000_001)
    for (const [id, session] of [
      [4, 0],
      [5, 5],
      [6, -1],
      [7, 8],
    ] as const)
      round(id, session, 1_000)
    expect(missed.filter(([, known]) => known).map(([id]) => id)).toEqual([4])
  })

  test.each([
    ["was cancelled in time", {}, "cancel", false],
    ["was cancelled with a late token", { slo: LATE }, "cancel", false],
    ["asked for no objective", { tier: "bestEffort" }, "end", false],
    ["had a late token", { slo: LATE }, "end", true],
    ["failed", {}, "fail", true],
  ] as const)("a round that %s: its session counts as missed or not", (_, changes, end, missed) => {
    let known: boolean | null = null
    const policy = (): Policy => ({
      name: "spy",
      decide([request], batch) {
        known = request!.sessionMissed
        if (request!.decoding) batch.decode(request!)
        else batch.prefill(request!, 100)
      },
    })
    const played = new Played({ policy })
    played.arrives(1, { session: 3, maxOutputTokens: 3, ...changes })
    if (end === "fail") {
      for (let i = 0; i < 2; i++) {
        played.nowUs += 1_000_000
        played.fails(played.runs(), "engineError")
      }
    } else {
      played.step()
      if (end === "cancel") played.cancels(1)
      else for (let i = 1; i < 3; i++) played.step()
    }
    played.nowUs += 1_000_000
    played.poll()
    expect(played.of("finished")).toHaveLength(1)
    played.arrives(2, { session: 3 })
    played.runs()
    expect(known).toBe(missed)
  })

  test("a session that is not likely to come back gives its KV up first, where the policy keeps sessions", () => {
    const evicted = (keepsSessions: boolean) => {
      const played = new Played({
        limits: { ...LIMITS, kvTokens: 320, maxSequences: 4 },
        policy: (): Policy => ({
          ...{ name: "spy", keepsSessions },
          decide: (requests, batch) => {
            for (const request of requests) batch.prefill(request, 400)
          },
        }),
      })
      const slo = (tpotUs: number) => ({
        ttftUs: 1e9,
        ttftSlowdown: 0,
        maxGapUs: Infinity,
        tpotUs,
        thinkingTpotUs: tpotUs,
      })
      let id = 0
      /** A round with KV of its own; kinds of rounds differ by pace. */
      const round = (session: number, tpotUs: number, promptTokens = 32) => {
        const prefix = Array.from({ length: promptTokens / 16 }, (_, i) => ++id * 100 + i)
        const request = { session, promptTokens, prefix, maxOutputTokens: 1, slo: slo(tpotUs) }
        played.arrives(id, request)
        played.step()
        return id
      }
      for (let session = 0; session < 30; session++) {
        round(session, 20_000)
        round(session, 90_000)
      }
      const comesBack = round(100, 20_000)
      const isOver = round(101, 90_000)
      played.arrives(9999, { promptTokens: 288, maxOutputTokens: 1 })
      const { release } = played.step()
      return [release.includes(comesBack), release.includes(isOver)]
    }
    expect(evicted(true)).toEqual([false, true])
    expect(evicted(false)).toEqual([true, false])
  })
})
