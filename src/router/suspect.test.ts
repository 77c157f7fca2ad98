/** How a request that kills is found among many, and how many replicas that takes. */
import { expect, test } from "vitest"
import { specOf } from "../core/testing.ts"
import type { DispatchEffect } from "./dispatch.ts"
import { Dispatcher } from "./dispatcher.ts"
import { Suspect } from "./suspect.ts"
import { Timers } from "./timers.ts"

/** So many requests on so many replicas; the replica of request 0 dies as long as it lives. All others come past the point
 * of death when they are placed where it is not. */
function hunt(requests: number, replicas: number): { deaths: number; failed: number[]; live: number } {
  const dispatcher = new Dispatcher({
    router: { kind: "round-robin" },
    chances: () => [0, 0],
    health: { silenceUs: Infinity, stepUs: Infinity },
  })
  const at = new Map<number, Extract<DispatchEffect, { type: "submit" }>>()
  const failed: number[] = []
  let nowUs = 0
  const tell = (event: Parameters<Dispatcher["handle"]>[0]) => {
    dispatcher.handle(event, nowUs)
    for (const effect of dispatcher.poll(nowUs)) {
      if (effect.type === "submit") at.set(effect.id, effect)
      if (effect.type === "fail") failed.push(effect.id)
    }
    dispatcher.check()
  }
  for (let replica = 0; replica < replicas; replica++) tell({ type: "replicaUp", replica })
  for (let id = 0; id < requests; id++)
    tell({ type: "arrived", id, request: specOf(id), choices: 1, patienceUs: 60_000_000 })
  let deaths = 0
  while (!failed.includes(0) && deaths < 50) {
    const poison = at.get(0)!
    const before = new Map(at)
    at.clear()
    tell({ type: "replicaDown", replica: poison.replica, cause: "died" })
    deaths++
    nowUs += 1_000_000
    tell({ type: "replicaUp", replica: poison.replica })
    for (let i = 0; i < 60 && !failed.includes(0) && !at.has(0); i++) {
      for (const { job, replica } of new Map([...before, ...at]).values())
        if (replica !== at.get(0)?.replica) tell({ type: "progressed", job, choice: 0, tokens: 5 })
      nowUs += 100_000
      tell({ type: "woke" })
    }
  }
  return { deaths, failed, live: dispatcher.live }
}

test.each([
  [1, 1, 2],
  [1, 4, 2],
  [8, 4, 3],
  [30, 2, 4],
  [200, 3, 5],
])(
  "one among %i on %i replicas is found after at most %i deaths, and no other is failed",
  (requests, replicas, most) => {
    const { deaths, failed, live } = hunt(requests, replicas)
    expect(failed).toEqual([0])
    expect(deaths).toBeLessThanOrEqual(most)
    expect(live).toBe(requests - 1)
  },
)

test("what was waiting, as far as known, is half as suspect", () => {
  const [running, waiting] = [new Suspect(), new Suspect()]
  for (const suspect of [running, waiting]) {
    for (let i = 0; i < 2; i++) suspect.died(0, suspect === running, 9)
  }
  expect([running.onTrial, waiting.onTrial]).toEqual([true, false])
  expect([running.guilty, running.groupSize]).toEqual([false, 1])
  running.died(0, true, 1)
  expect(running.guilty).toBe(true)
})

test("timers come in order of time", () => {
  const timers = new Timers<number>()
  const times = Array.from({ length: 200 }, (_, i) => (i * 7919) % 211)
  for (const time of times) timers.add(time, time)
  const taken: number[] = []
  for (let item = timers.take(500); item !== undefined; item = timers.take(500)) taken.push(item)
  expect(taken).toEqual([...times].sort((a, b) => a - b))
  timers.add(10, 1)
  expect([timers.take(9), timers.nextUs, timers.take(10), timers.size]).toEqual([undefined, 10, 1, 0])
})
