/** What the driver owes the engine when things go wrong: whatever the core lets go of, the engine hears. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { assert } from "../core/assert.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { Effect, RequestId } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { type Engine, GREEDY } from "../engine/port.ts"
import { ReplicaDriver, type Reservation, type Submission } from "./driver.ts"
import { VirtualClock } from "./testing.ts"

const limits = {
  kvTokens: 1024,
  blockTokens: 16,
  maxSequences: 4,
  maxBatchTokens: 64,
  contextTokens: 256,
  minChunkTokens: 1,
  unifiedKv: false,
}
const cost = { pieces: [{ step: 1000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: false }
/** The first token of prompts that the engine refuses. */
const REFUSED = 99

/** An engine that cannot open some requests, and the ids that it holds. */
function pickyEngine(clock: VirtualClock): { engine: Engine; open: Set<RequestId> } {
  const inner = fakeEngine({ cost, limits, time: clock, outputTokens: 4 })
  const open = new Set<RequestId>()
  const engine: Engine = {
    model: inner.model,
    limits: inner.limits,
    tokenizer: inner.tokenizer,
    constraints: inner.constraints,
    open(id, prompt, sampling, output) {
      if (prompt[0] === REFUSED) throw new Error("no such grammar")
      inner.open(id, prompt, sampling, output)
      open.add(id)
    },
    async execute(batch) {
      const output = await inner.execute(batch)
      for (const id of batch.release) open.delete(id)
      return output
    },
    close: () => inner.close(),
  }
  return { engine, open }
}

function submissionOf(first: number, onEnd: (reason: string) => void): Submission {
  return {
    ...{
      app: 0,
      session: -1,
      prefix: [],
      maxOutputTokens: 8,
      sampling: GREEDY,
      tier: "slo",
      thinking: false,
    },
    slo: { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: 1e5, thinkingTpotUs: 1e5, maxGapUs: Infinity },
    prompt: Int32Array.of(first, 1, 2, 3),
    onTokens: (row) => ({ stopped: row.end, answeringFrom: -1 }),
    onEnd: ({ reason }) => onEnd(reason),
  }
}

it("a request that the engine refuses to open fails alone, and nothing of the others stays behind", async () => {
  const clock = new VirtualClock()
  const { engine, open } = pickyEngine(clock)
  const failures: string[] = []
  const driver = new ReplicaDriver({
    ...{ engine, clock, log: (message: string) => failures.push(message) },
    config: { limits, cost, policy: "slos-serve", apps: 1 },
  })
  const ends = new Map<number, string>()
  const submission = (place: number, first: number) =>
    submissionOf(first, (reason) => ends.set(place, reason))
  // Staggered, so that some end, and are to be released, in the batch that others cannot be opened for.
  for (let place = 0; place < 24; place++) {
    clock.wakeAt(place * 700, () => void driver.submit(submission(place, place % 3 === 2 ? REFUSED : place)))
  }
  await clock.run()
  for (let place = 0; place < 24; place++) expect(ends.get(place)).toBe(place % 3 === 2 ? "failed" : "stop")
  expect([...new Set(failures.map((line) => line.replace(/^step \d+/, "step")))]).toEqual([
    "step failed (engineError: no such grammar)",
  ])
  // The last ones' release waits for a next batch.
  expect(open.size).toBeLessThanOrEqual(limits.maxSequences)
})

