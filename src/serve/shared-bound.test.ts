/** What one tenant has taken leaves the others their shares, and all of it together has a bound. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { SharedBound } from "./shared-bound.ts"

const SHARES = [0.5, 0.25, 0.25]
const shareOf = (tenant: number) => SHARES[tenant] ?? 0

it("goes to the first that come, then to those below their share", () => {
  const bound = new SharedBound(100, 40, shareOf)
  expect([bound.take(100, 0), bound.take(1, 0)]).toEqual([true, false])
  expect([bound.take(11, 1), bound.take(10, 1), bound.take(1, 1)]).toEqual([false, true, false])
  expect([bound.take(0, 9), bound.take(1, 9)]).toEqual([true, false])
  bound.give(11, 0)
  expect([bound.take(1, 9), bound.take(1, 9)]).toEqual([true, false])
  expect(bound.taken).toBe(100)
})

it("without shares is a bound and no more", () => {
  const bound = new SharedBound(10)
  expect([bound.take(10), bound.take(1, 1), bound.take(1)]).toEqual([true, false, false])
  bound.give(4)
  expect([bound.take(5, 1), bound.take(4, 1)]).toEqual([false, true])
})

it("holds whatever is taken and given back", () => {
  const steps = fc.array(fc.record({ tenant: fc.nat(3), amount: fc.nat(30), gives: fc.boolean() }))
  fc.assert(
    fc.property(steps, (all) => {
      const bound = new SharedBound(100, 40, shareOf)
      const held: [amount: number, tenant: number][] = []
      for (const { tenant, amount, gives } of all) {
        const before = held.reduce((sum, [one, of]) => (of === tenant ? sum + one : sum), 0)
        const taken = bound.take(amount, tenant)
        if (before + amount <= 40 * shareOf(tenant)) expect(taken).toBe(true)
        if (taken) held.push([amount, tenant])
        if (gives && held.length > 0) bound.give(...held.shift()!)
        expect(bound.taken).toBe(held.reduce((sum, [one]) => sum + one, 0))
        expect(bound.taken).toBeLessThanOrEqual(140)
      }
    }),
  )
})
