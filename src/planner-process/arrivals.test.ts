/** Requests as an engine tells of them, as the core is told. */
import { describe, expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { columnOf } from "../wire/planner/columns.ts"
import type { Arrived, Begun, EngineMessage } from "../wire/planner/messages.ts"
import { ArrivalReader } from "./arrivals.ts"
import { PlannerTenants } from "./planner-tenants.ts"
import { ENGINE } from "./testing.ts"

const classes = defaultSloClasses()
const NOW_US = 50_000_000
const UNIX_MS = 1_795_898_676_617

const reader = (engine: Partial<EngineMessage> = {}, tenants = new PlannerTenants({})) =>
  new ArrivalReader({ engine: { ...ENGINE, ...engine }, classes, tenants })

const arrival = (changes: Partial<Arrived> = {}): Arrived => ({
  ...{ id: 7, ageUs: 2000, promptTokens: 40, maxOutputTokens: 10, slo: {}, lora: null },
  waitsForGrammar: false,
  ...changes,
})
const read = (changes: Partial<Arrived> = {}, engine: Partial<EngineMessage> = {}) =>
  reader(engine).read(arrival(changes), NOW_US, UNIX_MS)

test("sizes, prefix, class, and the time at which it came", () => {
  const found = read({
    prefix: columnOf([3, 2 ** 53 - 1]),
    slo: { slo_class: "code" },
    waitsForGrammar: true,
  })
  expect(found!.spec).toMatchObject({
    ...{ id: 7, promptTokens: 40, maxOutputTokens: 10, session: -1, tenant: 0, tier: "slo" },
    ...{ app: classes.byName.get("code")!.app, arrivalUs: NOW_US - 2000, prefix: [3, 2 ** 53 - 1] },
    waitsForGrammar: true,
  })
  expect(found).toMatchObject({ tenant: "default", seen: null, mistakes: [] })
})

describe("how old it is", () => {
  const arrivalUs = (slo_arrived_unix_ms: number) => read({ slo: { slo_arrived_unix_ms } })!.spec.arrivalUs
  test("counts from the gateway, where that had it before", () => {
    expect(arrivalUs(UNIX_MS - 30)).toBe(NOW_US - 30_000)
  })
  test("but not by a clock that is wrong", () => {
    expect(arrivalUs(UNIX_MS - 1)).toBe(NOW_US - 2000)
    expect(arrivalUs(UNIX_MS + 5000)).toBe(NOW_US - 2000)
    expect(arrivalUs(UNIX_MS - 4_000_000)).toBe(NOW_US - 2000)
  })
})

describe("what it may yield", () => {
  test("is what the KV leaves, where that is less than the engine's own bound", () => {
    const limits = { ...ENGINE.limits, kvTokens: 520, contextTokens: 512 }
    expect(read({ maxOutputTokens: 472 }, { limits })!.spec.maxOutputTokens).toBe(472)
    const short = { ...limits, kvTokens: 500 }
    expect(read({ maxOutputTokens: 472 }, { limits: short })!.spec.maxOutputTokens).toBe(496 - 40)
  })
  test("a prompt that the KV can never hold is not told to the core", () => {
    const limits = { ...ENGINE.limits, kvTokens: 47 }
    expect(read({ promptTokens: 32 }, { limits })).toBeNull()
    expect(read({ promptTokens: 31 }, { limits })!.spec.maxOutputTokens).toBe(1)
  })
})

describe("thinking", () => {
  const slo = { slo_class: "reasoning" }
  test("is told where the engine says where thoughts end", () => {
    expect(read({ slo }, { tellsThinking: true })!.spec).toMatchObject({
      thinking: true,
      slo: { tpotUs: 100_000, thinkingTpotUs: 50_000 },
    })
  })
  test("else the shorter pace holds throughout", () => {
    expect(read({ slo })!.spec).toMatchObject({
      thinking: false,
      slo: { tpotUs: 50_000, thinkingTpotUs: 50_000 },
    })
  })
})

test("tenants and their sessions are kept apart", () => {
  const tenants = new PlannerTenants({ tenants: [{ name: "ann", weight: 3, keys: ["secret"] }] })
  const one = reader({}, tenants)
  const of = (slo_tenant: string, slo_session = "s") =>
    one.read(arrival({ slo: { slo_tenant, slo_session } }), NOW_US, UNIX_MS)!.spec
  expect(tenants.all.weights[of("ann").tenant!]).toBe(3)
  expect(of("bob").tenant).not.toBe(of("ann").tenant)
  expect(of("bob").session).not.toBe(of("ann").session)
  expect(of("ann").session).toBe(of("ann").session)
  expect(of("ann", "t").session).not.toBe(of("ann").session)
})

describe("one that has begun", () => {
  const begun = (changes: Partial<Begun> = {}): Begun => ({
    ...{
      output: 3,
      computed: 42,
      agoUs: columnOf([900, 500, 100]),
      tokens: columnOf([1, 1, 1]),
      even: false,
    },
    ...changes,
  })
  const steps = (changes: Partial<Begun> = {}) => read({ begun: begun(changes) })!.seen?.steps

  test("brings the times of its tokens", () => {
    expect(steps()).toEqual([
      { atUs: NOW_US - 900, tokens: 1, answeringFrom: -1 },
      { atUs: NOW_US - 500, tokens: 1, answeringFrom: -1 },
      { atUs: NOW_US - 100, tokens: 1, answeringFrom: -1 },
    ])
  })
  test("or the first and the last, and the rest came evenly", () => {
    const even = { output: 5, agoUs: columnOf([900, 100]), tokens: columnOf([1, 4]), even: true }
    expect(steps(even)!.map(({ atUs }) => NOW_US - atUs)).toEqual([900, 700, 500, 300, 100])
  })
  test("says where its thoughts ended", () => {
    const tokens = columnOf([1, 3])
    const thought = { output: 4, agoUs: columnOf([900, 100]), tokens, thoughtTokens: 2 }
    expect(steps(thought)!.map(({ answeringFrom }) => answeringFrom)).toEqual([-1, 1])
  })
  test("without a token it is as a new one", () => {
    const none = { output: 0, computed: 20, agoUs: columnOf([]), tokens: columnOf([]) }
    expect(read({ begun: begun(none) })!.seen).toBeNull()
  })
})
