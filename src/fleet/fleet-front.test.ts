/** A fleet's queue: what waits without a promise does not keep out what some replica promises. */
import { expect, test } from "vitest"
import type { HostInfo } from "../replica/host.ts"
import { jobOf, NO_SLO } from "../serve/host.suite.ts"
import type { AnswerEnd, AnswerSink } from "../text/answer.ts"
import { Fleet } from "./fleet.ts"
import { FleetFront } from "./fleet-front.ts"
import { SaidHost, StillClock } from "./testing.ts"

const INFO = { vocabulary: null, planner: null } as unknown as HostInfo
const WAITING = 4

/** A full queue: `WAITING` requests without an SLO. */
async function full() {
  const hosts = [new SaidHost("a"), new SaidHost("b")]
  const fleet = new Fleet({ hosts, clock: new StillClock(), router: { kind: "offer" } })
  const front = new FleetFront({ fleet, hosts, info: INFO, maxQueue: WAITING })
  const rejected: string[] = []
  front.onObserved(({ effects }) => {
    for (const effect of effects) if (effect.type === "rejected") rejected.push(effect.reason)
  })
  const ask = async (slo: object, choices = 1): Promise<AnswerEnd[]> => {
    const ends: AnswerEnd[] = []
    const sink: AnswerSink = { delta: () => {}, end: (end) => void ends.push(end) }
    const arrivalMs = performance.now()
    const request = { ...jobOf({}, 1, slo).generation, arrivalMs, signal: new AbortController().signal }
    await front.start([request], Array<AnswerSink>(choices).fill(sink))
    return ends
  }
  for (let i = 0; i < WAITING; i++) await ask(NO_SLO)
  for (const { asked } of hosts) for (const { answer } of asked.splice(0)) answer(true)
  await Promise.resolve().then()
  return { hosts, front, ask, rejected }
}

test("what no replica promises is told to come back, and its place is free again", async () => {
  const { hosts, front, ask, rejected } = await full()
  const ends = await ask({ ttft_ms: 1000 })
  expect(front.queue.taken).toBe(WAITING + 1)
  const asked = () => hosts.flatMap((host) => host.asked.splice(0))
  for (let i = 0; i < 2; i++) {
    asked()[0]!.answer(false)
    await Promise.resolve().then()
  }
  expect(ends).toMatchObject([{ kind: "failed", error: { status: 429, code: "queue_full" } }])
  expect(front.queue.taken).toBe(WAITING)
  expect(rejected).toEqual(["queueFull"])
  expect(front.figures.of("default").refused).toBe(1)
})

test("what one promises is served; what asks for no SLO, or for several answers, is not asked about", async () => {
  const { hosts, front, ask } = await full()
  for (const refused of [ask(NO_SLO), ask({ ttft_ms: 1000 }, 2)])
    await expect(refused).rejects.toMatchObject({ status: 429, code: "queue_full" })
  const ends = await ask({ ttft_ms: 1000 })
  const [first] = hosts.flatMap((host) => host.asked.map((asked) => ({ host, asked })))
  first!.asked.answer(true)
  await Promise.resolve().then()
  expect(first!.host.submitted.at(-1)!.job.id).toBe(first!.asked.job.id)
  expect(ends).toEqual([])
  expect(front.queue.taken).toBe(WAITING + 1)
  await expect(ask({ ttft_ms: 1000 })).rejects.toMatchObject({ status: 429, code: "queue_full" })
})

test("where no replica is up a request waits only for one that is to be back soon", async () => {
  const hosts = [new SaidHost("a"), new SaidHost("b")]
  const fleet = new Fleet({ hosts, clock: new StillClock() })
  const front = new FleetFront({ fleet, hosts, info: INFO, maxQueue: WAITING, refusesDown: true })
  const ask = () => {
    const request = { ...jobOf().generation, arrivalMs: 0, signal: new AbortController().signal }
    return front.start([request], [{ delta: () => {}, end: () => {} }])
  }
  hosts[0]!.become("down", "its process died of SIGKILL")
  await ask()
  hosts[1]!.become("down")
  await expect(ask()).rejects.toMatchObject({ status: 503, message: expect.stringMatching(/SIGKILL/) })
  hosts[0]!.comesBack = true
  await ask()
  expect(front.queue.taken).toBe(2)
  hosts[0]!.comesBack = false
  await expect(ask()).rejects.toMatchObject({ status: 503 })
})
