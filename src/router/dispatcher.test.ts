/** A fleet's dispatcher, event by event: which replica is asked, what a silence means, where requests go when replicas die. */
import { describe, expect, test } from "vitest"
import { specOf } from "../core/testing.ts"
import type { DispatchEffect, DispatchEvent } from "./dispatch.ts"
import { DISPATCH_TIMES, Dispatcher, type DispatcherOptions } from "./dispatcher.ts"
import { IDLE, routed } from "./testing.ts"

const MS = 1000
const { askUs, withdrawUs, avoidUs, resumePatienceUs } = DISPATCH_TIMES

/** Tells events, and shows what they bring about without the timers. */
class Desk {
  readonly dispatcher: Dispatcher
  nowUs = 0

  constructor(replicas: number, options: Partial<DispatcherOptions> = {}) {
    const calm = { silenceUs: Infinity, stepUs: Infinity }
    this.dispatcher = new Dispatcher({
      router: { kind: "offer", reoffers: 2 },
      chances: (id, place) => [((id * 7 + place) % 10) / 10, ((id * 3 + place) % 10) / 10],
      ...options,
      health: { ...calm, ...options.health },
    })
    for (let replica = 0; replica < replicas; replica++) this.tell({ type: "replicaUp", replica })
  }

  tell(event: DispatchEvent): DispatchEffect[] {
    this.dispatcher.handle(event, this.nowUs)
    const effects = this.dispatcher.poll(this.nowUs)
    this.dispatcher.check()
    return effects.filter(({ type }) => type !== "wake")
  }
  /** What is due until then. */
  at(nowUs: number): DispatchEffect[] {
    const all: DispatchEffect[] = []
    while (this.nowUs < nowUs) {
      this.nowUs = Math.min(nowUs, this.nowUs + 10 * MS)
      all.push(...this.tell({ type: "woke" }))
    }
    return all
  }
  arrive(id: number, patienceUs = 10_000 * MS, choices = 1): DispatchEffect[] {
    return this.tell({ type: "arrived", id, request: specOf(id), choices, patienceUs })
  }
  offer(job: number, replica: number, takes: boolean): DispatchEffect[] {
    return this.tell({ type: "offered", job, replica, takes })
  }
  /** Arrives and goes to the first that is asked. */
  settle(id: number): { job: number; replica: number } {
    const [first] = this.arrive(id)
    if (first?.type === "submit") return first
    const [given] = first?.type === "ask" ? this.offer(first.job, first.replica, true) : []
    if (given?.type !== "submit") throw new Error("it was not given to the first")
    return given
  }
  down(replica: number): DispatchEffect[] {
    return this.tell({ type: "replicaDown", replica, cause: "died" })
  }
  up(replica: number): DispatchEffect[] {
    return this.tell({ type: "replicaUp", replica })
  }
  tokens(job: number, tokens = 1): DispatchEffect[] {
    return this.tell({ type: "progressed", job, choice: 0, tokens })
  }
}

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

