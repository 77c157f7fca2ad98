/** The fleet in real time: over replicas that say what a test has them say, and over real ones on the fake engine. */
import { afterEach, describe, expect, test } from "vitest"
import { fakeEngine } from "../engine/fake/engine.ts"
import { GREEDY } from "../engine/port.ts"
import type { Job, ReplicaHost } from "../replica/host.ts"
import { BreakableEngine } from "../replica/testing.ts"
import { jobOf, Kept } from "../serve/host.suite.ts"
import { HOST_LIMITS, inProcessHost } from "../serve/host-testing.ts"
import { until } from "../serve/until-testing.ts"
import { Fleet, type FleetOptions } from "./fleet.ts"
import { FINISHED, SaidHost, StillClock } from "./testing.ts"

const delta = (content: string) => ({
  ...{ content, reasoning: "", toolCalls: [], logprobs: [], promptTokens: 3, completionTokens: 1 },
})

function fleetOf(count: number, options: Partial<FleetOptions> = {}) {
  const clock = new StillClock()
  const hosts = Array.from({ length: count }, (_, i) => new SaidHost(`r${i}`))
  const fleet = new Fleet({ hosts, clock, router: { kind: "round-robin", reoffers: 2 }, ...options })
  return { fleet, hosts, clock, first: hosts[0]!, second: hosts[1]! }
}

