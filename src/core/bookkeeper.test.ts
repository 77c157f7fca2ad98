/** Where the time of a request goes, played by hand. A step takes 5 ms and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import type { Policy } from "./policy/policy.ts"
import type { Account, Batch, RequestId } from "./protocol.ts"
import { Played } from "./replica-testing.ts"
import { LIMITS } from "./testing.ts"
import { TIME_PARTS } from "./time-account.ts"

/** The parts that took any time. */
function partsOf(parts: readonly number[] | null | undefined): Record<string, number> {
  return Object.fromEntries(TIME_PARTS.map((part, i) => [part, parts![i]!]).filter(([, us]) => us !== 0))
}

function accountOf(played: Played, id: RequestId): Account {
  return played.of("finished").find((effect) => effect.id === id)!.outcome.account!
}

const [PREFILL_US, DECODE_US] = [15_000, 5_100]

describe("a request alone", () => {
  test("waits, is computed, and nothing is left over", () => {
    const played = new Played()
    played.nowUs = 9000
    played.arrives(1, { arrivalUs: 8000, maxOutputTokens: 3 })
    played.nowUs = 9500
    for (let i = 0; i < 3; i++) played.step()
    played.poll()
    const { parts, toFirst, miss, decisions } = accountOf(played, 1)
    expect(partsOf(parts)).toEqual({ before: 1000, queue: 500, prefill: PREFILL_US, decode: 2 * DECODE_US })
    expect(partsOf(toFirst)).toEqual({ before: 1000, queue: 500, prefill: PREFILL_US })
    expect(miss).toBeNull()
    expect(decisions).toEqual([{ afterUs: 16_500, what: "promised" }])
  })

  test("has steps that are slower, faster, and what the server does between them", () => {
    const played = new Played()
    played.arrives(1, { maxOutputTokens: 3 })
    played.step({}, PREFILL_US + 700)
    const second = played.runs()
    played.nowUs += 250
    played.done(second, {}, DECODE_US)
    played.step({}, 4100)
    played.poll()
    const { parts, toFirst } = accountOf(played, 1)
    expect(toFirst![TIME_PARTS.indexOf("slow")]).toBe(700)
    expect(partsOf(parts)).toMatchObject({ server: 250 })
    const [, , third] = played.of("run").map(({ batch }) => batch.predictedUs)
    expect(parts[TIME_PARTS.indexOf("slow")]).toBe(700 + 4100 - third!)
  })

  test("pays for failed steps and the pauses after them", () => {
    const played = new Played()
    played.arrives(1, { maxOutputTokens: 1 })
    const batch = played.runs()
    played.nowUs += 3000
    played.fails(batch, "engineError")
    played.poll()
    played.nowUs += 10_000
    played.step()
    played.poll()
    expect(partsOf(accountOf(played, 1).parts)).toEqual({ failed: 13_000, prefill: PREFILL_US })
  })

  test("is held until its grammar is there", () => {
    const played = new Played()
    played.arrives(1, { waitsForGrammar: true, maxOutputTokens: 1 })
    played.poll()
    played.nowUs = 4000
    played.replica.handle({ type: "grammarReady", id: 1 }, played.nowUs)
    played.nowUs = 4300
    played.step()
    played.poll()
    expect(partsOf(accountOf(played, 1).parts)).toEqual({ before: 4000, queue: 300, prefill: PREFILL_US })
  })

  test("pays for drafts that are refused, not for those that are accepted", () => {
    const played = new Played({
      policy: () => ({
        name: "drafts",
        decide: (requests, batch) => {
          for (const request of requests)
            if (request.decoding) batch.decode(request, undefined, 3)
            else batch.prefill(request, 512)
        },
      }),
    })
    played.arrives(1, { maxOutputTokens: 20 })
    played.step()
    played.step({ 1: { tokens: 2 } })
    played.step({ 1: { tokens: 1, stopped: true } })
    played.poll()
    const { parts } = accountOf(played, 1)
    // Three drafted, one and none accepted: five tokens of 0.1 ms were for nothing.
    expect(parts[TIME_PARTS.indexOf("refusedDrafts")]).toBe(500)
    expect(parts[TIME_PARTS.indexOf("decode")]).toBe(2 * 5400 - 500)
  })
})