describe("losses", () => {
  test("what has no token out is placed anew, what has begun goes on; begun ones first", () => {
    const desk = new Desk(2, { router: { kind: "round-robin" } })
    const waiting = desk.settle(1)
    desk.settle(2)
    const begun = desk.settle(3)
    expect([waiting.replica, begun.replica]).toEqual([0, 0])
    desk.tokens(begun.job, 5)
    expect(desk.down(0)).toMatchObject([
      { type: "submit", id: 3, replica: 1, resumed: true },
      { type: "submit", id: 1, replica: 1, resumed: false },
    ])
    // What the dead one said, and comes late, is old.
    expect(desk.tokens(begun.job)).toEqual([])
    expect(desk.tell({ type: "choiceEnded", job: begun.job, choice: 0 })).toEqual([])
    expect(desk.dispatcher.live).toBe(3)
  })

  test("with no replica left a request waits as long as it may, and is given the next one that comes", () => {
    const desk = new Desk(0)
    expect(desk.arrive(1, 400 * MS)).toEqual([])
    expect(desk.arrive(2, 800 * MS)).toEqual([])
    expect(desk.at(390 * MS)).toEqual([])
    expect(desk.at(400 * MS)).toEqual([{ type: "fail", id: 1, reason: "noReplica" }])
    expect(desk.up(0)).toMatchObject([{ type: "submit", id: 2 }])
  })

  test("what waits is told so as soon as none is to be expected back in its time", () => {
    const desk = new Desk(2)
    desk.down(1)
    desk.settle(1)
    desk.down(0)
    desk.arrive(2, 500 * MS)
    const expected = (replica: number, byUs: number | null) => desk.tell({ type: "expected", replica, byUs })
    expect(expected(0, Infinity)).toEqual([])
    // Just in time for the second; and the first, which was accepted, has half a minute.
    expect(expected(1, 500 * MS)).toEqual([])
    expect(expected(1, 500 * MS + 1)).toEqual([{ type: "fail", id: 2, reason: "noReplica" }])
    expect(expected(1, resumePatienceUs + 1)).toEqual([{ type: "fail", id: 1, reason: "noReplica" }])
    // Another comes while it is so: it need not wait at all.
    expect(desk.arrive(3, 500 * MS)).toEqual([{ type: "fail", id: 3, reason: "noReplica" }])
    expect(expected(1, null)).toEqual([])
    expect(desk.arrive(4, 500 * MS)).toEqual([])
    expect(desk.up(0)).toMatchObject([{ type: "submit", id: 4 }])
    // Its next life is another matter.
    expect(desk.down(0)).toEqual([])
  })

  test("a replica that should be back, and is not, is not waited for", () => {
    const desk = new Desk(1)
    desk.down(0)
    desk.tell({ type: "expected", replica: 0, byUs: 100 * MS })
    expect(desk.arrive(1, 10_000 * MS)).toEqual([])
    expect(desk.at(100 * MS)).toEqual([])
    expect(desk.at(100 * MS + 10 * MS + avoidUs)).toEqual([{ type: "fail", id: 1, reason: "noReplica" }])
  })

  test("one that is up is waited for, whatever was expected of others", () => {
    const desk = new Desk(2)
    desk.down(0)
    const { job } = desk.settle(1)
    desk.tell({ type: "expected", replica: 0, byUs: Infinity })
    expect(desk.tell({ type: "expected", replica: 1, byUs: Infinity })).toEqual([])
    expect(desk.tell({ type: "lost", job, reason: "refused" })).toEqual([])
    expect(desk.at(avoidUs)).toMatchObject([{ type: "submit", id: 1, replica: 1 }])
  })

  test("one that was accepted waits anew when its replica dies", () => {
    const desk = new Desk(1)
    desk.arrive(1, 100 * MS)
    desk.at(1000 * MS)
    expect(desk.down(0)).toEqual([])
    expect(desk.at(1000 * MS + resumePatienceUs - 10 * MS)).toEqual([])
    expect(desk.at(1000 * MS + resumePatienceUs)).toMatchObject([{ type: "fail", reason: "noReplica" }])
  })

  test("a replica that dies while it is asked is passed over at once", () => {
    const desk = new Desk(2)
    desk.arrive(1)
    expect(desk.down(0)).toMatchObject([{ type: "ask", replica: 1 }])
  })

  test("one that dies while it is to give a request up: it goes to the one that promised it", () => {
    const desk = new Desk(3)
    const { job, replica } = desk.settle(1)
    const [ask] = desk.tell({ type: "turnedDown", job }) as [Extract<DispatchEffect, { type: "ask" }>]
    desk.offer(ask.job, ask.replica, true)
    expect(desk.down(replica)).toMatchObject([{ type: "submit", job: ask.job, replica: ask.replica }])
  })

  test("a replica that refuses is left alone for a while, with that request", () => {
    const desk = new Desk(2)
    const { job, replica } = desk.settle(1)
    const [next] = desk.tell({ type: "lost", job, reason: "refused" })
    expect(next).toMatchObject({ type: "submit", replica: 1 - replica })
    const second = next as Extract<DispatchEffect, { type: "submit" }>
    expect(desk.tell({ type: "lost", job: second.job, reason: "refused" })).toEqual([])
    expect(desk.at(avoidUs)).toMatchObject([{ type: "ask" }])
  })

  test("where every queue is full it is said at once", () => {
    const desk = new Desk(2)
    const { job } = desk.settle(1)
    const [next] = desk.tell({ type: "lost", job, reason: "full" }) as [
      Extract<DispatchEffect, { type: "submit" }>,
    ]
    expect(desk.tell({ type: "lost", job: next.job, reason: "full" })).toEqual([
      { type: "fail", id: 1, reason: "full" },
    ])
  })

  test("a request that is lost over and over, no token between, is given up", () => {
    const desk = new Desk(1)
    const { job } = desk.settle(1)
    let effects = desk.tell({ type: "lost", job, reason: "refused" })
    let tries = 1
    while (!effects.some(({ type }) => type === "fail")) {
      const given = effects.find((effect) => effect.type === "submit")
      if (given) tries++
      effects = given
        ? desk.tell({ type: "lost", job: given.job, reason: "refused" })
        : desk.at(desk.nowUs + avoidUs)
    }
    expect(effects).toEqual([{ type: "fail", id: 1, reason: "unserved" }])
    expect(tries).toBe(9)
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

describe("poison", () => {
  test("a request that kills two replicas, alone with the second, is failed; what was there at one death is not", () => {
    const desk = new Desk(3, { router: { kind: "round-robin" } })
    const poison = desk.settle(1)
    desk.settle(2)
    desk.settle(3)
    const beside = desk.settle(4)
    expect([poison.replica, beside.replica]).toEqual([0, 0])
    const moved = desk.down(0) as Extract<DispatchEffect, { type: "submit" }>[]
    // Apart from each other.
    expect(moved.map(({ replica }) => replica).sort()).toEqual([1, 2])
    const of = (id: number) => moved.find((effect) => effect.id === id)!
    desk.tell({ type: "choiceEnded", job: of(4).job, choice: 0 })
    // Something else was there: it is not sure yet. It waits for a replica to itself.
    const second = desk.down(of(1).replica)
    expect(second.filter(({ type }) => type === "fail")).toEqual([])
    const [trial] = desk.up(0) as Extract<DispatchEffect, { type: "submit" }>[]
    expect(trial).toMatchObject({ type: "submit", id: 1, replica: 0 })
    // It has it to itself.
    for (let id = 10; id < 16; id++)
      expect(desk.arrive(id)).toMatchObject([{ type: "submit", replica: 3 - of(1).replica }])
    expect(desk.down(0)).toEqual([{ type: "fail", id: 1, reason: "poison" }])
  })

  test("alone with both, it is failed at the second death", () => {
    const desk = new Desk(1)
    desk.arrive(1)
    desk.down(0)
    desk.up(0)
    expect(desk.down(0)).toEqual([{ type: "fail", id: 1, reason: "poison" }])
  })

  test("one that gets past the point of death is cleared", () => {
    const desk = new Desk(1)
    const { job } = desk.settle(1)
    desk.tokens(job, 3)
    desk.down(0)
    const [again] = desk.up(0) as [Extract<DispatchEffect, { type: "submit" }>]
    desk.tokens(again.job, 3)
    desk.tokens(again.job, 1)
    expect(desk.down(0)).toEqual([])
    expect(desk.up(0)).toMatchObject([{ type: "submit", id: 1, resumed: true }])
    // Not past it: that is the second.
    expect(desk.down(0)).toEqual([{ type: "fail", id: 1, reason: "poison" }])
  })

  test("a stop on purpose makes nothing suspect", () => {
    const desk = new Desk(1)
    desk.arrive(1)
    for (let i = 0; i < 5; i++) {
      expect(desk.tell({ type: "replicaDown", replica: 0, cause: "closed" })).toEqual([])
      expect(desk.up(0)).toMatchObject([{ type: "submit", id: 1 }])
    }
  })

  test("jobs that die together die once", () => {
    const desk = new Desk(1)
    const jobs = [desk.settle(1), desk.settle(2)].map(({ job }) => job)
    for (const job of jobs) desk.tell({ type: "lost", job, reason: "died" })
    desk.down(0)
    expect(desk.up(0)).toMatchObject([
      { type: "submit", id: 1 },
      { type: "submit", id: 2 },
    ])
  })
})

describe("health", () => {
  test("what a digest said grows old: a replica that was busy long ago is not shunned for it", () => {
    const busy = { ...IDLE, waiting: 8, prefillBacklogTokens: 4000, prefillUsPerToken: 1000 }
    const given = (ageUs: number) => {
      const desk = new Desk(2, { router: { kind: "least-loaded" } })
      desk.tell({ type: "digest", replica: 0, snapshot: busy, takenAtUs: 0, computes: true })
      desk.tell({
        type: "digest",
        replica: 1,
        snapshot: { ...IDLE, waiting: 3 },
        takenAtUs: 0,
        computes: true,
      })
      desk.at(ageUs)
      desk.tell({
        type: "digest",
        replica: 1,
        snapshot: { ...IDLE, waiting: 3 },
        takenAtUs: ageUs,
        computes: true,
      })
      return desk.arrive(1)
    }
    expect(given(100 * MS)).toMatchObject([{ replica: 1 }])
    // By then it has computed what it owed.
    expect(given(5000 * MS)).toMatchObject([{ replica: 0 }])
  })

  test("a replica that is silent for long is given up, and what it has goes elsewhere", () => {
    const desk = new Desk(2, { health: { silenceUs: 1000 * MS }, router: { kind: "round-robin" } })
    desk.settle(1)
    desk.at(900 * MS)
    desk.tell({ type: "heard", replica: 1 })
    expect(desk.at(1000 * MS)).toEqual([
      { type: "giveUp", replica: 0, reason: "silent" },
      { type: "submit", job: 2, id: 1, replica: 1, resumed: false },
    ])
  })

  test("one that fails again and again is left out, probed, and let in", () => {
    const health = { failures: 2, ejectUs: 500 * MS, probes: 2, probeEveryUs: 100 * MS }
    const desk = new Desk(2, { health })
    for (let id = 1; id <= 4; id++) {
      desk.arrive(id)
      desk.at(desk.nowUs + 2 * askUs)
    }
    // Neither answers; the last one is better than none.
    const usable = [0, 1].filter((replica) => desk.dispatcher.usable(replica))
    expect(usable.length).toBe(1)
    const out = 1 - usable[0]!
    const probes = desk.at(desk.nowUs + 1000 * MS).filter(({ type }) => type === "probe")
    expect(probes[0]).toEqual({ type: "probe", replica: out })
    desk.tell({ type: "probed", replica: out, ok: true })
    expect(desk.dispatcher.usable(out)).toBe(false)
    desk.tell({ type: "probed", replica: out, ok: true })
    expect(desk.dispatcher.usable(out)).toBe(true)
  })
})

test("ten thousand that wait are enough: the next is refused", () => {
  const desk = new Desk(0, { mostWaiting: 3 })
  for (let id = 1; id <= 3; id++) expect(desk.arrive(id)).toEqual([])
  expect(desk.arrive(4)).toEqual([{ type: "fail", id: 4, reason: "full" }])
})
