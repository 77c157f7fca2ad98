/** Requests wait for a replica that is on its way, and for no other. */
import { describe, expect, it } from "vitest"
import { Comeback } from "./comeback.ts"

/** Up after a first start of 10 s, that fetched a model, and a second of 3 s. */
function known(): Comeback {
  const comeback = new Comeback(0)
  comeback.ready(10_000)
  comeback.down(20_000)
  comeback.ready(23_000)
  return comeback
}

describe("a replica", () => {
  it("that is up is expected", () => {
    expect(known().isSoon(1e9)).toBe(true)
  })

  it("that is being started is expected for twice its shortest start", () => {
    const comeback = known()
    comeback.down(30_000)
    expect([30_000, 36_000, 36_001].map((nowMs) => comeback.isSoon(nowMs))).toEqual([true, true, false])
    // Late, but back: the next time it is expected again.
    comeback.ready(40_000)
    comeback.down(50_000)
    expect(comeback.isSoon(56_000)).toBe(true)
  })

  it("that waits for its next start is expected when that is near", () => {
    const comeback = known()
    comeback.down(100_000)
    expect([93_999, 94_000, 106_000, 106_001].map((nowMs) => comeback.isSoon(nowMs))).toEqual([
      ...[false, true, true, false],
    ])
  })

  it("that starts in no time is given two seconds", () => {
    const comeback = new Comeback(0)
    comeback.ready(10)
    comeback.down(1000)
    expect([3000, 3001].map((nowMs) => comeback.isSoon(nowMs))).toEqual([true, false])
  })

  it("says until when it is to be back, and that it is not where that has passed", () => {
    const comeback = known()
    expect(comeback.withinMs(29_000)).toBeNull()
    comeback.down(30_000)
    // Its next start waits for a second.
    expect([29_000, 30_000, 36_000, 36_001].map((nowMs) => comeback.withinMs(nowMs))).toEqual([
      ...[7000, 6000, 0, Infinity],
    ])
  })

  it("says nothing of its first start, which may fetch a model, unless there is none", () => {
    const comeback = new Comeback(0)
    expect(comeback.withinMs(1e9)).toBeNull()
    comeback.down(Infinity)
    expect(comeback.withinMs(1e9)).toBe(Infinity)
  })

  it("that is not started any more is not expected", () => {
    const comeback = known()
    comeback.down(Infinity)
    expect(comeback.isSoon(1e9)).toBe(false)
  })
})
