/** One at a time, the short before the long, nothing for ever, none whose client has gone. */
import { expect, it } from "vitest"
import { Lane } from "./lane.ts"

/** A lane on a clock of its own, and what was done in it. */
function lane(mostSize = 1e9) {
  const done: string[] = []
  const clock = { nowMs: 0 }
  const made = new Lane({ mostSize, nowMs: () => clock.nowMs })
  let release: (() => void) | undefined
  const add = (name: string, size: number, signal = new AbortController().signal) =>
    made.run({
      size,
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
  return { made, done, clock, add, step }
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
  const { add, done, step, made } = lane()
  const gone = new AbortController()
  void add("first", 1)
  const second = add("second", 7, gone.signal)
  void add("third", 9)
  expect(made.waitingSize).toBe(16)
  gone.abort()
  expect(await second).toBeNull()
  expect(made.waitingSize).toBe(9)
  for (let i = 0; i < 3; i++) await step()
  expect(done).toEqual(["first", "third"])
  expect(await add("late", 1, gone.signal)).toBeNull()
  expect(made.waitingSize).toBe(0)
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
