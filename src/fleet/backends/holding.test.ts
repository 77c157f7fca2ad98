/** What waits in the gateway and what goes to the engine, and two gateways in front of one. */

import { Agent } from "undici"
import { afterEach, describe, expect, test } from "vitest"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { FakeBackend, type FakeOptions } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function gateway(backend: FakeBackend, probeMs = 10): Promise<RemoteHost> {
  const dispatcher = new Agent()
  opened.push(dispatcher)
  const host = new RemoteHost({
    ...{
      name: "far",
      url: backend.url,
      kind: BACKEND_KINDS[backend.options.kind],
      apps: 20,
      dispatcher,
      probeMs,
    },
    timeouts: { connectMs: 1000, firstByteMs: 20_000, silenceMs: 20_000 },
  })
  opened.push(host)
  await until(() => expect(host.state).toBe("ready"))
  return host
}
async function slots(options: FakeOptions = {}): Promise<FakeBackend> {
  const backend = await FakeBackend.open({ kind: "llama-server", slots: 2, words: 4, ...options })
  opened.push(backend)
  return backend
}

/** Best effort comes with what the engine has room for: its answers teach the twin. */
async function teach(host: RemoteHost, count = 12): Promise<void> {
  for (let i = 0; i < count; i++) {
    const sink = new Kept()
    host.submit(jobOf({ maxTokens: 20 }, 1, { ttft_ms: 60_000, tpot_ms: 10_000 }), sink)
    await sink.over()
  }
}

test("an engine that is not known yet is given all that it has room for", async () => {
  const backend = await FakeBackend.open({ kind: "vllm", words: 4, wordMs: 700 })
  opened.push(backend)
  const host = await gateway(backend)
  const prompt = { kind: "text" as const, text: "a long prompt ".repeat(500) }
  const sinks = Array.from({ length: 40 }, () => new Kept())
  for (const sink of sinks)
    host.submit(jobOf({ prompt, maxTokens: 20 }, 1, { ttft_ms: 60_000, tpot_ms: 10_000 }), sink)
  await until(() => expect(backend.most).toBe(40))
  expect(host.twin.fit.confident).toBe(false)
  for (const sink of sinks) expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
})

describe("an engine with two slots", () => {
  test("is given what it begins at once; the rest waits here, by deadline", async () => {
    const backend = await slots({ wordMs: 30 })
    const host = await gateway(backend)
    await until(() => expect(host.twin.rules.maxSequences).toBe(2))
    await teach(host, 3)
    backend.asked.length = 0
    const sinks = Array.from({ length: 8 }, () => new Kept())
    for (const [i, sink] of sinks.entries()) {
      // The later it comes, the sooner it is due.
      const text = `number ${i}`
      const prompt = { kind: "text" as const, text }
      host.submit(jobOf({ prompt, maxTokens: 20 }, 1, { ttft_ms: 60_000 - i * 1000, tpot_ms: 10_000 }), sink)
    }
    expect(host.digest().snapshot.waiting).toBeGreaterThanOrEqual(5)
    for (const sink of sinks) expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
    expect(backend.most).toBeLessThanOrEqual(3)
    const order = backend.asked.map(({ body }) => Number((body.prompt as string).split(" ")[1]))
    // The first two went before the others were there. Two that are sent at once, over sockets of their own, may arrive the other way round.
    const rest = order.slice(2)
    for (const [place, one] of rest.toSorted((a, b) => b - a).entries())
      expect(Math.abs(rest.indexOf(one) - place)).toBeLessThanOrEqual(1)
    expect(order.at(-1)).toBeLessThan(order[2]!)
  })

  test("turns down what would be too late, and computes it after what is not", async () => {
    const backend = await slots({ wordMs: 50 })
    const host = await gateway(backend)
    await teach(host, 6)
    const [busy, late] = [[new Kept(), new Kept()], new Kept()]
    for (const sink of busy)
      host.submit(jobOf({ maxTokens: 20 }, 1, { ttft_ms: 60_000, tpot_ms: 10_000 }), sink)
    host.submit(jobOf({ maxTokens: 20 }, 1, { ttft_ms: 20 }), late)
    await until(() => expect(late.turned).toEqual([0]))
    expect((await late.over())[0]).toMatchObject({ kind: "finished", outcome: { attained: false } })
    expect(late.turned).toEqual([0])
    for (const sink of busy) await sink.over()
  })

  test("offers no more than it can begin in time", async () => {
    const backend = await slots({ wordMs: 60, words: 8 })
    const host = await gateway(backend)
    await teach(host, 4)
    const soon = () => host.offer(jobOf({ maxTokens: 20 }, 1, { ttft_ms: 300, tpot_ms: 10_000 }), 100)
    await until(async () => expect((await soon()).takes).toBe(true))
    const sinks = Array.from({ length: 6 }, () => new Kept())
    for (const sink of sinks)
      host.submit(jobOf({ maxTokens: 20 }, 1, { ttft_ms: 60_000, tpot_ms: 10_000 }), sink)
    await until(async () => expect((await soon()).takes).toBe(false))
    for (const sink of sinks) await sink.over()
  })
})

test("two gateways see each other's load in /metrics; one goes, the other serves on", async () => {
  const backend = await slots({ kind: "vllm", slots: 100, wordMs: 25, words: 8 })
  const [one, other] = [await gateway(backend), await gateway(backend)]
  const sinks = Array.from({ length: 3 }, () => new Kept())
  for (const sink of sinks) one.submit(jobOf({ maxTokens: 20 }), sink)
  await until(() => expect(other.digest().snapshot.running).toBeGreaterThan(0))
  await one.close()
  for (const sink of sinks) expect((await sink.over())[0]?.kind).toBe("cancelled")
  await until(() => expect(other.digest().snapshot.running).toBe(0))
  const sink = new Kept()
  other.submit(jobOf(), sink)
  expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
})

test.each([
  [503, "again"],
  [404, "no more"],
] as const)(
  "others' load is forgotten when /metrics answer %i: what is held would wait for it; they are asked %s",
  async (status, then) => {
    const backend = await slots({ kind: "vllm", slots: 100, words: 8, others: { running: 300, waiting: 5 } })
    const host = await gateway(backend)
    await until(() => expect(host.digest().snapshot).toMatchObject({ running: 300, waiting: 5 }))
    backend.metricsStatus = status
    await until(() => expect(host.digest().snapshot).toMatchObject({ running: 0, waiting: 0 }))
    backend.metricsStatus = 200
    if (then === "again") await until(() => expect(host.digest().snapshot).toMatchObject({ running: 300 }))
    backend.healthy = false
    await until(() => expect(host.state).toBe("down"))
    backend.healthy = true
    // It may be another one by now.
    await until(() => expect(host.digest().snapshot).toMatchObject({ running: 300, waiting: 5 }))
  },
)
