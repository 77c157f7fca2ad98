/** Whatever connects, ends, is doubled and restarts, gateways know of each other what is in flight: all of it, and none twice. */
import fc from "fast-check"
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest"
import { connect, TestGateway, type TestProcess } from "./network-testing.ts"

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** Whatever is on its way has come, and what is waited for has not. */
const settle = () => vi.advanceTimersByTimeAsync(6000)

function isConnected(one: TestGateway, other: TestGateway): boolean {
  return one.links.gateways.includes(other.name)
}

/** What a process should know of others, once all is heard. */
function truthFor(process: TestProcess, gateways: readonly TestGateway[]) {
  const own = gateways.find(({ processes }) => processes.includes(process))!
  const others = gateways
    .filter((one) => one === own || isConnected(own, one))
    .flatMap(({ processes }) => processes)
    .filter((one) => one !== process)
  const sent = others.flatMap((one) => [...one.sent])
  return { sent: byId(sent), held: others.reduce((sum, { held }) => sum + held.size, 0) }
}

const byId = (all: [number, number][]) => all.toSorted(([a], [b]) => a - b)

function expectTruth(gateways: readonly TestGateway[]): void {
  for (const { said } of gateways) expect(said.filter((line) => line.includes("no sense"))).toEqual([])
  for (const one of gateways)
    for (const other of gateways) expect(isConnected(one, other)).toBe(isConnected(other, one))
  for (const process of gateways.flatMap(({ processes }) => processes)) {
    const known = { sent: byId(process.knows()), held: process.load.heldElsewhere }
    expect(known).toEqual(truthFor(process, gateways))
  }
}

describe("one that comes later", () => {
  test("knows what the others have in flight and hold, how far it is, and hears the rest", async () => {
    const one = new TestGateway("a", 2)
    const [first, second] = one.processes as [TestProcess, TestProcess]
    for (const id of [100, 101, 102]) first.send(id)
    second.send(103)
    second.hold(104)
    first.tokens(100, 7)
    await settle()
    first.tokens(100, 2)
    first.tokens(101, 1)
    first.end(102)
    const later = new TestGateway("b", 2)
    connect(later, one, 5)
    // Some of it is told before the connection begins, and some after.
    await vi.advanceTimersByTimeAsync(7)
    first.tokens(101, 3)
    first.send(105)
    second.send(104)
    await settle()
    expectTruth([one, later])
    expect(later.processes[1]!.knows()).toHaveLength(5)
    first.end(100)
    second.tokens(103, 1)
    await settle()
    expectTruth([one, later])
  })

  test("a process of a gateway, in the place of one that died, knows what its siblings and peers have", async () => {
    const [one, other] = [new TestGateway("a", 2), new TestGateway("b", 1)]
    connect(one, other, 1)
    await settle()
    one.processes[0]!.send(100)
    one.processes[1]!.send(101)
    other.processes[0]!.send(102)
    other.processes[0]!.tokens(102, 3)
    await settle()
    one.restart(0)
    await settle()
    expectTruth([one, other])
    expect(byId(one.processes[0]!.knows())).toEqual([
      [101, 0],
      [102, 3],
    ])
    expect(byId(other.processes[0]!.knows())).toEqual([[101, 0]])
  })
})

test("what hubs say first is said first, and what they were about to say is in it", async () => {
  const [one, other] = [new TestGateway("a", 1), new TestGateway("b", 1)]
  const third = new TestGateway("c", 1)
  let count = 0
  one.hub.saysFirst("count", () => [count])
  const heard: [string, unknown][] = []
  for (const { name, hub } of [other, third]) hub.onSaid("count", (word) => heard.push([name, word]))
  connect(other, one, 1)
  await vi.advanceTimersByTimeAsync(200)
  heard.length = 0
  count = 1
  one.links.say("count", "one more")
  connect(third, one, 0)
  await vi.advanceTimersByTimeAsync(3)
  expect(heard.filter(([name]) => name === "c").at(-1)).toEqual(["c", 1])
  await settle()
  expect(heard.filter(([name]) => name === "b")).toEqual([["b", "one more"]])
  expect(heard.filter(([name]) => name === "c").at(-1)).toEqual(["c", 1])
})

