/** Of too many requests, each tenant's share is thought about. */
import { expect, test } from "vitest"
import { Tenants } from "../learn/tenants.ts"
import { liveOf } from "../testing.ts"
import { windowOf } from "./fair-window.ts"

const ids = (requests: readonly { id: number }[]) => requests.map(({ id }) => id)
const of = (tenant: number, count: number, from: number) =>
  Array.from({ length: count }, (_, i) => liveOf(from + i, { tenant }))

test("of one tenant the first, of few all", () => {
  const tenants = new Tenants()
  expect(ids(windowOf(of(0, 5, 0), 3, tenants))).toEqual([0, 1, 2])
  expect(ids(windowOf(of(0, 3, 0), 3, tenants))).toEqual([0, 1, 2])
})

test("10,000 of one do not push out another's; what that leaves is the first's", () => {
  const chosen = windowOf([...of(0, 10_000, 0), ...of(1, 3, 20_000)], 512, new Tenants())
  expect(chosen).toHaveLength(512)
  expect(ids(chosen.slice(-4))).toEqual([508, 20_000, 20_001, 20_002])
})

test("by weight where all ask for more", () => {
  const chosen = windowOf([...of(0, 50, 0), ...of(1, 50, 100)], 40, new Tenants([1, 3]))
  expect(chosen.filter(({ tenant }) => tenant === 0)).toHaveLength(10)
  expect(chosen).toHaveLength(40)
})

test("with more tenants than places each has one", () => {
  const requests = Array.from({ length: 30 }, (_, i) => liveOf(i, { tenant: i % 10 }))
  const chosen = windowOf(requests, 4, new Tenants())
  expect(new Set(chosen.map(({ tenant }) => tenant)).size).toBe(10)
})