describe("over replicas that are told what to say", () => {
  test("a stream goes on at another replica, and its client sees one", async () => {
    const { fleet, first, second, clock } = fleetOf(2)
    const sink = new Kept()
    const job = jobOf()
    fleet.submit(job, sink)
    const [at] = first.submitted
    at!.sink.started!(0, { ttftUs: 5, queuedUs: 2, cachedTokens: 0 })
    at!.sink.tokens(0, [11], delta("a"))
    clock.advance(1000)
    at!.sink.tokens(0, [12, 13], delta("b"))
    at!.sink.tokens(0, [], delta("held back"))
    clock.advance(1000)
    first.become("down")
    const [next] = second.submitted
    expect(next!.job.choices).toEqual([
      {
        index: 0,
        begun: {
          steps: [
            { tokens: [11], agoUs: 2000 },
            { tokens: [12, 13], agoUs: 1000 },
          ],
          start: { ttftUs: 5, queuedUs: 2, cachedTokens: 0 },
        },
      },
    ])
    expect(next!.job.ageUs).toBe(job.ageUs + 2000)
    // The dead one is late: nothing of it is shown.
    at!.sink.tokens(0, [14], delta("c"))
    at!.sink.end(0, { kind: "lost", reason: "died", detail: "gone" })
    next!.sink.started!(0, { ttftUs: 9, queuedUs: 9, cachedTokens: 9 })
    next!.sink.tokens(0, [14], delta("c"))
    next!.sink.tokens(0, [], delta("!"))
    next!.sink.end(0, FINISHED)
    expect(sink.tokensOf[0]).toEqual([11, 12, 13, 14])
    expect(sink.text[0]).toBe("abc!")
    expect(sink.starts).toEqual([{ ttftUs: 5, queuedUs: 2, cachedTokens: 0 }])
    expect(await sink.over()).toEqual([FINISHED])
    expect(fleet.live).toBe(0)
    expect(second.cancelled).toEqual([])
  })

  test("offers are asked one after the other, with what is left of their time", async () => {
    const { fleet, first, second } = fleetOf(2, { router: { kind: "offer" } })
    fleet.submit(jobOf(), new Kept())
    expect(first.asked).toMatchObject([{ deadlineMs: 50 }])
    first.asked[0]!.answer(false)
    await Promise.resolve().then()
    expect(second.asked).toHaveLength(1)
    second.asked[0]!.answer(true)
    await Promise.resolve().then()
    expect(second.submitted[0]!.job.id).toBe(second.asked[0]!.job.id)
    expect(first.submitted).toEqual([])
  })

  test("what is turned down goes elsewhere once it is given up", async () => {
    const { fleet, first, second } = fleetOf(2)
    fleet.submit(jobOf(), new Kept())
    first.submitted[0]!.sink.turnedDown!(0)
    second.asked[0]!.answer(true)
    await Promise.resolve().then()
    expect(second.submitted).toEqual([])
    expect(first.withdrawals.map(({ id }) => id)).toEqual([first.submitted[0]!.job.id])
    first.withdrawals[0]!.answer(true)
    await Promise.resolve().then()
    expect(second.submitted).toHaveLength(1)
  })

  test("a replica that refuses at once, inside the call, is no trouble", async () => {
    const { fleet, first, second } = fleetOf(2)
    first.refuses = "queueFull"
    fleet.submit(jobOf(), new Kept())
    expect(second.submitted).toHaveLength(1)
    second.refuses = "queueFull"
    const sink = new Kept()
    fleet.submit(jobOf(), sink)
    expect(await sink.over()).toMatchObject([{ kind: "lost", reason: "refused", detail: /queue/ }])
  })

  test("with none up a request waits, and then says what is wrong with each", async () => {
    const { fleet, first, clock } = fleetOf(1)
    first.become("down", "it burns")
    const sink = new Kept()
    fleet.submit(jobOf({}, 1, { ttft_ms: 1000 }), sink)
    clock.advance(3_900_000)
    expect(sink.ends).toEqual([])
    clock.advance(200_000)
    expect(await sink.over()).toMatchObject([{ kind: "lost", detail: /r0: it burns/ }])
    const patient = new Kept()
    fleet.submit(jobOf({}, 1, { ttft_ms: 1000 }), patient)
    first.become("ready")
    expect(first.submitted).toHaveLength(1)
  })

  test("what waits is told so when the replicas say that none is back in its time", async () => {
    const { fleet, first, second, clock } = fleetOf(2)
    let backUs = Infinity
    first.backIn = () => backUs - clock.nowUs()
    second.backIn = () => Infinity
    const sink = new Kept()
    fleet.submit(jobOf(), sink)
    first.submitted[0]!.sink.tokens(0, [11], delta("a"))
    backUs = 20_000_000
    second.become("down", "it burns")
    first.become("down", "it burns as well")
    clock.advance(1_000_000)
    expect(sink.ends).toEqual([])
    backUs = 40_000_000
    clock.advance(100_000)
    expect(await sink.over()).toMatchObject([{ kind: "lost", detail: /r0: it burns as well/ }])
    // Its next life, and the one after it, are unlike: it is told anew.
    first.become("ready")
    const next = new Kept()
    fleet.submit(jobOf(), next)
    first.become("down", "again")
    clock.advance(100_000)
    expect(await next.over()).toMatchObject([{ kind: "lost", detail: /again/ }])
  })

  test("of several answers those that are over stay over; the others go on", () => {
    const { fleet, first, second } = fleetOf(2)
    const sink = new Kept(3)
    fleet.submit(jobOf({}, 3), sink)
    const at = first.submitted[0]!
    at.sink.tokens(0, [1], null)
    at.sink.end(0, FINISHED)
    at.sink.tokens(2, [7], null)
    // One answer is lost: the others are not wanted there any more.
    at.sink.end(1, { kind: "lost", reason: "broken", detail: "nonsense" })
    expect(first.cancelled).toEqual([at.job.id])
    const { job, sink: next } = second.submitted[0]!
    expect(job.choices.map(({ index, begun }) => [index, begun?.steps.length ?? 0])).toEqual([
      [1, 0],
      [2, 1],
    ])
    at.sink.end(2, { kind: "cancelled" })
    next.end(2, FINISHED)
    expect(sink.ends.map((end) => end?.kind)).toEqual(["finished", undefined, "finished"])
    next.end(1, FINISHED)
    expect(fleet.live).toBe(0)
  })

  test("a cancelled request is cancelled where it is, and nothing more is shown", async () => {
    const { fleet, first } = fleetOf(1)
    const sink = new Kept()
    const job = jobOf()
    fleet.submit(job, sink)
    const at = first.submitted[0]!
    fleet.cancel(job.id)
    expect(first.cancelled).toEqual([at.job.id])
    at.sink.tokens(0, [1], null)
    at.sink.end(0, { kind: "cancelled" })
    expect(await sink.over()).toEqual([{ kind: "cancelled" }])
    fleet.cancel(job.id)
  })

  test("a client that fails takes nothing else down", () => {
    const log: string[] = []
    const { fleet, first } = fleetOf(1, { log: (message) => log.push(message) })
    const bad = () => {
      throw new Error("closed pipe")
    }
    fleet.submit(jobOf(), { tokens: bad, end: () => {} })
    const sink = new Kept()
    fleet.submit(jobOf(), sink)
    first.submitted[0]!.sink.tokens(0, [1], null)
    first.submitted[1]!.sink.tokens(0, [1], null)
    expect(sink.tokensOf[0]).toEqual([1])
    expect(first.cancelled).toEqual([first.submitted[0]!.job.id])
    expect(log.join()).toContain("closed pipe")
    expect(fleet.live).toBe(1)
  })

  test("a silent replica is given up", () => {
    const { fleet, first, second, clock } = fleetOf(2, { health: { silenceUs: 1_000_000 } })
    fleet.submit(jobOf(), new Kept())
    for (let i = 0; i < 11; i++) {
      second.say(clock.nowUs())
      clock.advance(100_000)
    }
    expect(first.givenUp).toEqual(["it is silent"])
    expect(second.submitted).toHaveLength(1)
  })

  test("a replica that spoke while this process stood still is not taken for a silent one", () => {
    const { fleet, first, second, clock } = fleetOf(2, { health: { silenceUs: 3_000_000 } })
    fleet.submit(jobOf(), new Kept())
    second.say(clock.nowUs())
    clock.advance(100_000)
    clock.standStill(40_000_000)
    expect([first.givenUp, second.givenUp]).toEqual([[], []])
    // What was silent all the time is found out afterwards.
    for (let i = 0; i < 40; i++) {
      second.say(clock.nowUs())
      clock.advance(100_000)
    }
    expect([first.givenUp, second.givenUp]).toEqual([["it is silent"], []])
  })
})

