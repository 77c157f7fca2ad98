/** Events of one round in any order: what is cancelled ends, whatever else happens to it at the same moment. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { assert } from "./assert.ts"
import type { Batch, Event, RequestId } from "./protocol.ts"
import type { ReplicaConfig } from "./replica.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS, runs, specOf } from "./testing.ts"

const arrived = (id: RequestId): Event => ({
  type: "arrived",
  request: specOf(id, { promptTokens: 40, maxOutputTokens: 3 }),
})
const cancelled = (id: RequestId): Event => ({ type: "cancelled", id })

function told(played: Played, ...events: Event[]): Played {
  for (const event of events) played.replica.handle(event, played.nowUs)
  return played
}
const ends = (played: Played) => played.of("finished").map(({ id, reason }) => [id, reason])
const used = (played: Played) => played.replica.snapshot(played.nowUs).kvUsedTokens

describe("a request that is cancelled in the round of its arrival", () => {
  test.each([
    ["before it", [cancelled(1), arrived(1)]],
    ["after it", [arrived(1), cancelled(1)]],
  ])("ends, cancelled %s", (_, events) => {
    const played = told(new Played(), ...events)
    expect(played.poll().map(({ type }) => type)).toEqual(["finished"])
    expect(ends(played)).toEqual([[1, "cancelled"]])
  })

  test("leaves its place in a full queue to those that arrive with it", () => {
    const played = told(new Played({ maxQueue: 1 }), cancelled(1), arrived(1), arrived(2))
    expect(aboard(played.runs())).toEqual([2])
    expect(played.of("rejected")).toEqual([])
  })

  test("for lack of an engine has failed", () => {
    const played = told(new Played(), { ...cancelled(1), failed: true } as Event, arrived(1))
    played.poll()
    expect(ends(played)).toEqual([[1, "failed"]])
  })

  test("is not remembered for another round", () => {
    const played = told(new Played(), cancelled(1))
    played.poll()
    told(played, arrived(1))
    expect(aboard(played.runs())).toEqual([1])
  })
})

describe("a request that is cancelled in the round that hands it off", () => {
  const prefilled = (): [Played, Event] => {
    const played = told(new Played({ prefillOnly: true }), arrived(1), arrived(2))
    const batch = played.runs()
    return [played, stepDone(batch)]
  }
  test.each([
    ["before it", ([done]: [Event]): Event[] => [cancelled(1), done]],
    ["after it", ([done]: [Event]): Event[] => [done, cancelled(1)]],
  ])("ends here, cancelled %s", (_, order) => {
    const [played, done] = prefilled()
    told(played, ...order([done]))
    played.poll()
    expect(ends(played)).toEqual([[1, "cancelled"]])
    expect(played.of("handedOff").map(({ id }) => id)).toEqual([2])
    // What was handed off keeps its KV until it has landed.
    expect(used(played)).toBe(48)
  })

  test("is the other replica's a round later", () => {
    const [played, done] = prefilled()
    told(played, done)
    played.poll()
    told(played, cancelled(1))
    played.poll()
    expect(ends(played)).toEqual([])
    played.replica.release(1)
    played.replica.release(2)
    expect(used(played)).toBe(0)
  })
})

function stepDone(batch: Batch): Event {
  const results = batch.items.map(({ id, sample }) => {
    return { id, tokens: sample ? 1 : 0, stopped: false, answeringFrom: -1 }
  })
  return { type: "stepDone", batch: batch.number, durationUs: batch.predictedUs, results }
}

/** What one round brings besides the result of the batch in the air. */
interface RoundPlan {
  arrivals: number
  /** Of all requests so far, those of this round included, by place from the last one back. */
  cancels: number[]
  woke: boolean
  fails: "engineError" | "kvFull" | null
  order: number[]
}

const roundPlan = fc.record<RoundPlan>({
  arrivals: fc.nat(4),
  cancels: fc.array(fc.nat(7), { maxLength: 4 }),
  woke: fc.boolean(),
  fails: fc.option(fc.constantFrom("engineError", "kvFull"), { freq: 5 }),
  order: fc.array(fc.nat(), { minLength: 12, maxLength: 12 }),
})

/** The events in the order that sorting by these keys gives. */
const permuted = (events: Event[], keys: number[]) =>
  events.map((event, i) => ({ event, key: keys[i % keys.length]! })).sort((a, b) => a.key - b.key)

test("whatever the order of a round's events, each request ends once, and a cancelled one at once", () => {
  const configs = fc.record<Partial<ReplicaConfig>>({
    policy: fc.constantFrom("slos-serve", "vllm"),
    prefillOnly: fc.boolean(),
    maxQueue: fc.constantFrom(3, 100),
    limits: fc.constantFrom(LIMITS, { ...LIMITS, kvTokens: 128, contextTokens: 64, maxSequences: 2 }),
  })
  fc.assert(
    fc.property(configs, fc.array(roundPlan, { maxLength: 25 }), (config, plans) => {
      const played = new Played(config)
      let inAir: Batch | null = null
      let last = 0
      const over = new Set<RequestId>()
      const wasCancelled = new Set<RequestId>()
      const quiet: RoundPlan = { arrivals: 0, cancels: [], woke: true, fails: null, order: [0] }
      for (const [round, plan] of [...plans, ...Array<RoundPlan>(400).fill(quiet)].entries()) {
        if (round >= plans.length && over.size === last) break
        const events: Event[] = []
        for (let i = 0; i < plan.arrivals; i++) events.push(arrived(++last))
        const ids = plan.cancels.map((back) => last - back).filter((id) => id > 0)
        for (const id of ids) events.push(cancelled(id))
        if (plan.woke) events.push({ type: "woke" })
        if (inAir !== null) {
          const failed: Event = { type: "stepFailed", batch: inAir.number, reason: plan.fails ?? "kvFull" }
          events.push(plan.fails === null ? stepDone(inAir) : failed)
        }
        played.nowUs += 1_000_000
        told(played, ...permuted(events, plan.order).map(({ event }) => event))
        inAir = null
        for (const effect of played.poll()) {
          if (effect.type === "handedOff") played.replica.release(effect.id)
          if (effect.type === "run") inAir = effect.batch
          else if (effect.type === "finished" || effect.type === "rejected" || effect.type === "handedOff") {
            assert(!over.has(effect.id), `request ${effect.id} ended twice`)
            over.add(effect.id)
          }
        }
        for (const id of ids) wasCancelled.add(id)
        for (const id of wasCancelled) assert(over.has(id), `request ${id} goes on, though cancelled`)
        for (const { id } of inAir?.items ?? []) assert(!over.has(id), `request ${id} is over and runs`)
      }
      assert(over.size === last, `${last - over.size} requests never ended`)
      expect(used(played)).toBe(played.replica.snapshot(0).kvCachedTokens)
    }),
    { numRuns: runs(200) },
  )
})
