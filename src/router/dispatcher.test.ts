/** A fleet's dispatcher, event by event: which replica is asked, and what is turned down or cancelled. */
import { describe, expect, test } from "vitest"
import { specOf } from "../core/testing.ts"
import type { DispatchEffect } from "./dispatch.ts"
import { DISPATCH_TIMES } from "./dispatcher.ts"
import { Desk, MS } from "./dispatcher-testing.ts"
import { IDLE, routed } from "./testing.ts"

const { askUs, withdrawUs } = DISPATCH_TIMES

describe("asking", () => {
  test("replicas are asked one after the other; the first that promises gets it", () => {
    const desk = new Desk(3)
    const [ask] = desk.arrive(1)
    expect(ask).toEqual({ type: "ask", job: 1, id: 1, replica: 0, deadlineUs: askUs })
    expect(desk.offer(1, 0, false)).toEqual([{ type: "ask", job: 2, id: 1, replica: 1, deadlineUs: askUs }])
    expect(desk.offer(2, 1, true)).toEqual([{ type: "submit", job: 2, id: 1, replica: 1, resumed: false }])
    expect(desk.tell({ type: "choiceEnded", job: 2, choice: 0 })).toEqual([])
    expect(desk.dispatcher.live).toBe(0)
  })

  test("what is accepted on promise only is refused where none promises, and asked of a single replica too", () => {
    for (const replicas of [1, 2]) {
      const desk = new Desk(replicas)
      const onPromise = { type: "arrived", choices: 1, patienceUs: MS, onPromise: true } as const
      desk.tell({ ...onPromise, id: 1, request: specOf(1) })
      for (let job = 1; job < replicas; job++) desk.offer(job, job - 1, false)
      expect(desk.offer(replicas, replicas - 1, false)).toEqual([{ type: "fail", id: 1, reason: "full" }])
      expect(desk.dispatcher.live).toBe(0)
      const [ask] = desk.tell({ ...onPromise, id: 2, request: specOf(2) })
      const { job, replica } = ask as Extract<DispatchEffect, { type: "ask" }>
      expect(desk.offer(job, replica, true)).toEqual([
        { type: "submit", job, id: 2, replica, resumed: false },
      ])
      // Accepted now: it is not dropped for want of another promise.
      expect(desk.down(replica).some(({ type }) => type === "fail")).toBe(false)
    }
    const none = new Desk(0)
    const first = none.tell({
      type: "arrived",
      id: 1,
      request: specOf(1),
      choices: 1,
      patienceUs: MS,
      onPromise: true,
    })
    expect(first).toEqual([{ type: "fail", id: 1, reason: "full" }])
  })

  describe("where none promises", () => {
    const request = routed("a".repeat(32), 600)
    const full = { ...IDLE, running: 10, waiting: 9, kvUsedTokens: 1000 }
    /** Replicas that all have the prefix, and a request with it: which is asked first. */
    function asked(replicas: number) {
      const desk = new Desk(replicas, { router: { kind: "prefix-offer" } })
      const arrive = (id: number) =>
        desk.tell({ type: "arrived", id, request, choices: 1, patienceUs: 10_000 * MS })
      let job = 0
      for (let id = 0; id < replicas; id++) {
        let [said] = arrive(id)
        for (let no = 0; no < id; no++) [said] = desk.offer(++job, askedOf(said), false)
        desk.offer(++job, askedOf(said), true)
      }
      return { desk, job, first: askedOf(arrive(replicas)[0]) }
    }
    const askedOf = (effect: DispatchEffect | undefined) =>
      effect?.type === "ask" ? effect.replica : expect.fail(`no ask: ${effect?.type}`)
    const fills = (desk: Desk, replica: number) =>
      desk.tell({ type: "digest", replica, snapshot: full, takenAtUs: 0, computes: true })

    test("it goes to the one that the router names by then, as a new job where that was not the first asked", () => {
      const { desk, job, first } = asked(2)
      fills(desk, first)
      desk.offer(job + 1, first, false)
      expect(desk.offer(job + 2, 1 - first, false)).toEqual([
        { type: "submit", job: job + 3, id: 2, replica: 1 - first, resumed: false },
      ])
    })

    test("it does not go to one that died meanwhile", () => {
      const { desk, job, first } = asked(2)
      fills(desk, first)
      desk.offer(job + 1, first, false)
      const effects = desk.down(1 - first)
      expect(effects).toContainEqual({ type: "submit", job: job + 1, id: 2, replica: first, resumed: false })
    })
  })

  test("where none promises the first asked gets it, as the job that it was asked about", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    desk.offer(1, 0, false)
    expect(desk.offer(2, 1, false)).toEqual([{ type: "submit", job: 1, id: 1, replica: 0, resumed: false }])
  })

  test("a late answer is a no: the next is asked, and what was promised late is given back", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    expect(desk.at(askUs)).toMatchObject([{ type: "ask", job: 2, replica: 1 }])
    expect(desk.offer(1, 0, true)).toEqual([{ type: "withdraw", job: 1, replica: 0 }])
    // The first, which did not answer, gets it as another job: the promise of the first is given back.
    expect(desk.offer(2, 1, false)).toMatchObject([{ type: "submit", job: 3, replica: 0 }])
  })

  test("answers that come twice change nothing", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    desk.offer(1, 0, true)
    expect(desk.offer(1, 0, true)).toEqual([])
    expect(desk.offer(1, 0, false)).toEqual([])
  })

  test("a promise that is of no use any more is given back; its number is not used again", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    desk.tell({ type: "digest", replica: 0, snapshot: IDLE, takenAtUs: 0, computes: false })
    expect(desk.offer(1, 0, true)).toMatchObject([
      { type: "withdraw", job: 1 },
      { type: "ask", job: 2, replica: 1 },
    ])
    desk.tell({ type: "digest", replica: 0, snapshot: IDLE, takenAtUs: 0, computes: true })
    expect(desk.offer(2, 1, false)).toMatchObject([{ type: "submit", job: 3, replica: 0 }])
    expect(desk.tell({ type: "withdrawn", job: 1, ok: true })).toEqual([])
    expect(desk.dispatcher.at(0)).toBe(1)
  })

  test("a request in a hurry does not wait long for an answer", () => {
    const [ask] = new Desk(2).arrive(1, 100 * MS)
    expect(ask).toMatchObject({ type: "ask", deadlineUs: 10 * MS })
  })

  test("a replica alone is not asked", () => {
    expect(new Desk(1).arrive(1)).toMatchObject([{ type: "submit", replica: 0 }])
  })

  test("a draining replica takes nothing new, what it was just asked for included", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    desk.tell({ type: "replicaDraining", replica: 0 })
    expect(desk.offer(1, 0, true)).toEqual([
      { type: "withdraw", job: 1, replica: 0 },
      { type: "ask", job: 2, id: 1, replica: 1, deadlineUs: askUs },
    ])
    for (let id = 2; id < 6; id++) expect(desk.arrive(id)).toMatchObject([{ type: "submit", replica: 1 }])
  })

  test("an engine that does not compute is given nothing until it does", () => {
    const desk = new Desk(1)
    const snapshot = IDLE
    desk.tell({ type: "digest", replica: 0, snapshot, takenAtUs: 0, computes: false })
    expect(desk.arrive(1)).toEqual([])
    expect(desk.tell({ type: "digest", replica: 0, snapshot, takenAtUs: 0, computes: true })).toMatchObject([
      { type: "submit", id: 1 },
    ])
  })
})

