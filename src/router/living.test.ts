/** Draws among the living are even, whatever is lost. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { Random } from "../random.ts"
import { inTurn, twoDrawn } from "./living.ts"
import { target } from "./testing.ts"

const fleet = (alive: readonly boolean[]) => alive.map((one) => target({ alive: one }))

test("in turn: the living from a place on, round the end, each once", () => {
  const targets = fleet([true, false, true, true])
  expect(inTurn(targets, 3, 3, -1)).toEqual([3, 0, 2])
  expect(inTurn(targets, 1, 2, 2)).toEqual([3, 0])
  expect(inTurn(targets, 0, 9, -1)).toEqual([0, 2, 3])
  expect(inTurn([], 0, 1, -1)).toEqual([])
})

test("two drawn are two of the living, without the excepted one; fewer where there are fewer", () => {
  const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
  const alive = fc.array(fc.boolean(), { maxLength: 12 })
  fc.assert(
    fc.property(alive, chance, chance, fc.integer({ min: -1, max: 11 }), (living, a, b, except) => {
      const fit = living.flatMap((one, i) => (one && i !== except ? [i] : []))
      const drawn = twoDrawn(fleet(living), [a, b], except)
      expect(drawn.length).toBe(Math.min(2, fit.length))
      expect(new Set(drawn).size).toBe(drawn.length)
      for (const index of drawn) expect(fit).toContain(index)
    }),
  )
})

test.each([[[]], [[3]], [[0, 1, 5]], [[0, 1, 2, 3, 4]]])(
  "with %j of 8 lost every living replica is drawn as often",
  (lost) => {
    const targets = fleet(Array.from({ length: 8 }, (_, i) => !lost.includes(i)))
    const random = new Random("drawn", lost.length)
    const firsts = new Array<number>(8).fill(0)
    const seconds = new Array<number>(8).fill(0)
    for (let i = 0; i < 8000; i++) {
      const [a, b] = twoDrawn(targets, [random.uniform(), random.uniform()], -1)
      firsts[a!]!++
      seconds[b!]!++
    }
    const even = 8000 / (8 - lost.length)
    for (const [i, { alive }] of targets.entries())
      for (const counts of [firsts, seconds]) {
        if (!alive) expect(counts[i]).toBe(0)
        else expect(Math.abs(counts[i]! - even)).toBeLessThan(0.15 * even)
      }
  },
)
