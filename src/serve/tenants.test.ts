/** Which tenant a request is of, and that a flood of names takes no more than its bound. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { TenantConfig } from "../config/tenants.ts"
import { UserError } from "../errors.ts"
import { MOST_NAMED, OTHERS, Tenants } from "./tenants.ts"

const FAIRNESS = "x-llm-d-inference-fairness-id"
const tenant = (name: string, weight: number, ...keys: string[]): TenantConfig => ({ name, weight, keys })
const KEYED = [tenant("a", 3, "key-a", "key-A"), tenant("b", 1, "key-b"), tenant("c", 0.5)]
const idle = () => true
const busy = () => false

function codeOf(act: () => unknown): string | null {
  try {
    act()
  } catch (error) {
    if (error instanceof UserError) return error.code
  }
  throw new Error("it was not refused")
}

describe("keys", () => {
  const tenants = new Tenants({ tenants: KEYED })
  const by = (key: string, more = {}) => tenants.identify({ authorization: `Bearer ${key}`, ...more })

  it("name their tenant, each of several", () => {
    expect([by("key-a"), by("key-A"), by("key-b")]).toEqual(["a", "a", "b"])
    expect(tenants.identify({ authorization: "bearer  key-a " })).toBe("a")
  })

  it("are needed, and must be right", () => {
    expect(tenants.needsKey).toBe(true)
    for (const wrong of ["key-c", "key-", "KEY-A", "a", "key-a key-b", "key-a,", "__proto__"])
      expect(["invalid_api_key", "missing_api_key"]).toContain(codeOf(() => by(wrong)))
    expect(codeOf(() => by("key-c"))).toBe("invalid_api_key")
    for (const authorization of [undefined, "", "Bearer", "Bearer ", "Basic key-a", "key-a"])
      expect(codeOf(() => tenants.identify({ authorization }))).toBe("missing_api_key")
  })

  it("cannot be spoken over by the header, unless it is trusted", () => {
    const claims = ["b", "new", "x".repeat(500), "no such name"]
    expect(claims.map((name) => by("key-a", { [FAIRNESS]: name }))).toEqual(["a", "a", "a", "a"])
    const trusting = new Tenants({ tenants: KEYED, trustHeader: true })
    const named = (name: string) => trusting.identify({ authorization: "Bearer key-a", [FAIRNESS]: name })
    expect([named("b"), named("new"), named("")]).toEqual(["b", "new", "a"])
    expect(codeOf(() => trusting.identify({ [FAIRNESS]: "a" }))).toBe("missing_api_key")
  })

  it("may be left out where the operator says so; a wrong one is refused all the same", () => {
    const free = new Tenants({ tenants: KEYED, requireKey: false })
    expect(free.needsKey).toBe(false)
    expect(free.identify({})).toBe("default")
    expect(free.identify({ [FAIRNESS]: "b" })).toBe("default")
    expect(codeOf(() => free.identify({ authorization: "Bearer key-c" }))).toBe("invalid_api_key")
  })

  it("mean nothing where no tenant has one", () => {
    const open = new Tenants({ tenants: [tenant("c", 2)] })
    expect(open.identify({ authorization: "Bearer any" })).toBe("default")
    expect(open.identify({ authorization: "Bearer any", [FAIRNESS]: "c" })).toBe("c")
    expect(new Tenants({ trustHeader: false }).identify({ [FAIRNESS]: "c" })).toBe("default")
  })
})

describe("the header", () => {
  const tenants = new Tenants()
  const named = (name: string | undefined) => tenants.identify({ [FAIRNESS]: name })

  it("names a tenant; without it there is the default one", () => {
    expect([named("a"), named(" auth0|5@x.org/ü".slice(0, 14)), named("x".repeat(128))]).toEqual([
      "a",
      "auth0|5@x.org",
      "x".repeat(128),
    ])
    expect([named(undefined), named(""), named("  "), named("default")]).toEqual(Array(4).fill("default"))
  })

  it("is llm-d's, else the Gateway API's; an empty one says nothing", () => {
    const gateway = "x-gateway-inference-fairness-id"
    expect(tenants.identify({ [gateway]: "g" })).toBe("g")
    expect(tenants.identify({ [gateway]: "g", [FAIRNESS]: "a" })).toBe("a")
    expect(tenants.identify({ [gateway]: "g", [FAIRNESS]: " " })).toBe("g")
    expect(codeOf(() => tenants.identify({ [gateway]: "a b" }))).toBe("invalid_value")
    const keyed = new Tenants({ tenants: KEYED })
    expect(keyed.identify({ authorization: "Bearer key-a", [gateway]: "b" })).toBe("a")
  })

  it.each(["a b", "a, b", "x".repeat(129), "é", "a\tb", "\u007f", OTHERS])("%j is refused", (name) => {
    expect(codeOf(() => named(name))).toBe("invalid_value")
  })
})

describe("numbers", () => {
  it("are those of the weights", () => {
    const tenants = new Tenants({ tenants: [...KEYED, tenant("default", 7)] })
    const weight = (name: string) => tenants.weights[tenants.of(name, idle).number]
    expect(["a", "b", "c", "default"].map(weight)).toEqual([3, 1, 0.5, 7])
    expect(["a", "b", "c", "default", "new"].map((name) => tenants.weightOf(name))).toEqual([3, 1, 0.5, 7, 1])
    expect(tenants.of("default", idle).number).toBe(0)
    expect(tenants.configured).toEqual(["default", "a", "b", "c"])
    expect(tenants.weights).toHaveLength(5)
    expect(new Tenants().weights).toHaveLength(2 + MOST_NAMED)
  })

  it("go from the tenant that was named longest ago to a new one, when it has no requests", () => {
    const tenants = new Tenants()
    const numbers = new Map(
      Array.from({ length: MOST_NAMED }, (_, i) => [`t${i}`, tenants.of(`t${i}`, busy).number]),
    )
    expect(new Set(numbers.values()).size).toBe(MOST_NAMED)
    const others = tenants.all.find(({ name }) => name === OTHERS)!.number
    expect(tenants.of("late", busy).number).toBe(others)
    expect(tenants.of("t0", busy).number).toBe(numbers.get("t0"))
    // t0 was named again, and t1 has requests.
    const freed = tenants.of("late", (number) => number !== numbers.get("t1"))
    expect(freed.number).toBe(numbers.get("t2"))
    expect(tenants.of("late", busy).number).toBe(freed.number)
    expect(tenants.of("t2", busy).number).toBe(others)
    expect(tenants.all).toHaveLength(2 + MOST_NAMED)
  })

  it("are of one tenant each, and within the weights, whatever names come", () => {
    const flood = fc.array(fc.tuple(fc.nat(400), fc.nat(3)), { minLength: 300, maxLength: 600 })
    fc.assert(
      fc.property(flood, (names) => {
        const tenants = new Tenants({ tenants: [tenant("t5", 2)] })
        const others = tenants.all.find(({ name }) => name === OTHERS)!.number
        const live = new Map<number, string>()
        for (const [name, ends] of names) {
          const { number } = tenants.of(`t${name}`, (one) => !live.has(one))
          expect(number).toBeLessThan(tenants.weights.length)
          if (number !== others) expect(live.get(number) ?? `t${name}`).toBe(`t${name}`)
          live.set(number, `t${name}`)
          if (ends === 0) live.clear()
        }
        expect(tenants.all.length).toBeLessThanOrEqual(3 + MOST_NAMED)
      }),
      { numRuns: 50 },
    )
  })
})

describe("salts", () => {
  it("go by the name, not by the number, which others get", () => {
    const tenants = new Tenants()
    const first = tenants.of("a", idle)
    for (let i = 0; i < MOST_NAMED; i++) tenants.of(`t${i}`, idle)
    const again = tenants.of("a", idle)
    expect(again.number).not.toBe(first.number)
    expect(again.prefixSalt).toEqual(first.prefixSalt)
    const salts = [first, ...["b", "default", "t1"].map((name) => tenants.of(name, busy))]
    expect(new Set(salts.map(({ prefixSalt: { high, low } }) => `${high} ${low}`)).size).toBe(4)
    expect(new Tenants().of("a", idle).prefixSalt).not.toEqual(first.prefixSalt)
  })

  it("of prompts are one where they are shared; those of sessions are not", () => {
    const tenants = new Tenants({ sharePrefixes: true })
    const [a, b] = [tenants.of("a", idle), tenants.of("b", idle)]
    expect(a.prefixSalt).toEqual(b.prefixSalt)
    expect(a.sessionSalt).not.toEqual(b.sessionSalt)
  })
})