describe("turned down", () => {
  test("it goes to another that promises, only after the first has given it up", () => {
    const desk = new Desk(3)
    const { job, replica } = desk.settle(1)
    const [ask] = desk.tell({ type: "turnedDown", job })
    expect(ask).toMatchObject({ type: "ask", id: 1 })
    const other = ask as Extract<DispatchEffect, { type: "ask" }>
    expect(other.replica).not.toBe(replica)
    expect(desk.offer(other.job, other.replica, true)).toEqual([{ type: "withdraw", job, replica }])
    expect(desk.tell({ type: "withdrawn", job, ok: true })).toEqual([
      { type: "submit", job: other.job, id: 1, replica: other.replica, resumed: false },
    ])
  })

  test("it stays where it is when that has begun it, and the promise is given back", () => {
    const desk = new Desk(2)
    const { job } = desk.settle(1)
    desk.tell({ type: "turnedDown", job })
    desk.offer(2, 1, true)
    expect(desk.tell({ type: "withdrawn", job, ok: false })).toEqual([
      { type: "withdraw", job: 2, replica: 1 },
    ])
    expect(desk.dispatcher.at(0)).toBe(1)
  })

  test("it is asked for again until there is an answer", () => {
    const desk = new Desk(2)
    const { job, replica } = desk.settle(1)
    desk.tell({ type: "turnedDown", job })
    desk.offer(2, 1, true)
    const again = { type: "withdraw", job, replica }
    expect(desk.at(withdrawUs)).toEqual([again])
    expect(desk.at(2 * withdrawUs)).toEqual([])
    expect(desk.at(3 * withdrawUs)).toEqual([again])
    expect(desk.tell({ type: "withdrawn", job, ok: true })).toMatchObject([{ type: "submit", replica: 1 }])
  })

  test("given up after it said that it would not: it is nowhere, and is placed anew", () => {
    const desk = new Desk(2)
    const { job } = desk.settle(1)
    desk.tell({ type: "turnedDown", job })
    desk.offer(2, 1, true)
    desk.at(withdrawUs)
    desk.tell({ type: "withdrawn", job, ok: false })
    expect(desk.tell({ type: "withdrawn", job, ok: true })).toMatchObject([{ type: "ask", id: 1 }])
    desk.tell({ type: "withdrawn", job, ok: true })
    expect(desk.dispatcher.live).toBe(1)
  })

  test("nothing is moved once a token is out, nor oftener than it may", () => {
    const desk = new Desk(2)
    const first = desk.settle(1)
    desk.tokens(first.job)
    expect(desk.tell({ type: "turnedDown", job: first.job })).toEqual([])
    let { job } = desk.settle(2)
    for (let move = 0; move < 2; move++) {
      const [ask] = desk.tell({ type: "turnedDown", job }) as [Extract<DispatchEffect, { type: "ask" }>]
      desk.offer(ask.job, ask.replica, true)
      desk.tell({ type: "withdrawn", job, ok: true })
      job = ask.job
    }
    expect(desk.tell({ type: "turnedDown", job })).toEqual([])
  })
})

