/** What is held leaves in the order of deadlines, within bounds, and every request is settled exactly once. */
import fc from "fast-check"
import { afterEach, beforeEach, expect, it, vi } from "vitest"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { type Ask, readAsk } from "./ask.ts"
import type { Chooser, Endpoint, Sent } from "./chooser.ts"
import { FlowControl, type FlowOptions, type Verdict } from "./flow-control.ts"

const CLASSES = defaultSloClasses()
const OPTIONS: FlowOptions = { mostHeld: 3, mostHeldBytes: 1e6, longestHoldUs: 60e6, late: "send" }

/** Takes as many as there are places, anywhere. */
class Places implements Chooser {
  places: number
  onRoom: (() => void) | null = null
  endpoints: readonly Endpoint[] = []
  readonly asked: string[] = []

  constructor(places: number) {
    this.places = places
  }
  setEndpoints(endpoints: readonly Endpoint[]) {
    this.endpoints = endpoints
  }
  choose(_ask: Ask, among: readonly Endpoint[]) {
    this.asked.push("choose")
    return this.places > 0 ? among : []
  }
  anywhere(_ask: Ask, among: readonly Endpoint[]) {
    this.asked.push("anywhere")
    return this.places > 0 ? among : []
  }
  sent(): Sent {
    this.places--
    return { servedBy() {}, tokens() {}, usage() {}, ended() {} }
  }
  zeroLoadUs() {
    return 1e5
  }
  hopeless(_ask: Ask, dueUs: number, _among: readonly Endpoint[], atUs: number) {
    return dueUs < atUs
  }
  close() {}
}

let nowUs = 0
const verdicts: (Verdict & { name: string })[] = []

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] })
  nowUs = 0
  verdicts.length = 0
})
afterEach(() => void vi.useRealTimers())

function flow(places: number, changes: Partial<FlowOptions> = {}, open = false) {
  const chooser = new Places(places)
  const control = new FlowControl({ ...OPTIONS, ...changes }, chooser, () => nowUs, open)
  if (!open) control.setEndpoints(["a:1", "b:1"])
  return { chooser, control }
}

function ask(ttftMs: number | null, more: Record<string, string> = {}, bytes = 20): Ask {
  const slo = ttftMs === null ? { service_tier: "flex" } : { slo: { ttft_ms: ttftMs } }
  const body = Buffer.from(JSON.stringify({ ...slo, pad: "x".repeat(bytes) }))
  return readAsk({ ":method": "POST", ":path": "/v1/completions", ...more }, body, CLASSES, {
    arrivalUs: nowUs,
    followed: true,
  })
}

const place = (control: FlowControl, name: string, asked: Ask, subset: Endpoint[] | null = null) =>
  control.place(asked, subset, (verdict) => verdicts.push({ ...verdict, name }))

const sent = () => verdicts.filter(({ kind }) => kind === "send").map(({ name }) => name)
const dropped = () => verdicts.flatMap((v) => (v.kind === "drop" ? [[v.name, v.reason]] : []))

/** There is room again. */
function room(chooser: Places, places: number) {
  chooser.places = places
  chooser.onRoom?.()
  vi.advanceTimersToNextTimer()
}

it("sends at once where there is room", () => {
  const { control } = flow(1)
  expect(place(control, "x", ask(100))).toBeNull()
  expect(verdicts).toMatchObject([{ kind: "send", endpoints: ["a:1", "b:1"], heldUs: 0, dueInUs: 1e5 }])
})

it("holds by deadline, then best effort", () => {
  const { chooser, control } = flow(0)
  place(control, "best effort", ask(null))
  place(control, "late", ask(3000))
  place(control, "early", ask(1000))
  expect(sent()).toEqual([])
  for (let i = 0; i < 3; i++) room(chooser, 1)
  expect(sent()).toEqual(["early", "late", "best effort"])
})

it("does not let a newcomer pass what is due before it", () => {
  const { chooser, control } = flow(0)
  place(control, "first", ask(1000))
  chooser.places = 1
  place(control, "later", ask(2000))
  expect(sent()).toEqual([])
  place(control, "sooner", ask(500))
  expect(sent()).toEqual(["sooner"])
})

it("asks again as time goes by, also when nothing is said", () => {
  const { chooser, control } = flow(0)
  place(control, "x", ask(1000))
  chooser.places = 1
  vi.advanceTimersByTime(25)
  expect(sent()).toEqual(["x"])
  expect(vi.getTimerCount()).toBe(0)
})

