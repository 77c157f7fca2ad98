/** Simulated engines that own their KV: they deviate in every way, and no request is the worse for it. */
import { expect, test } from "vitest"
import type { Batch, Event } from "../core/protocol.ts"
import { Audit } from "./audit.ts"
import { type FleetOptions, simulateFleet } from "./fleet.ts"
import { fuzzCase, ofSomeDepth } from "./fuzz-case.ts"
import { KvAudit } from "./kv-audit.ts"

/** Fleets of such engines, with three batches in flight. */
function* deviating(seeds: number): Generator<FleetOptions> {
  for (let seed = 1; seed <= seeds; seed++) {
    const fleet = ofSomeDepth(fuzzCase(seed).fleet, seed, 3)
    if (fleet.replicas[0]!.engineOwnsKv) yield fleet
  }
}

test("plans are shortened, skipped, left alone, begun elsewhere; KV is taken; batches come without a plan", () => {
  const seen = new Set<string>()
  for (const fleet of deviating(25)) {
    const plans = new Map<string, Batch>()
    const audit = new Audit({ fleet })
    const onEvent = (event: Event, _: number, replica: number) => {
      if (event.type === "stepDone" && event.results.some(({ computed }) => computed !== undefined))
        seen.add("less in place")
      if (event.type !== "ran") return
      if ((event.preempted ?? []).length > 0) seen.add("preempted")
      if (event.batch < 1) seen.add("without a plan")
      if (event.items.length === 0) seen.add("left alone")
      const plan = plans.get(`${replica} ${event.batch}`)
      if (plan !== undefined && event.items.length > 0 && event.items.length < plan.items.length)
        seen.add("skipped")
      for (const { id, position, tokens } of event.items) {
        const planned = plan?.items.find((item) => item.id === id)
        if (planned !== undefined && tokens < planned.tokens) seen.add("shortened")
        if (planned !== undefined && position < planned.position) seen.add("begun before")
        if (planned !== undefined && position > planned.position) seen.add("begun after")
      }
    }
    const watched = audit.watched({ ...fleet, onEvent })
    const result = simulateFleet({
      ...watched,
      onEffect: (effect, nowUs, replica) => {
        if (effect.type === "run") plans.set(`${replica} ${effect.batch.number}`, effect.batch)
        watched.onEffect?.(effect, nowUs, replica)
      },
    })
    audit.finish(result)
  }
  const ways = [
    "begun after",
    "begun before",
    "left alone",
    "less in place",
    "preempted",
    "shortened",
    "skipped",
  ]
  expect([...seen].sort()).toEqual([...ways, "without a plan"])
}, 60_000)

const limits = { ...fuzzCase(1).fleet.replicas[0]!.limits, kvTokens: 64, blockTokens: 16, maxBatchTokens: 64 }
const batchOf = (
  number: number,
  id: number,
  position: number,
  tokens: number,
  evict: number[] = [],
): Batch => ({
  ...{ number, evict, release: [], predictedUs: 1 },
  items: [{ id, position, tokens, sample: true, draft: 0 }],
})
const yields = (id: number) => [{ id, tokens: 1, stopped: false, answeringFrom: -1 }]

test("KV counted apart from the core: of an ended request it is free when no batch in flight carries it", () => {
  const ended = (landed: number) => {
    const audit = new KvAudit(limits)
    audit.runs(batchOf(1, 1, 0, 40))
    audit.runs(batchOf(2, 1, 40, 1))
    audit.lands(1, yields(1))
    audit.ended(1)
    if (landed > 1) audit.lands(2, [])
    return () => audit.runs(batchOf(3, 2, 0, 30))
  }
  expect(ended(1)).toThrow("not free yet")
  expect(ended(2)).not.toThrow()
})

test("KV that a batch evicts is free for that batch", () => {
  const audit = new KvAudit(limits)
  audit.runs(batchOf(1, 1, 0, 40))
  expect(() => audit.runs(batchOf(2, 2, 0, 40))).toThrow("not free yet")
  const other = new KvAudit(limits)
  other.runs(batchOf(1, 1, 0, 40))
  expect(() => other.runs(batchOf(2, 2, 0, 40, [1]))).not.toThrow()
})
