/** The event queue: by time, then rank, then order of entry. */
import { expect, test } from "vitest"
import { Random } from "../random.ts"
import { EventHeap } from "./heap.ts"

test("gives events by time, rank and order of entry, whatever the order of pushing", () => {
  const random = new Random("heap", 1)
  const heap = new EventHeap<[atUs: number, rank: number, entered: number]>()
  const expected: [number, number, number][] = []
  const got: [number, number, number][] = []
  let entered = 0
  let nowUs = 0
  for (let round = 0; round < 3000; round++) {
    if (random.uniform() < 0.55) {
      const event: [number, number, number] = [nowUs + random.integer(0, 5), random.integer(0, 5), entered++]
      heap.push(event[0], event[1], event)
      expected.push(event)
    } else if (heap.size > 0) {
      expected.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])
      nowUs = heap.nextUs
      expect(heap.pop()).toEqual(expected[0])
      got.push(expected.shift()!)
    }
  }
  expect(got.length).toBeGreaterThan(1000)
  expect(heap.size).toBe(expected.length)
})

test("is empty at the end", () => {
  const heap = new EventHeap<string>()
  heap.push(5, 0, "a")
  expect([heap.nextUs, heap.pop(), heap.pop(), heap.nextUs]).toEqual([5, "a", undefined, Infinity])
})
