/** The signal of a server, on the real thread. */
import { afterEach, expect, it } from "vitest"
import { adviseNow } from "./advice.ts"
import { Advisor, type AdvisorSource } from "./advisor.ts"
import { ArrivalRing, arrivalsIn } from "./arrival-ring.ts"
import { poisson, SETUP } from "./testing.ts"
import type { AdviceThread } from "./thread.ts"

let advisor: Advisor
afterEach(() => advisor.close())

function ringOf(ratePerSec: number): ArrivalRing {
  const ring = new ArrivalRing(0)
  for (const one of poisson(() => ratePerSec, 0, 60)) ring.ended(ring.arrived(one), { ...one })
  return ring
}

function made(source: Partial<AdvisorSource>, options = {}): Advisor {
  advisor = new Advisor(
    { ring: ringOf(1.5), setup: () => SETUP, replicas: () => 1, nowUs: () => 60e6, ...source },
    { mostReplicas: 8, share: 1, ...options },
  )
  return advisor
}

it("says what the same plays say on this thread", async () => {
  const ring = ringOf(1.5)
  await made({ ring }).forecast()
  const { advice, wanted, atUs } = advisor.latest!
  const options = {
    target: 0.9,
    windowS: 300,
    coldStartS: 0,
    most: 1000,
    mostReplicas: 8,
    seed: 0,
    replicas: 1,
  }
  const recording = { arrivals: arrivalsIn(ring.copy()), sinceUs: 0, nowUs: 60e6 }
  expect(advice).toEqual(adviseNow(SETUP, recording, options))
  expect([wanted, atUs]).toEqual([advice.best, 60e6])
  expect(wanted).toBeGreaterThan(1)
  expect(advisor.busyMs).toBeGreaterThan(0)
})

it("asks for fewer only after a while, and never for more than there may be", async () => {
  let nowUs = 60e6
  const answers = [3, 1, 1, 99]
  const thread: AdviceThread = {
    ask: async () => ({ advice: { best: answers.shift()! } as never, busyMs: 1 }),
    close: async () => {},
  }
  made({ thread, nowUs: () => nowUs }, { downAfterS: 60 })
  const wanted: number[] = []
  for (nowUs of [60e6, 90e6, 120e6, 150e6]) {
    await advisor.forecast()
    wanted.push(advisor.latest!.wanted)
  }
  expect(wanted).toEqual([3, 3, 1, 8])
})

it("has no signal without replicas or a model of them, and keeps the last where a forecast fails", async () => {
  const told: string[] = []
  let setup: typeof SETUP | null = null
  let replicas = 0
  made({ setup: () => setup, replicas: () => replicas, log: (message) => told.push(message) })
  await advisor.forecast()
  setup = SETUP
  await advisor.forecast()
  expect(advisor.latest).toBeNull()
  replicas = 1
  await advisor.forecast()
  const first = advisor.latest
  expect(first).not.toBeNull()
  setup = { ...SETUP, policy: "none" as never }
  await advisor.forecast()
  expect(advisor.latest).toBe(first)
  expect(told).toEqual([expect.stringMatching(/^no forecast of replicas: /)])
  // The thread that failed has an heir.
  setup = SETUP
  await advisor.forecast()
  expect(advisor.latest).not.toBe(first)
})
