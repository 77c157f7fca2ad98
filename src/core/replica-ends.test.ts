/** How requests end, and what is learnt of it. */
import { describe, expect, test } from "vitest"
import { OutputLengths } from "./learn/output-lengths.ts"
import type { Policy } from "./policy/policy.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"

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
