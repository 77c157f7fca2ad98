/** When a step hangs, when failures are the engine's, and when it is tried again. */
import { describe, expect, test } from "vitest"
import { EngineWatch } from "./engine-watch.ts"
import { VirtualClock } from "./testing.ts"

/** A watch whose callbacks are written down, on a clock that is set by hand. */
function watched(options = { leastUs: 10_000_000, factor: 20 }) {
  const clock = new VirtualClock()
  const log: string[] = []
  let nowUs = 0
  const timers = new Map<number, () => void>()
  let next = 0
  const byHand = {
    nowUs: () => nowUs,
    soon: clock.soon.bind(clock),
    wakeAt(atUs: number, fn: () => void) {
      const timer = next++
      timers.set(timer, () => {
        if (nowUs < atUs) return
        timers.delete(timer)
        fn()
      })
      return () => void timers.delete(timer)
    },
  }
  const watch = new EngineWatch(byHand, options, {
    down: () => log.push("down"),
    probe: () => log.push("probe"),
    log: (message, level) => log.push(`${level}: ${message}`),
  })
  const at = (us: number) => {
    nowUs = us
    for (const timer of [...timers.values()]) timer()
    return log.splice(0)
  }
  return { watch, at, timers }
}

describe("a step hangs", () => {
  test.each([
    [100_000, 10_000_000, 10_000_000],
    [1_000_000, 10_000_000, 20_000_000],
    [1_000_000, Infinity, Infinity],
  ])("predicted at %i µs and with a floor of %d, after %d", (predictedUs, leastUs, boundUs) => {
    const { watch, at } = watched({ leastUs, factor: 20 })
    watch.began(3, predictedUs)
    expect(at(Math.min(boundUs, 1e12) - 1)).toEqual([])
    expect(watch.state).toBe("ok")
    if (boundUs === Infinity) return
    expect(at(boundUs)).toHaveLength(2)
    expect(watch.state).toBe("hung")
  })

  test("and all hear why; it ends late, and its results are not wanted", () => {
    const { watch, at } = watched()
    watch.began(3, 50_000)
    expect(at(10_000_000)).toEqual([
      "error: the engine is down: a step with 3 requests has not ended within 10.0 s (0.0500 s predicted)",
      "down",
    ])
    expect(watch.detail).toMatch(/^a step with 3 requests/)
    at(14_000_000)
    expect(watch.downUs).toEqual({ hung: 4_000_000, failing: 0 })
    expect(watch.landed(null)).toBe(false)
    expect(at(20_000_000)).toEqual(["info: the engine is back: the hung step ended after 14.0 s"])
    expect(watch).toMatchObject({ state: "ok", detail: "", trips: 1 })
    expect(watch.downUs).toEqual({ hung: 4_000_000, failing: 0 })
    watch.began(1, 50_000)
    expect(watch.landed(null)).toBe(true)
    expect(at(1e9)).toEqual([])
  })

  test("not, where this process itself stood still: it gets its time once more", () => {
    const { watch, at } = watched()
    watch.began(1, 0)
    expect(at(11_000_001)).toEqual([])
    expect(at(21_000_000)).toEqual([])
    expect(at(21_000_001)).toHaveLength(2)
  })

  test("and fails in the end: the engine is tried until it computes", () => {
    const { watch, at } = watched()
    watch.began(1, 0)
    at(10_000_000)
    expect(watch.landed("lost")).toBe(false)
    expect(watch).toMatchObject({ state: "failing", detail: "a step that hung for 10.0 s failed (lost)" })
    expect(at(10_999_999)).toEqual([expect.stringContaining("failed (lost)")])
    expect(at(11_000_000)).toEqual(["probe"])
    watch.probed(null)
    expect(watch.state).toBe("ok")
    expect(watch.downUs).toEqual({ hung: 0, failing: 1_000_000 })
  })
})

describe("a step that fails", () => {
  const failing = (...full: boolean[]) => {
    const all = watched()
    for (const each of full) {
      all.watch.began(1, 1000)
      expect(all.watch.landed("broken", each)).toBe(true)
    }
    return all
  }

  test("has the engine probed, one probe at a time", () => {
    const { watch, at } = failing(false, false)
    expect(at(0)).toEqual(["probe"])
    watch.probed(null)
    expect(at(0)).toEqual([])
    watch.landed("broken")
    expect(at(0)).toEqual(["probe"])
    expect(watch.state).toBe("ok")
  })

  test("for want of KV does so when the fifth in a row does", () => {
    expect(failing(true, true, true, true).at(0)).toEqual([])
    expect(failing(true, true, true, true, true).at(0)).toEqual(["probe"])
    const { watch, at } = failing(true, true, true, true)
    watch.landed(null)
    watch.landed("full", true)
    expect(at(0)).toEqual([])
  })

  test("with a probe that fails for a second means that the engine is down, and tried ever less often", () => {
    const { watch, at } = failing(false)
    at(0)
    watch.probed("broken")
    expect(at(999_999)).toEqual(["probe"])
    watch.probed("broken")
    expect(at(1_000_000)).toEqual(["probe"])
    expect(watch.state).toBe("ok")
    watch.probed("broken")
    expect(watch.state).toBe("failing")
    expect(at(1_000_000)).toEqual(["error: the engine is down: every step fails (broken)", "down"])
    const pauses: number[] = []
    let [us, lastUs] = [1_000_000, 1_000_000]
    while (pauses.length < 7) {
      us += 500_000
      if (at(us).includes("probe")) {
        pauses.push((us - lastUs) / 1e6)
        lastUs = us
        watch.landed("broken")
        watch.probed("broken")
      }
    }
    expect(pauses).toEqual([1, 2, 4, 8, 16, 30, 30])
    at(us + 30_000_000)
    watch.landed(null)
    watch.probed(null)
    expect(watch.state).toBe("ok")
    expect(at(us + 30_000_000)).toEqual(["info: the engine is back: a step was computed"])
    expect(watch.downUs.failing).toBe(us + 29_000_000)
    // It has its second again.
    watch.landed("broken")
    watch.probed("broken")
    expect(watch.state).toBe("ok")
  })

  test("now and then does not add up: a step that is computed in between ends it", () => {
    const { watch, at } = failing(false)
    watch.probed("broken")
    at(500_000)
    watch.landed(null)
    watch.probed(null)
    at(2_000_000)
    watch.landed("broken")
    watch.probed("broken")
    expect(watch.state).toBe("ok")
  })

  test("a probe that hangs is told by its step's end", () => {
    const { watch, at } = failing(false)
    at(0)
    watch.began(1, 0)
    at(10_000_000)
    watch.probed("engineDown")
    expect(watch.state).toBe("hung")
    expect(watch.landed(null)).toBe(false)
    expect(watch.state).toBe("ok")
  })

  test("are tried no more once it is closed", () => {
    const { watch, at, timers } = failing(false)
    watch.probed("broken")
    at(2_000_000)
    watch.probed("broken")
    watch.began(1, 0)
    watch.close()
    expect(timers.size).toBe(0)
    at(1e9)
    expect(watch.state).toBe("failing")
  })
})