describe("requests together", () => {
  test("have the time that each would take alone, and that of the others", () => {
    const played = new Played()
    played.arrives(1, { maxOutputTokens: 2 })
    played.arrives(2, { promptTokens: 300, maxOutputTokens: 1 })
    played.step()
    played.step()
    played.poll()
    const together = 5000 + 40_000
    expect(partsOf(accountOf(played, 2).parts)).toEqual({ prefill: 35_000, others: together - 35_000 })
    const first = { prefill: PREFILL_US, others: together - PREFILL_US, decode: DECODE_US }
    expect(partsOf(accountOf(played, 1).parts)).toEqual(first)
  })

  test("that are left out of steps wait for others, and take their slowness along", () => {
    const played = new Played({ policy: inTurns })
    played.arrives(1, { maxOutputTokens: 2 })
    played.arrives(2, { maxOutputTokens: 1 })
    played.step()
    played.step({}, PREFILL_US + 400)
    played.step()
    played.poll()
    const slow = (id: number) => accountOf(played, id).parts[TIME_PARTS.indexOf("slow")]
    expect(slow(1)).toBe(400)
    expect(slow(2)).toBe(400)
    expect(partsOf(accountOf(played, 2).parts)).toMatchObject({ queue: PREFILL_US })
    expect(partsOf(accountOf(played, 1).parts)).toMatchObject({ others: PREFILL_US })
  })

  test("that lose their KV compute it anew, and what they wait for it is part of that", () => {
    const limits = { ...LIMITS, kvTokens: 256, contextTokens: 256 }
    const played = new Played({ limits })
    played.arrives(1, { promptTokens: 120, maxOutputTokens: 20 })
    played.arrives(2, { promptTokens: 112, maxOutputTokens: 20 })
    const endsUs = new Map<number, number>()
    for (let run = nextOf(played); run !== undefined; run = nextOf(played)) {
      played.done(run)
      endsUs.set(run.number, played.nowUs)
    }
    const { parts, decisions } = accountOf(played, 2)
    const { outcome } = played.of("finished").find(({ id }) => id === 2)!
    expect(outcome.preemptions).toBe(1)
    expect(decisions.map(({ what }) => what)).toEqual(["promised", "preempted"])
    // Until the end of the step that has it all again; the last token of that step is new.
    const again = played
      .of("run")
      .findLast(({ batch }) => batch.items.some(({ id, tokens }) => id === 2 && tokens > 1))!.batch
    expect(again.items).toHaveLength(1)
    const { tokens } = again.items[0]!
    const newUs = again.predictedUs - Math.round((again.predictedUs * (tokens - 1)) / tokens)
    const recomputeUs = parts[TIME_PARTS.indexOf("recompute")]!
    expect(recomputeUs).toBe(endsUs.get(again.number)! - decisions[1]!.afterUs - newUs)
    expect(parts.reduce((sum, us) => sum + us, 0)).toBe(outcome.finishedUs - outcome.arrivalUs)
  })
})

function nextOf(played: Played): Batch | undefined {
  return played.poll().find((effect) => effect.type === "run")?.batch
}

/** One request a step: that which was computed longest ago. */
function inTurns(): Policy {
  const turns: RequestId[] = []
  return {
    name: "in turns",
    decide(requests, batch) {
      const next = [...requests].sort((a, b) => turns.lastIndexOf(a.id) - turns.lastIndexOf(b.id))[0]!
      turns.push(next.id)
      if (next.decoding) batch.decode(next)
      else batch.prefill(next, 512)
    },
  }
}