it("goes on with what is late as best effort, behind what can be on time", () => {
  const { chooser, control } = flow(0)
  place(control, "late", ask(100))
  place(control, "on time", ask(5000))
  nowUs = 200_000
  vi.advanceTimersByTime(20)
  chooser.asked.length = 0
  for (let i = 0; i < 2; i++) room(chooser, 1)
  expect(sent()).toEqual(["on time", "late"])
  expect(chooser.asked.at(-1)).toBe("anywhere")
})

it("gives the place that comes free to what can be on time, also as another becomes late", () => {
  const { chooser, control } = flow(0)
  place(control, "late", ask(100))
  place(control, "on time", ask(5000))
  nowUs = 200_000
  room(chooser, 1)
  expect(sent()).toEqual(["on time"])
  room(chooser, 1)
  expect(sent()).toEqual(["on time", "late"])
})

it("or refuses it, where that is wanted", () => {
  const { control } = flow(0, { late: "shed" })
  place(control, "late", ask(100))
  place(control, "best effort", ask(null))
  nowUs = 200_000
  vi.advanceTimersByTime(20)
  expect(dropped()).toEqual([["late", "rejected-ttl-expired"]])
  expect(control.held).toBe(1)
})

it("refuses what was held for too long", () => {
  const { control } = flow(0, { longestHoldUs: 1e6 })
  place(control, "x", ask(null))
  nowUs = 1e6 + 1
  vi.advanceTimersByTime(20)
  expect(dropped()).toEqual([["x", "rejected-ttl-expired"]])
})

it("when full refuses the tenant with the most held, of its requests the one that can wait longest", () => {
  const { control } = flow(0)
  const of = (tenant: string, ttftMs: number) => ask(ttftMs, { "x-llm-d-inference-fairness-id": tenant })
  place(control, "flood 1", of("flood", 100))
  place(control, "flood 2", of("flood", 300))
  place(control, "flood 3", of("flood", 200))
  place(control, "other", of("other", 9000))
  expect(dropped()).toEqual([["flood 2", "rejected-saturated"]])
  expect(control.held).toBe(3)
})

it("bounds what bodies hold in memory", () => {
  const { control } = flow(0, { mostHeldBytes: 2500 })
  place(control, "a", ask(100, {}, 1000))
  place(control, "b", ask(200, {}, 1000))
  place(control, "c", ask(300, {}, 1000))
  expect(dropped()).toEqual([["c", "rejected-saturated"]])
  expect(control.heldBytes).toBeLessThanOrEqual(2500)
})

it("sends nowhere else than the gateway lets it", () => {
  const { control } = flow(9)
  place(control, "x", ask(100), ["b:1", "z:1"])
  place(control, "y", ask(100), ["z:1"])
  place(control, "z", ask(100), [])
  expect(verdicts).toMatchObject([
    { kind: "send", endpoints: ["b:1"] },
    { kind: "drop", reason: "rejected-no-endpoints" },
    { kind: "drop", reason: "rejected-no-endpoints" },
  ])
  expect([control.any(["b:1"]), control.any(["z:1"]), control.any([])]).toEqual(["b:1", null, null])
})

it("leaves an endpoint out that fails again and again, for longer each time, and tries it again", () => {
  const { control } = flow(1e9)
  const to = (subset: Endpoint[], how: "done" | "failed") => {
    place(control, "x", ask(100), subset)
    const verdict = verdicts.at(-1)!
    if (verdict.kind === "send") verdict.sent.ended(how, nowUs)
    return verdict.kind === "send" ? verdict.endpoints : []
  }
  for (let i = 0; i < 3; i++) to(["a:1"], "failed")
  expect(to(["a:1", "b:1"], "done")).toEqual(["b:1"])
  expect([control.ejected, control.any(null), control.any(null)]).toEqual([1, "b:1", "b:1"])
  // Where it is the only one it is tried all the same.
  expect(to(["a:1"], "failed")).toEqual(["a:1"])
  nowUs += 1e6
  expect(to(["a:1", "b:1"], "done")).toEqual(["a:1", "b:1"])
  for (let i = 0; i < 3; i++) to(["a:1"], "failed")
  nowUs += 1e6
  to(["a:1"], "failed")
  nowUs += 1e6
  expect(control.ejected).toBe(1)
  nowUs += 1e6
  expect(control.ejected).toBe(0)
  expect(to(["a:1"], "done")).toEqual(["a:1"])
})

it("learns endpoints from the gateway where it has none of its own, and bounds them", () => {
  const { chooser, control } = flow(9, {}, true)
  expect(control.any(null)).toBeNull()
  place(control, "x", ask(100), ["p:1"])
  expect(sent()).toEqual(["x"])
  for (let i = 0; i < 2000; i++) control.any([`p:${i}`])
  expect(chooser.endpoints.length).toBe(1024)
})

