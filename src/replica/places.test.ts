/** What a request that finds no place is told. */
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { errorBody, errorHeaders } from "../http/errors.ts"
import { queueRefusal } from "../serve/refusal.ts"
import { Tenants } from "../serve/tenants.ts"
import { Places } from "./places.ts"

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] })
})
afterEach(() => {
  vi.useRealTimers()
})

/** A full queue of 40 from which so many a second have been leaving, and into which as many came. */
function busy(perSecond: number): Places {
  const places = new Places(40)
  places.take(40, 0)
  for (let i = 0; i < 8 * perSecond; i++) {
    vi.advanceTimersByTime(1000 / perSecond)
    places.giveBack(1, 0)
    places.take(1, 0)
  }
  return places
}

test("a full queue is worth to come back to when as many have left as are in it", () => {
  expect(busy(10).turnoverMs / 1000).toBeCloseTo(4, 0)
  // The rate counts by quarters of a second.
  expect(Math.abs(busy(2).turnoverMs / 20_000 - 1)).toBeLessThan(0.1)
  expect(new Places(40).turnoverMs).toBe(500)
})

test("its refusal says so, and up to half as much again: those refused together do not come back together", () => {
  const queue = busy(10)
  const tenant = new Tenants().of("default", () => true)
  const refusal = queueRefusal("queueFull", { queue, tenant, choices: 1, backlogMs: 100, detail: "" })
  const told = Array.from({ length: 50 }, () => Number(errorHeaders(refusal)["retry-after-ms"]))
  expect(Math.min(...told)).toBeGreaterThanOrEqual(Math.round(queue.turnoverMs))
  expect(Math.max(...told)).toBeLessThanOrEqual(Math.round(queue.turnoverMs * 1.5))
  expect(new Set(told).size).toBeGreaterThan(1)
})

test("its refusal counts what the planner has undertaken, where that is longer", () => {
  const queue = busy(10)
  const tenant = new Tenants().of("default", () => true)
  const refusal = queueRefusal("queueFull", { queue, tenant, choices: 1, backlogMs: 50_000, detail: "" })
  expect(errorBody(refusal).metrics).toEqual({ expected_wait_ms: 50_000 })
  expect(Number(errorHeaders(refusal)["retry-after"])).toBeGreaterThanOrEqual(50)
})

test("beyond a full queue there is a quarter more, for what is promised", () => {
  const places = new Places(8)
  expect(places.hasRoomBeyond(10)).toBe(true)
  expect(places.hasRoomBeyond(11)).toBe(false)
  expect(places.take(8, 0)).toBe(true)
  expect([places.take(1, 0), places.takeBeyond(2, 0), places.takeBeyond(1, 0)]).toEqual([false, true, false])
  expect(places.taken).toBe(10)
  places.giveBack(1, 0)
  // Still more than the limit: what is not promised waits for two more.
  expect([places.take(1, 0), places.takeBeyond(1, 0)]).toEqual([false, true])
  expect(new Places(3).takeBeyond(4, 0)).toBe(false)
})

test("places that were only asked for say nothing of how soon there is room", () => {
  const [one, other] = [busy(2), busy(2)]
  for (let i = 0; i < 40; i++) {
    if (one.takeBeyond(1, 0)) one.giveBack(1, 0, false)
    if (other.takeBeyond(1, 0)) other.giveBack(1, 0)
  }
  expect(one.turnoverMs).toBeGreaterThan(19_000)
  expect(other.turnoverMs).toBeLessThan(10_000)
})
