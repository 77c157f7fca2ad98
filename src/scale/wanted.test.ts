/** Up at once, down late. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { Wanted } from "./wanted.ts"

it("goes up with the first advice and down when no more was best for the whole time", () => {
  const wanted = new Wanted(300, 2, 0)
  expect(wanted.take(5, 30)).toBe(5)
  expect(wanted.take(3, 60)).toBe(5)
  expect(wanted.take(3, 329)).toBe(5)
  expect(wanted.take(3, 330)).toBe(3)
  expect(wanted.take(1, 400)).toBe(3)
})

it("keeps what serves at the start for as long", () => {
  const wanted = new Wanted(300, 8, 1000)
  expect(wanted.take(1, 1299)).toBe(8)
  expect(wanted.take(1, 1300)).toBe(1)
})

it("without a wait is the advice itself, and never less than the advice", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 50 })), fc.integer({ min: 0, max: 5 }), (all, wait) => {
      const wanted = new Wanted(wait, 1, 0)
      for (const [at, best] of all.entries()) {
        const asked = wanted.take(best, at + 1)
        const within = all.slice(Math.max(0, at - Math.max(0, wait - 1)), at + 1)
        expect(asked).toBe(Math.max(1, ...within))
      }
    }),
  )
})