describe("cancelling", () => {
  test("at any moment: while it waits, is asked about, runs, leaves", () => {
    const waiting = new Desk(0)
    waiting.arrive(1)
    expect(waiting.tell({ type: "cancelled", id: 1 })).toEqual([])
    const desk = new Desk(2)
    desk.arrive(1)
    expect(desk.tell({ type: "cancelled", id: 1 })).toEqual([])
    expect(desk.offer(1, 0, true)).toEqual([{ type: "withdraw", job: 1, replica: 0 }])
    const { job, replica } = desk.settle(2)
    desk.tell({ type: "turnedDown", job })
    expect(desk.tell({ type: "cancelled", id: 2 })).toEqual([{ type: "cancel", job, replica }])
    const third = desk.settle(3)
    const [ask] = desk.tell({ type: "turnedDown", job: third.job }) as [
      Extract<DispatchEffect, { type: "ask" }>,
    ]
    desk.offer(ask.job, ask.replica, true)
    expect(desk.tell({ type: "cancelled", id: 3 })).toMatchObject([{ type: "cancel", job: third.job }])
    expect(desk.tell({ type: "withdrawn", job: third.job, ok: true })).toEqual([])
    expect(desk.dispatcher.live + waiting.dispatcher.live).toBe(0)
  })

  test("what ended, or never came, is not cancelled", () => {
    const desk = new Desk(1)
    const { job } = desk.settle(1)
    desk.tell({ type: "choiceEnded", job, choice: 0 })
    expect(desk.tell({ type: "cancelled", id: 1 })).toEqual([])
    expect(desk.tell({ type: "cancelled", id: 7 })).toEqual([])
  })
})

test("a request of several answers is over when all are, and goes on for those that are not", () => {
  const desk = new Desk(2, { router: { kind: "round-robin" } })
  const [given] = desk.arrive(1, 1000 * MS, 3) as [Extract<DispatchEffect, { type: "submit" }>]
  desk.tell({ type: "choiceEnded", job: given.job, choice: 1 })
  desk.tell({ type: "choiceEnded", job: given.job, choice: 1 })
  const [next] = desk.down(0) as [Extract<DispatchEffect, { type: "submit" }>]
  expect(next).toMatchObject({ type: "submit", replica: 1, resumed: true })
  desk.tell({ type: "choiceEnded", job: next.job, choice: 0 })
  expect(desk.dispatcher.live).toBe(1)
  desk.tell({ type: "choiceEnded", job: next.job, choice: 2 })
  expect(desk.dispatcher.live).toBe(0)
})