describe("the queue", () => {
  function queued(
    maxQueue: number,
    tenantWeights: readonly number[] = [],
    policy: PolicyName = "slos-serve",
  ) {
    const clock = new VirtualClock()
    const driver = new ReplicaDriver({
      ...{ engine: fakeEngine({ cost, limits, time: clock, outputTokens: 4 }), clock },
      config: { limits, cost, policy, apps: 1, maxQueue, tenantWeights },
    })
    const effects: Effect[] = []
    driver.observe((effect) => effects.push(effect))
    const ends: string[] = []
    const submission = (name: string) => submissionOf(1, (reason) => ends.push(`${name} ${reason}`))
    return { clock, driver, effects, ends, submission }
  }

  it("has a place for every choice of a request, or refuses it as a whole", async () => {
    const { clock, driver, effects, ends, submission } = queued(4)
    const reserved = driver.reserve(3) as Reservation
    // Not submitted yet, and counted.
    expect(driver.reserve(2)).toBe("queueFull")
    driver.submit(submission("another"))
    driver.submit(submission("refused"))
    const first = driver.submit(submission("choice"), reserved)
    for (let i = 0; i < 2; i++) driver.submit({ ...submission("choice"), after: first }, reserved)
    expect(driver.snapshot().waiting).toBe(2)
    expect(driver.queue.taken).toBe(4)
    await clock.run()
    expect(ends.toSorted()).toEqual(["another stop", ...Array(3).fill("choice stop"), "refused queueFull"])
    expect(effects.filter(({ type }) => type === "rejected")).toMatchObject(
      Array(2).fill({ reason: "queueFull" }),
    )
    expect(driver.queue.taken).toBe(0)
  })

  it("has places for a tenant whose share others have filled, and knows whose they are", async () => {
    const { clock, driver, ends, submission } = queued(4, [1, 1, 2])
    const of = (tenant: number) => ({ ...submission(`of ${tenant}`), tenant })
    for (let i = 0; i < 5; i++) driver.submit(of(1))
    expect(driver.queue.shared).toBe(false)
    const reserved = driver.reserve(2, 2) as Reservation
    expect([driver.queue.takenBy(1), driver.queue.takenBy(2), driver.queue.taken]).toEqual([4, 2, 6])
    expect([driver.queue.shareOf(1), driver.queue.shareOf(2), driver.queue.shared]).toEqual([2, 3, true])
    expect([driver.reserve(1, 1), driver.reserve(2, 2)]).toEqual(["queueFull", "queueFull"])
    const first = driver.submit(of(2), reserved)
    driver.submit({ ...of(2), after: first }, reserved)
    await clock.run()
    expect(ends.toSorted()).toEqual([
      "of 1 queueFull",
      ...Array(4).fill("of 1 stop"),
      ...Array(2).fill("of 2 stop"),
    ])
    expect([driver.queue.takenBy(1), driver.queue.takenBy(2), driver.queue.taken]).toEqual([0, 0, 0])
  })

  it("has a place beyond for what is promised its SLOs, whatever waits without a promise", async () => {
    const { clock, driver, ends, submission } = queued(4)
    const waits = { ...submission("waits"), tier: "bestEffort" as const }
    for (let i = 0; i < 4; i++) driver.submit(waits)
    expect(driver.reserve(1)).toBe("queueFull")
    expect(driver.offer({ ...waits, tier: "bestEffort" })).toBe(false)
    const soon = submission("soon")
    expect(driver.offer(soon)).toBe(true)
    expect(driver.offer({ ...soon, slo: { ...soon.slo, ttftUs: 1 } })).toBe(false)
    const reserved = driver.reserve(1, 0, "promise") as Reservation
    expect(reserved).toMatchObject({ left: 1, onPromise: true })
    // The place is counted: there is none for a second.
    expect([driver.offer(soon), driver.promises(soon)]).toEqual([false, true])
    expect(driver.reserve(1, 0, "promise")).toBe("queueFull")
    driver.submit(soon, reserved)
    await clock.run()
    expect(ends.toSorted()).toEqual(["soon stop", ...Array(4).fill("waits stop")])
    expect(driver.reserve(1, 0, "promise")).toMatchObject({ onPromise: false })
  })

  it("has none beyond where the policy promises nothing", () => {
    const { driver, submission } = queued(4, [], "vllm")
    for (let i = 0; i < 4; i++) driver.submit(submission("waits"))
    expect(driver.reserve(1, 0, "promise")).toBe("queueFull")
  })

  it("tells the core whose each request is, further choices included", async () => {
    const { clock, driver, submission } = queued(8, [1, 1, 1])
    const tenants: unknown[] = []
    const handle = driver.replica.handle.bind(driver.replica)
    driver.replica.handle = (event, nowUs) => {
      if (event.type === "arrived") tenants.push(event.request.tenant)
      handle(event, nowUs)
    }
    const first = driver.submit({ ...submission("first"), tenant: 2 })
    driver.submit({ ...submission("second"), tenant: 2, after: first })
    driver.submit(submission("of none"))
    await clock.run()
    expect(tenants).toEqual([2, undefined, 2])
  })

  it("gets back the places of what is not submitted, once", async () => {
    const { driver } = queued(4)
    const reserved = driver.reserve(4) as Reservation
    for (let i = 0; i < 2; i++) driver.giveBack(reserved)
    expect(driver.queue.taken).toBe(0)
    expect(driver.reserve(5)).toBe("queueFull")
    expect(driver.reserve(4)).not.toBe("queueFull")
  })

  it("lets what has a place be submitted and end while the server drains", async () => {
    const { clock, driver, ends, submission } = queued(4)
    const reserved = driver.reserve(2) as Reservation
    let drained = false
    void driver.drain().then(() => {
      drained = true
    })
    expect(driver.reserve(1)).toBe("shuttingDown")
    driver.submit(submission("late"))
    await clock.run()
    expect(drained).toBe(false)
    driver.submit(submission("choice"), reserved)
    driver.giveBack(reserved)
    await clock.run()
    expect(ends).toEqual(["late shuttingDown", "choice stop"])
    expect(drained).toBe(true)
  })

  it("keeps its bound whatever comes and goes, and ends every request once", async () => {
    const step = fc.record({
      afterUs: fc.constantFrom(0, 0, 500, 3000),
      choices: fc.integer({ min: 1, max: 5 }),
      submitted: fc.nat(5),
      cancels: fc.array(fc.nat(20), { maxLength: 2 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { clock, driver, submission } = queued(6)
        const ends = new Map<number, number>()
        const ids: RequestId[] = []
        let [atUs, accepted] = [0, 0]
        for (const { afterUs, choices, submitted, cancels } of steps) {
          atUs += afterUs
          clock.wakeAt(atUs, () => {
            const reserved = driver.reserve(choices)
            let first: RequestId | undefined
            for (let i = 0; typeof reserved !== "string" && i < Math.min(choices, submitted); i++) {
              const number = accepted++
              const onEnd = () => void ends.set(number, (ends.get(number) ?? 0) + 1)
              const one = { ...submission(""), onEnd, ...(first !== undefined && { after: first }) }
              const id = driver.submit(one, reserved)
              first ??= id
              ids.push(id)
            }
            if (typeof reserved !== "string") driver.giveBack(reserved)
            for (const back of cancels) driver.cancel(ids.at(-1 - back) ?? -1)
            assert(driver.queue.taken <= 6, "more than the queue takes")
            const { waiting, running } = driver.snapshot()
            assert(waiting + running <= 6, "more are live than the queue takes")
          })
        }
        await clock.run()
        assert(
          [...ends.values()].every((times) => times === 1),
          "a request ended twice",
        )
        assert(ends.size === accepted, "a request never ended")
        assert(driver.queue.taken === 0, "a place is never given back")
      }),
      { numRuns: 100 },
    )
  })

  it("a request that is cancelled as it is submitted never runs", async () => {
    const { clock, driver, effects, ends, submission } = queued(4)
    driver.cancel(driver.submit(submission("gone")))
    await clock.run()
    expect(ends).toEqual(["gone cancelled"])
    expect(effects.map(({ type }) => type)).toEqual(["finished"])
  })
})
