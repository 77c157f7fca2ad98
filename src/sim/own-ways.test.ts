/** Simulated engines that own their KV: they deviate in every way, and no request is the worse for it. */
import { expect, test } from "vitest"
import type { Batch, Event } from "../core/protocol.ts"
import { Audit } from "./audit.ts"
import { type FleetOptions, simulateFleet } from "./fleet.ts"
import { fuzzCase, ofSomeDepth } from "./fuzz-case.ts"
import { KvAudit } from "./kv-audit.ts"

/** Fleets of such engines, with so many batches in flight. */
function* deviating(seeds: number, depth = 3): Generator<FleetOptions> {
  for (let seed = 1; seed <= seeds; seed++) {
    const fleet = ofSomeDepth(fuzzCase(seed).fleet, seed, depth)
    if (fleet.replicas[0]!.engineOwnsKv) yield fleet
  }
}

const hasOwnBlocks = ({ faults = [] }: FleetOptions) => faults.some(({ kind }) => kind === "ownBlocks")

/** An engine with a pool of blocks of its own throws where a plan finds no room in it. */
test("plans fit what an engine has free by its own count, however it came to be less than is accounted for", () => {
  let [steps, less, shared] = [0, 0, 0]
  for (const depth of [2, 3]) {
    for (const fleet of deviating(100, depth)) {
      if (!hasOwnBlocks(fleet)) continue
      const audit = new Audit({ fleet })
      const watched = audit.watched(fleet)
      const plans = new Map<string, Batch>()
      const result = simulateFleet({
        ...watched,
        onEffect: (effect, nowUs, replica) => {
          if (effect.type === "run") plans.set(`${replica} ${effect.batch.number}`, effect.batch)
          watched.onEffect?.(effect, nowUs, replica)
        },
        onEvent: (event, nowUs, replica) => {
          watched.onEvent?.(event, nowUs, replica)
          if (event.type !== "ran") return
          const plan = plans.get(`${replica} ${event.batch}`)!
          for (const { id, position } of event.items) {
            const planned = plan.items.find((item) => item.id === id)!
            if (planned.copy !== undefined && position > 0) shared++
            if (planned.copy !== undefined && position < planned.position) less++
          }
        },
      })
      audit.finish(result)
      steps += result.steps
    }
  }
  // That these say something: prefixes are shared, and less of some is cached than is accounted for.
  expect(steps).toBeGreaterThan(10_000)
  expect(shared).toBeGreaterThan(100)
  expect(less).toBeGreaterThan(5)
})

test("plans are shortened, skipped, left alone, begun elsewhere; KV is taken; batches come without a plan", () => {
  const seen = new Set<string>()
  for (const fleet of deviating(25)) {
    if (hasOwnBlocks(fleet)) continue
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
})

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
