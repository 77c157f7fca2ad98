/** One tenant's schemas leave another's places, in use and to be compiled, and turns; each is counted once for a tenant. */
import { expect, it } from "vitest"
import { CONSTRAINT_LIMITS } from "../engine/constraint/constraints.ts"
import { MOST_SCHEMAS, SchemaShares } from "./schema-shares.ts"

const shareOf = (tenant: number) => [0.75, 0.25][tenant] ?? 0

/** Over an engine that compiles one grammar a `step`, those that are wrong included. */
function shares() {
  const holds = new Map<string, number>()
  const compiled: string[] = []
  const next: (() => void)[] = []
  const made = new SchemaShares(
    {
      answersAtOnce: (grammar) => compiled.includes(grammar),
      hold: async (grammar) => {
        if (!compiled.includes(grammar)) await new Promise<void>((resolve) => next.push(resolve))
        if (!compiled.includes(grammar)) compiled.push(grammar)
        if (grammar === "wrong") throw new Error("it is wrong")
        holds.set(grammar, (holds.get(grammar) ?? 0) + 1)
        return () => holds.set(grammar, holds.get(grammar)! - 1)
      },
    },
    { shareOf },
  )
  const step = async () => {
    for (const one of next.splice(0)) one()
    await new Promise(setImmediate)
  }
  const hold = (grammar: string, tenant: number) =>
    made.hold(grammar, tenant).catch(({ message }: Error) => message)
  /** One after the other. */
  const many = async (count: number, tenant: number, name: string) => {
    const all: ((() => void) | string)[] = []
    for (let i = 0; i < count; i++) {
      const one = hold(`${name}${i}`, tenant)
      await step()
      all.push(await one)
    }
    return all
  }
  const live = () => [...holds.values()].filter((count) => count > 0).length
  return { hold, many, step, compiled, live }
}
const taken = (all: readonly unknown[]) => all.filter((one) => typeof one === "function").length
const names = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name}${i}`)

it("in use", async () => {
  const { many, live } = shares()
  const own = await many(130, 1, "a")
  expect(taken(own)).toBe(128)
  expect(own.at(-1)).toContain("too many different schemas are in use")
  // A quarter of 32 is the share that it has already, three quarters are the other's.
  expect(taken(await many(25, 0, "b"))).toBe(24)
  expect(taken(await many(1, 2, "c"))).toBe(0)
  for (const release of own) if (typeof release === "function") release()
  expect(taken(await many(30, 1, "d"))).toBe(30)
  expect(live()).toBe(54)
})

it("to be compiled, in turns", async () => {
  const { hold, step, compiled } = shares()
  const flood = names("a", 32).map((grammar) => hold(grammar, 1))
  expect(await hold("more", 1)).toContain("too many schemas wait to be compiled")
  const others = names("b", 6).map((grammar) => hold(grammar, 0))
  expect(await hold("more", 0)).toContain("too many schemas wait to be compiled")
  for (let i = 0; i < 6; i++) await step()
  expect(compiled).toEqual(["a0", "b0", "a1", "b1", "a2", "b2"])
  for (let i = 0; i < 32; i++) await step()
  expect(taken(await Promise.all([...flood, ...others]))).toBe(38)
})

it("one that is compiled waits for none, nor does one that waits with another", async () => {
  const { hold, step } = shares()
  const first = [hold("a", 1), hold("b", 1), hold("a", 1)]
  await step()
  expect(taken([await first[0], await first[2]])).toBe(2)
  expect(taken([await hold("a", 0)])).toBe(1)
  await step()
  expect(taken([await first[1]])).toBe(1)
})

it("counts one once, and not one that could not be compiled", async () => {
  const { hold, step, many, live } = shares()
  const same = Array.from({ length: 500 }, () => hold("same", 1))
  const wrong = [hold("wrong", 1), hold("wrong", 1)]
  await step()
  await step()
  expect(await Promise.all(wrong)).toEqual(["it is wrong", "it is wrong"])
  expect(taken(await many(127, 1, "g"))).toBe(127)
  expect(taken(await many(1, 1, "last"))).toBe(0)
  for (const release of await Promise.all(same)) if (typeof release === "function") release()
  expect(live()).toBe(127)
  expect(taken(await many(1, 1, "last"))).toBe(1)
})

it("are within what the engine holds", () => {
  const sum = ([free, kept]: readonly [number, number]) => free + kept
  expect(sum(MOST_SCHEMAS.held)).toBe(CONSTRAINT_LIMITS.held)
  expect(sum(MOST_SCHEMAS.waiting)).toBe(CONSTRAINT_LIMITS.queued)
})
