/** What demands of decodes are kept in: streams by pace, and the heap of what changes next. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../testing.ts"
import { ACTIVE, ChangeHeap, Paces, Streams, WAITING } from "./streams.ts"

test("streams keep what they ask for, however many there are, and begin afresh", () => {
  const streams = new Streams()
  for (const count of [200, 3]) {
    streams.clear()
    for (let i = 0; i < count; i++) {
      const stream = {
        startUs: -1,
        tpotUs: 10 + i,
        remaining: 2,
        contextTokens: 100 + i,
        length: 3,
        expected: 2,
      }
      expect(streams.add(stream, 7 + i)).toBe(i)
      expect(streams.state[i]).toBe(WAITING)
      streams.state[i] = ACTIVE
    }
    for (let i = 0; i < count; i++) {
      expect([streams.startUs[i], streams.endUs[i]]).toEqual([7 + i, 7 + i + 2 * (10 + i)])
      expect(streams.stepsPerUs[i]).toBe(1 / (2 * (10 + i)))
      expect([streams.context[i], streams.length[i], streams.state[i]]).toEqual([100 + i, 3, ACTIVE])
    }
  }
})

describe("streams of one pace", () => {
  /** Streams that need half a step a µs, from this time on, each eight in all. */
  const half = (paces: Paces, row: number, startUs: number, steps = 8) => paces.add(row, startUs, 0.5, steps)

  test("need as many steps as the one that began first, and no more than that one in all", () => {
    const paces = new Paces()
    half(paces, 1, 100)
    half(paces, 2, 90)
    half(paces, 3, 110)
    expect([90, 92, 104, 106, 200].map((at) => paces.most(at))).toEqual([0, 1, 7, 8, 8])
  })

  test("need what the next one does when the first is dropped, and again when it is restored", () => {
    const paces = new Paces()
    for (const [row, startUs] of [
      [1, 100],
      [2, 90],
      [3, 104],
    ] as const)
      half(paces, row, startUs)
    paces.drop(2)
    expect(paces.most(104)).toBe(2)
    paces.drop(1)
    expect(paces.most(106)).toBe(1)
    // One that begins earlier than those that are left.
    half(paces, 4, 102)
    expect(paces.most(106)).toBe(2)
    paces.restore(2)
    expect(paces.most(104)).toBe(7)
    for (const row of [2, 3, 4]) paces.drop(row)
    expect(paces.most(200)).toBe(0)
  })

  test("and of others: the most of any", () => {
    const paces = new Paces()
    half(paces, 1, 100)
    paces.add(2, 100, 0.25, 20)
    expect([108, 116, 140, 180, 200].map((at) => paces.most(at))).toEqual([4, 8, 10, 20, 20])
    half(paces, 3, 120, 12)
    expect(paces.most(200)).toBe(20)
    paces.drop(2)
    expect(paces.most(200)).toBe(12)
  })

  test("are none after a fresh start", () => {
    const paces = new Paces()
    half(paces, 1, 100)
    paces.add(2, 100, 0.25, 20)
    paces.drop(2)
    paces.clear()
    expect(paces.most(500)).toBe(0)
    half(paces, 2, 130, 3)
    expect([132, 500].map((at) => paces.most(at))).toEqual([1, 3])
  })
})

test("the heap has the earliest on top, of more than it had room for, and when the first is put off", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("push" as const), timeUs: fc.nat(1000) }),
    fc.record({ kind: fc.constantFrom("pop" as const, "later" as const), timeUs: fc.nat(1000) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(0, 150), (steps, before) => {
      const heap = new ChangeHeap()
      heap.push(0, 5)
      heap.clear()
      const rows = new Map<number, number>()
      let next = 0
      const push = (timeUs: number) => {
        rows.set(next, timeUs)
        heap.push(next++, timeUs)
      }
      for (let i = 0; i < before; i++) push((37 * i) % 1000)
      for (const { kind, timeUs } of steps) {
        if (kind === "push") push(timeUs)
        else if (rows.size > 0) {
          const { top, nextUs } = heap
          rows.delete(top)
          if (kind === "pop") heap.pop()
          else {
            heap.replaceTop(nextUs + timeUs)
            rows.set(top, nextUs + timeUs)
          }
        }
        expect(heap.nextUs).toBe(Math.min(Infinity, ...rows.values()))
        if (rows.size > 0) expect(rows.get(heap.top)).toBe(heap.nextUs)
      }
      const left: number[] = []
      for (; heap.nextUs < Infinity; heap.pop()) left.push(heap.nextUs)
      expect(left).toEqual([...rows.values()].sort((a, b) => a - b))
    }),
    { numRuns: runs(200) },
  )
})