it("refuses what is held when the last endpoint goes", () => {
  const { control } = flow(0)
  place(control, "x", ask(100))
  control.setEndpoints([])
  vi.advanceTimersToNextTimer()
  expect(dropped()).toEqual([["x", "rejected-no-endpoints"]])
})

it("settles each exactly once, in any order of events, and keeps nothing", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("place" as const), ttft: fc.option(fc.integer({ min: 1, max: 300 })) }),
    fc.record({ do: fc.constant("cancel" as const), which: fc.nat(30) }),
    fc.record({ do: fc.constant("room" as const), places: fc.nat(3) }),
    fc.record({ do: fc.constant("time" as const), ms: fc.nat(200) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { chooser, control } = flow(1)
      const settled = new Map<number, number>()
      const held: ReturnType<typeof place>[] = []
      const cancelled = new Set<number>()
      for (const each of steps) {
        if (each.do === "place") {
          const n = held.length
          held.push(control.place(ask(each.ttft), null, () => settled.set(n, (settled.get(n) ?? 0) + 1)))
        } else if (each.do === "cancel") {
          if (held[each.which] !== undefined && !settled.has(each.which)) cancelled.add(each.which)
          held[each.which]?.cancel()
        } else if (each.do === "room") room(chooser, each.places)
        else {
          nowUs += each.ms * 1000
          vi.advanceTimersByTime(each.ms)
        }
        expect(control.held).toBeLessThanOrEqual(3)
      }
      control.close()
      for (let n = 0; n < held.length; n++) expect(settled.get(n) ?? 0).toBe(cancelled.has(n) ? 0 : 1)
      expect([control.held, control.heldBytes, vi.getTimerCount()]).toEqual([0, 0, 0])
    }),
  )
})

it("tells turns to those that there is no room for, by how fast those that were held have been sent", () => {
  const { chooser, control } = flow(0)
  for (let i = 0; i < 3; i++) place(control, "held", ask(null))
  // Two a second; as many come.
  for (let i = 0; i < 40; i++) {
    nowUs += 500_000
    room(chooser, 1)
    place(control, "held", ask(null))
  }
  verdicts.length = 0
  for (let i = 0; i < 10; i++) place(control, "refused", ask(null))
  const told = verdicts.flatMap((verdict) => (verdict.kind === "drop" ? [verdict.retryMs] : []))
  expect(told).toHaveLength(10)
  for (let i = 1; i < 10; i++) expect((told[i]! - told[i - 1]!) / 500).toBeCloseTo(1, 0)
  expect(told[9]! / 5000).toBeCloseTo(1, 0)
})

/** A line of 50 that five a second leave; 150 come at once, and again when `told` says: how often, and how many are taken then. */
function comeBack(told: (retryMs: number) => number): { comings: number; takenAtFirst: number } {
  const { chooser, control } = flow(0, { mostHeld: 50, longestHoldUs: 1e9 })
  const due: { atUs: number; tries: number }[] = []
  let [comings, refusedAtFirst, takenAtFirst] = [0, 0, 0]
  const come = (tries: number) => {
    comings++
    let refused = false
    control.place(ask(null), null, (verdict) => {
      if (verdict.kind !== "drop") return
      refused = true
      if (tries === 0) refusedAtFirst++
      due.push({ atUs: nowUs + 1000 * told(verdict.retryMs), tries: tries + 1 })
    })
    if (!refused && tries === 1) takenAtFirst++
  }
  for (let i = 0; i < 150; i++) come(0)
  for (let i = 0; i < 3000; i++) {
    nowUs += 20_000
    if (i % 10 === 0) {
      chooser.places = 1
      chooser.onRoom?.()
    }
    vi.advanceTimersByTime(20)
    for (const { tries } of due.filter(({ atUs }) => atUs <= nowUs)) come(tries)
    due.splice(0, due.length, ...due.filter(({ atUs }) => atUs > nowUs))
  }
  control.close()
  return { comings, takenAtFirst: takenAtFirst / refusedAtFirst }
}

it("lets those that come back find room, most of them at once", () => {
  const turns = comeBack((retryMs) => retryMs)
  expect(turns.takenAtFirst).toBeGreaterThan(0.5)
  for (const seconds of [1, 10]) {
    nowUs = 0
    const always = comeBack(() => seconds * 1000)
    expect(always.takenAtFirst).toBeLessThan(turns.takenAtFirst)
    expect(always.comings).toBeGreaterThan(turns.comings)
  }
})
