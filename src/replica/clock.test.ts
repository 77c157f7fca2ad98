/** The real clock keeps the promise that the state machines are built on. */
import { expect, test } from "vitest"
import { realClock } from "./clock.ts"

test("it never calls before the time that was named, however its round of the event loop is cut", async () => {
  const early: number[] = []
  await Promise.all(
    Array.from({ length: 400 }, async (_, i) => {
      // Timers count from the beginning of a round: some of these begin late in one.
      if (i % 20 === 0) for (const untilUs = realClock.nowUs() + 700; realClock.nowUs() < untilUs; );
      const atUs = realClock.nowUs() + 100 + i * 137
      await new Promise<void>((resolve) =>
        realClock.wakeAt(atUs, () => {
          const nowUs = realClock.nowUs()
          if (nowUs < atUs) early.push(atUs - nowUs)
          resolve()
        }),
      )
    }),
  )
  expect(early).toEqual([])
})

test("what is cancelled is not called, also between two waits", async () => {
  let calls = 0
  const cancels = Array.from({ length: 50 }, (_, i) => {
    const atUs = realClock.nowUs() + 500 + i * 90
    return realClock.wakeAt(atUs, () => {
      calls++
      cancels[i + 1]?.()
    })
  })
  await new Promise<void>((resolve) => realClock.wakeAt(realClock.nowUs() + 20_000, resolve))
  expect(calls).toBeLessThan(50)
})
