/** What is told of requests, and how long the oldest has waited. */
import { expect, test } from "vitest"
import type { AskedAndGot } from "../telemetry/vllm-metrics.ts"
import type { AnswerDelta, AnswerEnd, AnswerSink } from "../text/answer.ts"
import { AskedWatch } from "./asked.ts"

const DELTA = {} as AnswerDelta
const done = (outputTokens: number) =>
  ({ kind: "finished", reason: "stop", outcome: { outputTokens } }) as AnswerEnd
const CANCELLED: AnswerEnd = { kind: "cancelled" }

function watching() {
  const told: AskedAndGot[] = []
  const clock = { nowMs: 1000 }
  const watch = new AskedWatch(
    (one) => told.push(one),
    () => clock.nowMs,
  )
  const start = async (maxTokens: number | null, n: number, arrivalMs = clock.nowMs) => {
    const ends: AnswerEnd[] = []
    const sinks = Array.from(
      { length: n },
      (): AnswerSink => ({ delta: () => {}, end: (end) => ends.push(end) }),
    )
    let watched: readonly AnswerSink[] = []
    await watch.start([{ maxTokens, arrivalMs }], sinks, async (given) => {
      watched = given
    })
    return { watched, ends }
  }
  return { told, clock, watch, start }
}

test("a request is told once, with its longest answer, when all its answers have ended", async () => {
  const { told, start } = watching()
  const { watched, ends } = await start(50, 3)
  watched[1]!.end(done(7))
  watched[0]!.end(done(30))
  expect(told).toEqual([])
  watched[2]!.end(CANCELLED)
  expect(told).toEqual([{ n: 3, maxTokens: 50, longestTokens: 30 }])
  expect(ends).toHaveLength(3)
  ;(await start(null, 1)).watched[0]!.end(done(0))
  expect(told[1]).toEqual({ n: 1, maxTokens: null, longestTokens: 0 })
})

test("one of which nothing ended by itself is not told", async () => {
  const { told, start } = watching()
  ;(await start(5, 1)).watched[0]!.end(CANCELLED)
  expect(told).toEqual([])
})

test("the oldest is the one that came first of those without a token", async () => {
  const { clock, watch, start } = watching()
  expect(watch.oldestMs).toBe(0)
  const first = await start(5, 1)
  clock.nowMs = 1200
  const second = await start(5, 1)
  clock.nowMs = 1500
  expect(watch.oldestMs).toBe(500)
  first.watched[0]!.delta(DELTA)
  expect(watch.oldestMs).toBe(300)
  second.watched[0]!.end(CANCELLED)
  expect(watch.oldestMs).toBe(0)
})

test("one that is refused at once waits no longer", async () => {
  const { watch } = watching()
  const refused = watch.start(
    [{ maxTokens: 1, arrivalMs: 0 }],
    [{ delta: () => {}, end: () => {} }],
    async () => {
      throw new Error("full")
    },
  )
  await expect(refused).rejects.toThrow("full")
  expect(watch.oldestMs).toBe(0)
})
