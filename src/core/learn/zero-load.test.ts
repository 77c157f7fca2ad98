/** Prefills seen in service bound what a profile claims of them. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import type { Batch, BatchItem } from "../protocol.ts"
import { liveOf } from "../testing.ts"
import { ZeroLoad } from "./zero-load.ts"

const MS = 1000

/** `count` prefills of so many tokens, each in so much time. */
function seen(
  count: number,
  tokens: number,
  us: number,
  alone: boolean,
  zeroLoad = new ZeroLoad(),
): ZeroLoad {
  for (let i = 0; i < count; i++) zeroLoad.observe(tokens, us, alone)
  return zeroLoad
}

test("what was not seen is as the profile says", () => {
  expect(new ZeroLoad().bounded(37, 1720 * MS)).toBe(1720 * MS)
})

test("one prefill bounds those of its size and below, whatever it shared its steps with", () => {
  const zeroLoad = seen(1, 37, 100 * MS, false)
  expect(zeroLoad.bounded(37, 1720 * MS)).toBe(150 * MS)
  expect(zeroLoad.bounded(5, 1720 * MS)).toBe(150 * MS)
  // Within the bound the profile is believed: it is not replaced by what was seen.
  expect(zeroLoad.bounded(37, 80 * MS)).toBe(80 * MS)
  expect(zeroLoad.bounded(37, 149 * MS)).toBe(149 * MS)
})

test("a longer prompt may take longer by the square of its length, and one of more than twice the tokens is not bounded", () => {
  const zeroLoad = seen(1, 100, 100 * MS, false)
  expect(zeroLoad.bounded(150, 9000 * MS)).toBeCloseTo(337.5 * MS)
  expect(zeroLoad.bounded(200, 9000 * MS)).toBe(600 * MS)
  expect(zeroLoad.bounded(201, 9000 * MS)).toBe(9000 * MS)
})

test("what prefills took alone bounds from below, once three were seen", () => {
  expect(seen(2, 100, 300 * MS, true).bounded(100, 1 * MS)).toBe(1 * MS)
  const zeroLoad = seen(3, 100, 300 * MS, true)
  expect(zeroLoad.bounded(100, 1 * MS)).toBeCloseTo(200 * MS, -3)
  expect(zeroLoad.bounded(5000, 1 * MS)).toBeCloseTo(200 * MS, -3)
  expect(zeroLoad.bounded(99, 1 * MS)).toBe(1 * MS)
  // Beside others a prefill may take any time.
  expect(seen(9, 100, 300 * MS, false).bounded(100, 1 * MS)).toBe(1 * MS)
})

test("the fastest counts, until the machine is slower for good", () => {
  const zeroLoad = seen(1, 64, 100 * MS, false)
  seen(1, 64, 900 * MS, false, zeroLoad)
  expect(zeroLoad.bounded(64, 9000 * MS)).toBeLessThan(152 * MS)
  seen(1000, 64, 900 * MS, false, zeroLoad)
  expect(zeroLoad.bounded(64, 9000 * MS)).toBeGreaterThan(1300 * MS)
  expect(zeroLoad.bounded(64, 9000 * MS)).toBeLessThanOrEqual(1.5 * 900 * 1.004 * MS)
})

test("times and sizes that are none are not learnt from", () => {
  const zeroLoad = seen(3, 0, 10, true)
  seen(3, 100, 0, true, zeroLoad)
  expect(zeroLoad.bounded(1, 500)).toBe(500)
})

test("an honest profile is never touched: steps that take what it says, or longer beside others", () => {
  const prefill = fc.record({
    tokens: fc.integer({ min: 1, max: 4000 }),
    beside: fc.double({ min: 1, max: 20, noNaN: true }),
    alone: fc.boolean(),
    noise: fc.double({ min: 0.8, max: 1.2, noNaN: true }),
  })
  const honestUs = (tokens: number) => 3000 + 400 * tokens + 0.1 * tokens ** 2
  fc.assert(
    fc.property(
      fc.array(prefill, { maxLength: 60 }),
      fc.integer({ min: 1, max: 4000 }),
      (prefills, asked) => {
        const zeroLoad = new ZeroLoad()
        for (const { tokens, beside, alone, noise } of prefills)
          zeroLoad.observe(tokens, honestUs(tokens) * noise * (alone ? 1 : beside), alone)
        expect(zeroLoad.bounded(asked, honestUs(asked))).toBe(honestUs(asked))
      },
    ),
  )
})

describe("a prompt is seen when its last token is computed", () => {
  const item = (tokens: number, sample: boolean): BatchItem => ({
    id: 1,
    position: 0,
    tokens,
    sample,
    draft: 0,
  })
  const beside = (...items: BatchItem[]) => ({ items }) as unknown as Batch
  /** What profiles of next to nothing and of an hour come to for 100 tokens, after three prompts like this one. */
  function bounds(changes: object, steps: { item: BatchItem; others?: BatchItem[]; ms: number }[]) {
    const zeroLoad = new ZeroLoad()
    for (let i = 0; i < 3; i++) {
      const request = Object.assign(liveOf(1), changes)
      for (const { item, others = [], ms } of steps)
        zeroLoad.computed(request, item, beside(item, ...others), ms * MS)
    }
    return [zeroLoad.bounded(100, 1), zeroLoad.bounded(100, 3.6e9)]
  }
  const [half, last] = [item(50, false), item(50, true)]
  const unseen = [1, 3.6e9]

  test("with the time of all its steps", () => {
    // 30 ms, and half as much more or a third less.
    expect(
      bounds({}, [
        { item: half, ms: 10 },
        { item: last, ms: 20 },
      ]),
    ).toEqual([20 * MS, 45 * MS])
    expect(bounds({}, [{ item: half, ms: 10 }])).toEqual(unseen)
  })

  test("beside others it takes no less alone", () => {
    for (const others of [
      [[item(1, true)], []],
      [[], [item(1, true)]],
    ]) {
      const steps = [half, last].map((one, i) => ({ item: one, others: others[i]!, ms: 15 }))
      expect(bounds({}, steps)).toEqual([1, 45 * MS])
    }
  })

  test("with a prefix that was there it says something of the rest only", () => {
    // 64 tokens in 30 ms: 100 may take longer by the square, and alone it was not.
    const [least, most] = bounds({ cachedTokens: 36 }, [{ item: last, ms: 30 }])
    expect(least).toBe(1)
    expect(most).toBeCloseTo(45 * MS * (100 / 64) ** 2)
  })

  test("what lost its KV on the way says nothing", () => {
    expect(bounds({ preemptions: 1 }, [{ item: last, ms: 30 }])).toEqual(unseen)
  })
})