describe("over real replicas on the fake engine", () => {
  const open: Fleet[] = []
  afterEach(async () => {
    for (const fleet of open.splice(0)) await fleet.close()
  })
  const over = (hosts: ReplicaHost[], options: Partial<FleetOptions> = {}) => {
    const fleet = new Fleet({ hosts, ...options })
    open.push(fleet)
    return fleet
  }
  const sampling = { ...GREEDY, temperature: 1, seed: 7, ignoreEos: true }

  /** What a replica says to the job by itself. */
  async function alone(job: Job): Promise<Kept> {
    const host = inProcessHost()
    const sink = new Kept(job.choices.length)
    host.submit(job, sink)
    await sink.over()
    await host.close()
    return sink
  }

  test("requests are spread, and every one gets its answer", async () => {
    const hosts = [0, 1, 2].map((i) => inProcessHost({ name: `r${i}` }))
    const fleet = over(hosts)
    const sinks = Array.from({ length: 24 }, () => new Kept())
    for (const sink of sinks) fleet.submit(jobOf({ maxTokens: 20 }), sink)
    expect(fleet.replicas.every(({ requests }) => requests < 24)).toBe(true)
    for (const sink of sinks) {
      expect(await sink.over()).toMatchObject([{ kind: "finished", usage: { completionTokens: 20 } }])
      expect(sink.tokensOf[0]).toHaveLength(20)
    }
    await fleet.drain()
    expect(fleet.live).toBe(0)
  })

  test("an engine that breaks down in the middle of streams: they go on elsewhere, token for token", async () => {
    const cost = {
      pieces: [{ step: 1000, tokens: 5 }],
      residualSigma: 0.05,
      fastPassTokens: 1,
      unifiedKv: true,
    }
    const engine = new BreakableEngine(
      fakeEngine({ limits: HOST_LIMITS, cost, time: "real", outputTokens: 5000 }),
    )
    const fleet = over([inProcessHost({ name: "breaks", engine }), inProcessHost({ name: "holds" })], {
      router: { kind: "round-robin" },
    })
    const jobs = Array.from({ length: 6 }, (_, i) =>
      jobOf({ maxTokens: 60, sampling: { ...sampling, seed: i } }, 1 + (i % 2)),
    )
    const sinks = jobs.map((job) => new Kept(job.choices.length))
    for (const [i, job] of jobs.entries()) fleet.submit(job, sinks[i]!)
    await until(() => expect(sinks[0]!.tokensOf[0]?.length).toBeGreaterThan(5))
    engine.fails = () => "it is on fire"
    for (const [i, sink] of sinks.entries()) {
      const ends = await sink.over()
      expect(ends.map((end) => end?.kind)).toEqual(ends.map(() => "finished"))
      expect(sink.tokensOf).toEqual((await alone({ ...jobs[i]!, id: 1000 + i })).tokensOf)
    }
    expect(fleet.live).toBe(0)
  })
})

test("a stream that waits in vain ends in its time, where nothing else happens that would wake its fleet", async () => {
  for (let i = 0; i < 10; i++) {
    const host = new SaidHost("alone")
    const times = { resumePatienceUs: 20_000 + 137 * i }
    const fleet = new Fleet({ hosts: [host], digestMs: Number.POSITIVE_INFINITY, patienceUs: () => 0, times })
    const sink = new Kept()
    fleet.submit(jobOf(), sink)
    host.submitted[0]!.sink.tokens(0, [11], delta("a"))
    host.become("down", "it is gone")
    const [end] = await sink.over()
    expect(end).toMatchObject({ kind: "lost", detail: expect.stringContaining("it is gone") })
    await fleet.close()
  }
})
