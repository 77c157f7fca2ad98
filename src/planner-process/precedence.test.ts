/** Going before other programs, where that is allowed. */
import { expect, test } from "vitest"
import { takePrecedence } from "./precedence.ts"

const taken = (before: number) => {
  const set: number[] = []
  expect(
    takePrecedence(
      () => before,
      (priority) => set.push(priority),
    ),
  ).toBe(true)
  return set
}

test("it goes before what it was started beside, however nice that is", () => {
  expect(taken(0)).toEqual([-10])
  expect(taken(5)).toEqual([-5])
  expect(taken(-15)).toEqual([-20])
})

test("where it may not it goes on as it is", () => {
  const refuse = () => {
    throw Object.assign(new Error("setpriority"), { code: "EACCES" })
  }
  expect(takePrecedence(() => 0, refuse)).toBe(false)
})
