/** What every engine that hangs, breaks and comes back means for requests: each ends once and is told why, and what comes
 * afterwards is served from the KV as it is. */
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import type { RequestId } from "../core/protocol.ts"
import { type Engine, GREEDY } from "../engine/port.ts"
import { type End, ReplicaDriver, type Submission } from "./driver.ts"
import { BreakableEngine } from "./testing.ts"

export interface DownSubject {
  name: string
  /** Four sequences, blocks of 16 tokens. */
  open(): Promise<Engine>
}

const cost = { pieces: [{ step: 1000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
/** In real time: a step of these engines takes a few milliseconds, on a machine that is busy with others perhaps some hundred. */
const LEAST_US = 1_500_000

export function engineDownSuite(subject: DownSubject): void {
  let engine: BreakableEngine
  let driver: ReplicaDriver
  beforeEach(async () => {
    engine = new BreakableEngine(await subject.open())
    driver = new ReplicaDriver({
      engine,
      config: { limits: engine.limits, cost, policy: "slos-serve", apps: 1 },
      watch: { leastUs: LEAST_US },
    })
  })
  afterEach(async () => {
    engine.letGo()
    await driver.close()
  })

  interface Asked {
    id: RequestId
    tokens: number[]
    end: Promise<End>
  }

  function ask(place: number, more: Partial<Submission> = {}): Asked {
    const tokens: number[] = []
    let onEnd: (end: End) => void = () => {}
    const end = new Promise<End>((resolve) => {
      onEnd = resolve
    })
    const id = driver.submit({
      ...{ app: 0, session: -1, prefix: [], maxOutputTokens: 12, tier: "slo", thinking: false, onEnd },
      sampling: { ...GREEDY, ignoreEos: true },
      slo: { ttftUs: 1e7, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity },
      prompt: Int32Array.from({ length: 40 }, (_, i) => 10 + ((place * 31 + i * 7) % 200)),
      onTokens: (row) => {
        tokens.push(...row.tokens)
        return { stopped: row.end, answeringFrom: -1 }
      },
      ...more,
    })
    return { id, tokens, end }
  }
  /** A request with its first tokens. */
  async function running(place: number, more: Partial<Submission> = {}): Promise<Asked> {
    const asked = ask(place, { maxOutputTokens: 100, ...more })
    // Often: a fast engine is soon done with all of it.
    await expect.poll(() => asked.tokens.length, { interval: 2 }).toBeGreaterThan(1)
    return asked
  }
  const state = () => expect.poll(() => driver.watch.state)
  const used = () => driver.snapshot().kvUsedTokens - driver.snapshot().kvCachedTokens

  async function servesAsEver(expected: readonly number[]): Promise<void> {
    // More than fit at once, so that sequences are given anew.
    const all = Array.from({ length: 6 }, (_, i) => ask(i % 2))
    for (const { end } of all) expect((await end).reason).toBe("length")
    expect(all[0]!.tokens).toEqual(expected)
    expect(all[2]!.tokens).toEqual(expected)
    await expect.poll(used).toBe(0)
    expect(driver.queue.taken).toBe(0)
    driver.replica.check()
  }

  async function alone(): Promise<number[]> {
    const { tokens, end } = ask(0)
    await end
    return tokens
  }

  describe(`${subject.name}: a step that hangs`, () => {
    test("fails whatever is live, refuses more, and once it ends all is as before", async () => {
      const expected = await alone()
      const first = await running(1)
      const long = { maxOutputTokens: 100 }
      const others = [2, 3, 4, 5].map((place) => ask(place, long))
      const follower = ask(6, { ...long, after: others[3]!.id })
      engine.hold()
      await state().toBe("hung")
      const all = [first, ...others, follower]
      for (const { end } of all)
        expect(await end).toMatchObject({
          reason: "engineDown",
          message: expect.stringMatching(/^a step with \d requests? has not ended within \d+\.\d+ s/),
        })
      expect((await first.end).outcome).toMatchObject({ attained: false })
      expect(driver.reserve(1)).toBe("engineDown")
      expect((await ask(7).end).reason).toBe("engineDown")
      expect(driver.snapshot()).toMatchObject({ waiting: 0, running: 0, batchInFlight: true })
      expect(driver.queue.taken).toBe(0)
      const seen = all.map(({ tokens }) => tokens.length)
      engine.letGo()
      await state().toBe("ok")
      await servesAsEver(expected)
      // What the late step computed was shown to none.
      expect(all.map(({ tokens }) => tokens.length)).toEqual(seen)
      expect(driver.watch.trips).toBe(1)
    })

    test("fails what had its place but was not submitted yet", async () => {
      const reserved = driver.reserve(2)
      await running(1)
      engine.hold()
      await state().toBe("hung")
      let end: End | null = null
      const late = { ...ask(9), prompt: Int32Array.of(1) }
      expect(late.id).toBeGreaterThan(0)
      driver.submit(
        {
          ...{ app: 0, session: -1, prefix: [], maxOutputTokens: 12, tier: "slo", thinking: false },
          ...{ sampling: GREEDY, prompt: Int32Array.of(1) },
          slo: { ttftUs: 1e7, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity },
          onTokens: () => ({ stopped: false, answeringFrom: -1 }),
          onEnd: (told) => {
            end = told
          },
        },
        reserved,
      )
      if (typeof reserved !== "string") driver.giveBack(reserved)
      await expect.poll(() => end).toMatchObject({ reason: "engineDown" })
      expect(driver.queue.taken).toBe(0)
    })

    test("and a drain ends at once, though the engine can not be closed yet", async () => {
      const asked = await running(1)
      engine.hold()
      await driver.drain()
      expect((await asked.end).reason).toBe("engineDown")
      let closed = false
      const closing = driver.close().then(() => {
        closed = true
      })
      await new Promise((resolve) => setTimeout(resolve, 20))
      expect(closed).toBe(false)
      engine.letGo()
      await closing
    })
  })

  describe(`${subject.name}: steps that fail`, () => {
    test("one after another, whatever they compute, are the engine's fault until one is computed", async () => {
      const expected = await alone()
      const asked = [await running(1), ...[2, 3, 4, 5, 6].map((place) => ask(place))]
      engine.fails = () => "no device"
      const before = engine.steps
      await state().toBe("failing")
      // The first, and probes with growing pauses: no request was tried until it had failed.
      expect(engine.steps - before).toBeLessThanOrEqual(12)
      for (const { end } of asked)
        expect(await end).toMatchObject({ reason: "engineDown", message: "every step fails (no device)" })
      expect((await ask(7).end).reason).toBe("engineDown")
      engine.fails = () => null
      await state().toBe("ok")
      await servesAsEver(expected)
    })

    test("because of one request fail that alone", async () => {
      const good = [await running(1), await running(2)]
      const bad: RequestId[] = []
      engine.fails = ({ items }) => (items.some(({ id }) => bad.includes(id)) ? "bad request" : null)
      for (let i = 0; i < 3; i++) {
        const poison = ask(3 + i)
        bad.push(poison.id)
        expect(await poison.end).toMatchObject({ reason: "failed", message: "bad request" })
      }
      for (const { end } of good) expect((await end).reason).toBe("length")
      expect(driver.watch.state).toBe("ok")
    })

    test("because of many requests at once fail those, and the engine is found to compute", async () => {
      const down: string[] = []
      const bad = new Set<RequestId>()
      engine.fails = ({ items }) => {
        down.push(driver.watch.state)
        return items.some(({ id }) => bad.has(id)) ? "bad request" : null
      }
      const poison = [1, 2, 3, 4].map((place) => ask(place))
      for (const { id } of poison) bad.add(id)
      const good = ask(5)
      for (const { end } of poison) expect((await end).reason).toBe("failed")
      expect((await good.end).reason).toBe("length")
      expect(new Set(down)).toEqual(new Set(["ok"]))
    })
  })
}
