/** Work of bursts, in turns. */
import { expect, test } from "vitest"
import { Turns } from "./turns.ts"

test("all is done in order, and what else waits has its turn in between", async () => {
  const turns = new Turns()
  const done: (number | "other")[] = []
  const busy = (ms: number) => {
    const until = performance.now() + ms
    while (performance.now() < until);
  }
  for (let i = 0; i < 30; i++)
    turns.push(() => {
      busy(1)
      done.push(i)
    })
  const other = setInterval(() => done.push("other"), 1)
  await expect.poll(() => turns.waiting).toBe(0)
  clearInterval(other)
  expect(done.filter((one) => one !== "other")).toEqual(Array.from({ length: 30 }, (_, i) => i))
  expect(done.slice(0, done.indexOf(29))).toContain("other")
})

test("work that is given while work is done, or once all is done, comes after it", async () => {
  const turns = new Turns()
  const done: string[] = []
  turns.push(() => {
    turns.push(() => done.push("second"))
    done.push("first")
  })
  await expect.poll(() => done).toEqual(["first", "second"])
  turns.push(() => done.push("third"))
  await expect.poll(() => done).toEqual(["first", "second", "third"])
  expect(turns.waiting).toBe(0)
})
