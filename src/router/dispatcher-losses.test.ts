/** A fleet's dispatcher when replicas die: what a silence means, where requests go, and which of them are suspected. */
import { describe, expect, test } from "vitest"
import type { DispatchEffect } from "./dispatch.ts"
import { DISPATCH_TIMES } from "./dispatcher.ts"
import { Desk, MS } from "./dispatcher-testing.ts"
import { IDLE } from "./testing.ts"

const { askUs, avoidUs, resumePatienceUs } = DISPATCH_TIMES

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