describe("a connection that is doubled", () => {
  test.each<[string, string]>([
    ["a", "b"],
    ["b", "a"],
  ])(
    "takes nothing away that is under way, whichever stays (%s first)",
    async (name, otherName) => {
      for (let delayMs = 0; delayMs <= 12; delayMs += 3)
        for (let secondMs = 0; secondMs <= 30; secondMs += 6) {
          const [one, other] = [new TestGateway(name, 1), new TestGateway(otherName, 1)]
          const ids = [100, 101, 102]
          for (const id of ids) one.processes[0]!.send(id)
          other.processes[0]!.send(103)
          connect(one, other, delayMs)
          await vi.advanceTimersByTimeAsync(100)
          expectTruth([one, other])
          connect(other, one, secondMs)
          for (let ms = 0; ms < 150; ms++) {
            await vi.advanceTimersByTimeAsync(1)
            expect(other.processes[0]!.knows().map(([id]) => id)).toEqual(ids)
            expect(one.processes[0]!.knows().map(([id]) => id)).toEqual([103])
          }
          expect([one.links.counts.connected, other.links.counts.connected]).toEqual([1, 1])
          one.processes[0]!.end(100)
          await vi.advanceTimersByTimeAsync(100)
          expectTruth([one, other])
          one.die()
          await vi.advanceTimersByTimeAsync(100)
          expect(other.processes[0]!.knows()).toEqual([])
          other.die()
        }
    },
    120_000,
  )

  test("is waited for where the first is hung up before the second is seen, and not for ever", async () => {
    const knownIn = async (toMs: number) => {
      const [one, other] = [new TestGateway("a", 1), new TestGateway("b", 1)]
      one.processes[0]!.send(100)
      connect(other, one, 1)
      await vi.advanceTimersByTimeAsync(1000)
      expectTruth([one, other])
      connect(one, other, toMs, 1)
      let knownMs = 0
      for (; knownMs < 10_000 && other.processes[0]!.knows().length > 0; knownMs += 50)
        await vi.advanceTimersByTimeAsync(50)
      const counts = [one.links.counts.connected, other.links.counts.connected]
      one.die()
      other.die()
      return { knownMs, counts }
    }
    expect(await knownIn(2000)).toEqual({ knownMs: 10_000, counts: [1, 1] })
    const { knownMs, counts } = await knownIn(1e6)
    expect(knownMs).toBeGreaterThan(4000)
    expect(knownMs).toBeLessThan(6000)
    expect(counts[1]).toBe(0)
  })
})

const gateway = fc.nat({ max: 2 })
const actions = fc.array(
  fc.tuple(
    fc.oneof(
      { weight: 3, arbitrary: fc.record({ do: fc.constant("connect"), from: gateway, to: gateway }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("cut"), which: fc.nat() }) },
      { weight: 5, arbitrary: fc.record({ do: fc.constant("send"), at: gateway, process: fc.nat() }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("hold"), at: gateway, process: fc.nat() }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("sendHeld"), which: fc.nat() }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant("tokens"), which: fc.nat() }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant("end"), which: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("process"), at: gateway, process: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("restart"), at: gateway }) },
    ),
    fc.oneof(fc.nat({ max: 2 }), fc.nat({ max: 25 })),
    fc.nat({ max: 20 }),
  ),
  { minLength: 10, maxLength: 60 },
)

type Action = typeof actions extends fc.Arbitrary<[infer One, number, number][]> ? One : never

/** Gateways, and what happens to them. */
class World {
  readonly gateways = ["k", "b", "x"].map((name, i) => new TestGateway(name, 1 + (i % 2)))
  #ids = 100
  #lives = 0
  readonly #cuts: (() => void)[] = []

  act(action: Action, delayMs: number): void {
    const given = action as Action & { from: number; to: number; at: number; process: number; which: number }
    const at = this.gateways[given.at]!
    const process = at?.processes[given.process % at.processes.length]
    if (action.do === "connect" && given.from !== given.to)
      this.#cuts.push(connect(this.gateways[given.from]!, this.gateways[given.to]!, delayMs))
    else if (action.do === "cut") this.#cuts[given.which % this.#cuts.length]?.()
    else if (action.do === "send") process!.send(this.#ids++)
    else if (action.do === "hold") process!.hold(this.#ids++)
    else if (action.do === "sendHeld")
      this.#pick(
        given.which,
        ({ held }) => [...held],
        (one, id) => one.send(id),
      )
    else if (action.do === "tokens")
      this.#pick(
        given.which,
        ({ sent }) => [...sent.keys()],
        (one, id) => one.tokens(id, 1 + (id % 3)),
      )
    else if (action.do === "end")
      this.#pick(
        given.which,
        ({ sent, held }) => [...sent.keys(), ...held],
        (one, id) => one.end(id),
      )
    else if (action.do === "process") at.restart(given.process % at.processes.length)
    else if (action.do === "restart") {
      at.die()
      this.gateways[given.at] = new TestGateway(`${at.name[0]}${++this.#lives}`, at.processes.length)
    }
  }

  get processes(): TestProcess[] {
    return this.gateways.flatMap(({ processes }) => processes)
  }

  /** At any moment. */
  check(): void {
    for (const process of this.processes) {
      const ids = process.knows().map(([id]) => id)
      expect(new Set(ids).size).toBe(ids.length)
    }
  }

  #pick(
    which: number,
    of: (process: TestProcess) => number[],
    then: (process: TestProcess, id: number) => void,
  ): void {
    const all = this.processes.flatMap((process) => of(process).map((id) => ({ process, id })))
    const one = all[which % all.length]
    if (one !== undefined) then(one.process, one.id)
  }
}

test("whatever happens, once it is quiet each knows what all that it is connected to have, and never one twice", async () => {
  await fc.assert(
    fc.asyncProperty(actions, async (all) => {
      const world = new World()
      for (const [action, waitMs, delayMs] of all) {
        world.act(action, delayMs)
        for (let ms = 0; ms < waitMs; ms += 2) {
          await vi.advanceTimersByTimeAsync(Math.min(2, waitMs - ms))
          world.check()
        }
      }
      await settle()
      expectTruth(world.gateways)
      for (const one of world.gateways) one.die()
    }),
    { numRuns: 40 },
  )
}, 240_000)
