/** The batch in the air. */
import { expect, test } from "vitest"
import { Flight } from "./flight.ts"
import { BatchBuilder } from "./planner/batch-builder.ts"
import type { Batch } from "./protocol.ts"
import { contextOf, liveOf } from "./testing.ts"

/** A batch with the prefills of requests 1 and 4: 100 tokens, 5 ms and 0.1 ms a token. */
function airborne(): Flight {
  const built = new BatchBuilder(contextOf())
  for (const id of [1, 4]) built.prefill(liveOf(id, { promptTokens: 50 }), 50)
  const batch: Batch = { number: 3, items: built.items, evict: [], release: [], predictedUs: 17_000 }
  const flight = new Flight()
  flight.takeOff(batch, built, 1_000_000)
  return flight
}

test("knows what it carries, how long it should take and when it should land", () => {
  const flight = airborne()
  expect(flight.up).toBe(true)
  expect(flight.batches[0]!.requests.map((request) => request!.id)).toEqual([1, 4])
  expect([1, 2, 4].map((id) => flight.carries(id))).toEqual([true, false, true])
  expect(flight.batches[0]).toMatchObject({
    kind: "mixed",
    shape: { tokens: 100, sequences: 2 },
    endsUs: 1_017_000,
  })
})

test("lands once, as the batch that it is", () => {
  const flight = airborne()
  expect(() => flight.land(2, 0)).toThrow("not in flight")
  const landed = flight.land(3, 1_020_000)
  expect(landed.number).toBe(3)
  expect(flight.up).toBe(false)
  expect(flight.carries(1)).toBe(false)
  // Results are still to be matched with whose they are.
  expect(landed.requests.map((request) => request!.id)).toEqual([1, 4])
  expect(() => flight.land(3, 0)).toThrow("not in flight")
})

test("tells once which requests left, when nothing in flight carries them: but for those that came back", () => {
  const flight = airborne()
  expect(flight.takeLeft()).toEqual([])
  for (const id of [1, 2, 3]) flight.left(id)
  flight.cameBack(2)
  expect(flight.takeLeft()).toEqual([3])
  expect(flight.takeLeft()).toEqual([])
  flight.land(3, 1_020_000)
  expect(flight.takeLeft()).toEqual([1])
  expect(flight.takeLeft()).toEqual([])
})
