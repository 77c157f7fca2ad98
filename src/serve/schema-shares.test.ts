/** One tenant's schemas leave another's places, in use and to be compiled; each is counted once for a tenant. */
import { expect, it } from "vitest"
import { CONSTRAINT_LIMITS } from "../engine/constraint/constraints.ts"
import { MOST_SCHEMAS, SchemaShares } from "./schema-shares.ts"

const shareOf = (tenant: number) => [0.75, 0.25][tenant] ?? 0

/** Compiles all that `compile` lets. */
function shares() {
  const holds = new Map<string, number>()
  let compile: (() => void)[] = []
  const held = new SchemaShares(
    {
      hold: async (grammar) => {
        await new Promise<void>((resolve) => compile.push(resolve))
        if (grammar === "wrong") throw new Error("it is wrong")
        holds.set(grammar, (holds.get(grammar) ?? 0) + 1)
        return () => holds.set(grammar, holds.get(grammar)! - 1)
      },
    },
    shareOf,
  )
  const compiled = async () => {
    for (const one of compile) one()
    compile = []
    await new Promise(setImmediate)
  }
  const many = async (count: number, tenant: number, name = "g") => {
    const all: Promise<(() => void) | string>[] = []
    for (let i = 0; i < count; i++) {
      all.push(held.hold(`${name}${i}`, tenant).catch(({ message }: Error) => message))
      if (i % 30 === 29) await compiled()
    }
    await compiled()
    return Promise.all(all)
  }
  return { held, holds, compiled, many }
}
const taken = (all: readonly unknown[]) => all.filter((one) => typeof one === "function").length

it("in use", async () => {
  const { many, holds } = shares()
  const own = await many(160, 1, "a")
  expect(taken(own)).toBe(128)
  expect(own.at(-1)).toContain("too many different schemas are in use")
  // A quarter of 32 is the share that it has already, three quarters are the other's.
  expect(taken(await many(30, 0, "b"))).toBe(24)
  expect(taken(await many(1, 2, "c"))).toBe(0)
  for (const release of own) if (typeof release === "function") release()
  expect(taken(await many(30, 1, "d"))).toBe(30)
  expect([...holds].filter(([, count]) => count > 0)).toHaveLength(54)
})

it("to be compiled", async () => {
  const { held, compiled } = shares()
  const first = Array.from({ length: 32 }, (_, i) => held.hold(`a${i}`, 1))
  await expect(held.hold("more", 1)).rejects.toThrow("too many schemas wait to be compiled")
  const others = Array.from({ length: 6 }, (_, i) => held.hold(`b${i}`, 0))
  await expect(held.hold("more", 0)).rejects.toThrow("too many schemas wait")
  await compiled()
  expect(taken(await Promise.all([...first, ...others]))).toBe(38)
})

it("counts one once, and not one that could not be compiled", async () => {
  const { held, holds, compiled, many } = shares()
  const same = Array.from({ length: 500 }, () => held.hold("same", 1))
  const wrong = expect(held.hold("wrong", 1)).rejects.toThrow("it is wrong")
  await compiled()
  await wrong
  expect(taken(await many(127, 1))).toBe(127)
  expect(taken(await many(1, 1, "last"))).toBe(0)
  for (const release of await Promise.all(same)) release()
  expect(holds.get("same")).toBe(0)
  expect(taken(await many(1, 1, "last"))).toBe(1)
})

it("are within what the engine holds", () => {
  const sum = ([free, kept]: readonly [number, number]) => free + kept
  expect(sum(MOST_SCHEMAS.held)).toBe(CONSTRAINT_LIMITS.held)
  expect(sum(MOST_SCHEMAS.waiting)).toBe(CONSTRAINT_LIMITS.queued)
})
