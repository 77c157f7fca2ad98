/** One at a time, the short before the long, nothing for ever, none whose client has gone; tenants in turns. */
import { expect, it } from "vitest"
import { Lane } from "./lane.ts"
import { SharedBound } from "./shared-bound.ts"

/** A lane on a clock of its own, and what was done in it. */
function lane(mostSize = 1e9, weights: readonly number[] = []) {
  const done: string[] = []
  const clock = { nowMs: 0 }
  const waiting = new SharedBound(mostSize)
  const made = new Lane({ waiting, nowMs: () => clock.nowMs, weightOf: (tenant) => weights[tenant] ?? 1 })
  let release: (() => void) | undefined
  const add = (name: string, size: number, signal = new AbortController().signal, tenant = 0) =>
    made.run({
      ...{ size, tenant },
      signal,
      work: async () => {
        done.push(name)
        await new Promise<void>((resolve) => {
          release = resolve
        })
        return { name }
      },
    })
  const step = async () => {
    release?.()
    release = undefined
    await new Promise(setImmediate)
  }
  return { made, done, clock, add, step, waiting }
}

it("works on one at a time, the shorter first", async () => {
  const { add, done, step } = lane()
  const all = [add("first", 9e6), add("long", 1e6), add("short", 10), add("middle", 1000)]
  expect(done).toEqual(["first"])
  for (let i = 0; i < 4; i++) await step()
  expect(done).toEqual(["first", "short", "middle", "long"])
  expect(await Promise.all(all)).toEqual([
    { name: "first" },
    { name: "long" },
    { name: "short" },
    { name: "middle" },
  ])
})

it("what has waited long enough is overtaken no more", async () => {
  const { add, done, step, clock } = lane()
  void add("first", 1)
  void add("long", 1e6)
  clock.nowMs = 9_999
  void add("before", 0)
  clock.nowMs = 10_001
  void add("after", 0)
  for (let i = 0; i < 4; i++) await step()
  expect(done).toEqual(["first", "before", "long", "after"])
})

it("lets go what nothing waits for, and what it held", async () => {
  const { add, done, step, waiting } = lane()
  const gone = new AbortController()
  void add("first", 1)
  const second = add("second", 7, gone.signal)
  void add("third", 9)
  expect(waiting.taken).toBe(16)
  gone.abort()
  expect(await second).toBeNull()
  expect(waiting.taken).toBe(9)
  for (let i = 0; i < 3; i++) await step()
  expect(done).toEqual(["first", "third"])
  expect(await add("late", 1, gone.signal)).toBeNull()
  expect(waiting.taken).toBe(0)
})

it("takes no more than its most, and goes on after a failure", async () => {
  const { add, step, made, done } = lane(100)
  const failing = made.run({
    size: 1,
    signal: new AbortController().signal,
    work: () => Promise.reject(new Error("no")),
  })
  const second = add("second", 60)
  expect(await add("third", 41)).toBe("full")
  void add("fourth", 40)
  await expect(failing).rejects.toThrow("no")
  await step()
  await step()
  expect(done).toEqual(["fourth", "second"])
  await step()
  expect(await second).toEqual({ name: "second" })
})

it("a tenant's piece waits for one of another's at most, however many that one has", async () => {
  const { add, done, step } = lane()
  const { signal } = new AbortController()
  for (let i = 0; i < 4; i++) void add(`a${i}`, 100, signal, 1)
  await step()
  // Longer than all of the others', and it goes first among its own.
  void add("b long", 1000, signal, 2)
  void add("b", 900, signal, 2)
  for (let i = 0; i < 5; i++) await step()
  // Nothing is owed to one that was away, nor for what it had alone.
  expect(done).toEqual(["a0", "a1", "b", "a2", "a3", "b long"])
  for (let i = 0; i < 3; i++) await step()
  for (let i = 0; i < 3; i++) void add(`later a${i}`, 100, signal, 1)
  void add("later b", 100, signal, 2)
  for (let i = 0; i < 4; i++) await step()
  expect(done.slice(6)).toEqual(["later a0", "later b", "later a1", "later a2"])
})

it("a tenant of three times the weight has three times the work done", async () => {
  const { add, done, step } = lane(1e9, [1, 3])
  const { signal } = new AbortController()
  for (let i = 0; i < 12; i++) {
    void add("a", 100, signal, 0)
    void add("b", 100, signal, 1)
  }
  for (let i = 0; i < 11; i++) await step()
  expect(done.filter((name) => name === "b")).toHaveLength(9)
})
