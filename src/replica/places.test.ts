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
  for (let i = 0; i < 30 * perSecond; i++) {
    vi.advanceTimersByTime(1000 / perSecond)
    places.giveBack(1, 0)
    places.take(1, 0)
  }
  return places
}

test("of a full queue those that are refused are told turns: each comes when one more has left", () => {
  const queue = busy(10)
  const told = Array.from({ length: 40 }, () => queue.turnMs(1))
  expect(told[0]).toBe(500)
  // Three seconds of a guess of four a second count as well.
  expect(Math.abs(told[39]! / 4000 - 1)).toBeLessThan(0.25)
  expect(queue.turnMs(10) - told[39]!).toBeCloseTo(10 * (told[39]! - told[38]!), 6)
})

test("its refusal says so, as it is: those refused together are told different times", () => {
  const queue = busy(2)
  const tenant = new Tenants().of("default", () => true)
  const told = Array.from({ length: 5 }, () => {
    const refusal = queueRefusal("queueFull", { queue, tenant, choices: 1, backlogMs: 100, detail: "" })
    const { "retry-after-ms": ms, "retry-after": s } = errorHeaders(refusal)
    expect(Number(ms)).toBe(Math.round(refusal.retryMs!))
    expect(Number(s)).toBe(Math.ceil(refusal.retryMs! / 1000))
    return Number(ms)
  })
  // The first is told the least time.
  for (let i = 2; i < told.length; i++) expect(told[i]! - told[i - 1]!).toBeGreaterThan(300)
})

test("a place beyond the limit is no room for what is refused: that waits for those beyond as well", () => {
  const places = new Places(40)
  places.take(40, 0)
  places.takeBeyond(10, 0)
  // Four a second, as long as nothing is known.
  expect(places.turnMs(1)).toBeCloseTo(11 / 4e-3)
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
  const turns = (places: Places) => {
    let ms = 0
    for (let i = 0; i < 20; i++) ms = places.turnMs(1)
    return ms
  }
  expect(turns(one)).toBeGreaterThan(2 * turns(other))
})
