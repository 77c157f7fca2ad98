/** A vLLM with a planner behind a gateway: the planner answers offers and says how busy it is, the engine gets the requests. */
import { Agent } from "undici"
import { afterEach, expect, test } from "vitest"
import { openEngine, openPages, openPlanner } from "../../planner-process/planner-testing.ts"
import type { PlayedEngine } from "../../planner-process/testing.ts"
import { Restarts } from "../../router/health.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { RemoteReplica } from "../remote-replica.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { RemotePlanner } from "./remote-planner.ts"
import { FakeBackend } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function open() {
  const { planner, path, close } = await openPlanner()
  const url = await openPages(planner)
  const backend = await FakeBackend.open({ kind: "vllm", words: 4 })
  const dispatcher = new Agent()
  const restarts = new Restarts({ firstUs: 10_000, longestUs: 50_000, stableUs: 1_000_000 })
  const asked = new RemotePlanner({ name: "its planner", url, restarts })
  const host = new RemoteHost({
    ...{ name: "far", url: backend.url, kind: BACKEND_KINDS.vllm, apps: 20, dispatcher, probeMs: 20 },
    ...{ timeouts: { connectMs: 1000, firstByteMs: 5000, silenceMs: 5000 }, planner: asked },
  })
  opened.push(backend, dispatcher, host)
  await until(() => expect(host.state).toBe("ready"))
  const ready = () => until(() => expect(asked.ready).toBe(true))
  return { backend, host, path, url, asked, ready, closePlanner: close }
}

const prompt = { kind: "text" as const, text: "word ".repeat(480) }
const job = () => jobOf({ prompt, maxTokens: 20 }, 1, { ttft_ms: 500 })
/** As large as those that fill it (900 tokens), and due in half their time, however late it is asked about: it has no place. */
const urgent = () => {
  const large = { kind: "text" as const, text: "word ".repeat(720) }
  return jobOf({ prompt: large, maxTokens: 10 }, 1, { ttft_ms: 500, tpot_ms: 500 })
}

/** More than it can have in time, by what the planner believes of its steps: some of it is promised. */
async function fill(engine: PlayedEngine): Promise<void> {
  for (let i = 0; i < 20; i++)
    engine.add({ promptTokens: 900, maxOutputTokens: 10, slo: { slo_ttft_ms: 1000, slo_tpot_ms: 500 } })
  await engine.step()
}

test("offers are the planner's: it knows of what others sent there", async () => {
  const { host, path, asked, ready } = await open()
  expect(asked.ready).toBe(false)
  const engine = await openEngine(path)
  await ready()
  expect(await host.offer(job(), 1000)).toMatchObject({ takes: true, promptTokens: 600 })
  const tooSoon = jobOf({ prompt, maxTokens: 20 }, 1, { ttft_ms: 1 })
  expect(await host.offer(tooSoon, 1000)).toMatchObject({ takes: false })
  expect(await host.offer(urgent(), 1000)).toMatchObject({ takes: true, promptTokens: 900 })
  await fill(engine)
  // What is smaller may fit into what those leave of their second, and is kept then (core/offers.test.ts).
  expect(await host.offer(urgent(), 1000)).toMatchObject({ takes: false, promptTokens: 900 })
  await until(() => expect(host.digest().snapshot.waiting).toBeGreaterThan(15))
  expect(host.digest().snapshot.kvCapacityTokens).toBe(4096)
})

test("requests go to the engine at once: the planner orders what waits", async () => {
  const { host, path, backend, ready } = await open()
  backend.options.firstMs = 300
  await openEngine(path)
  await ready()
  const sinks = Array.from({ length: 8 }, () => new Kept())
  for (const sink of sinks) host.submit(jobOf({}, 1, { ttft_ms: 60_000 }), sink)
  await until(() => expect(backend.asked).toHaveLength(8))
  for (const sink of sinks) expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
})

test("while the planner is away the twin answers, and what is sent is served", async () => {
  const { host, path, asked, ready, closePlanner } = await open()
  const engine = await openEngine(path)
  await ready()
  await fill(engine)
  expect(await host.offer(urgent(), 1000)).toMatchObject({ takes: false })
  await until(() => expect(host.digest().snapshot.waiting).toBeGreaterThan(15))
  await closePlanner()
  await until(() => expect(asked.ready).toBe(false))
  expect(host.digest().snapshot.waiting).toBe(0)
  expect(await host.offer(job(), 1000)).toMatchObject({ takes: true })
  const sink = new Kept()
  host.submit(job(), sink)
  expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
})

test("a planner itself computes nothing, and says so", async () => {
  const { path, url, ready } = await open()
  await openEngine(path)
  await ready()
  const mistaken = new RemoteReplica({ name: "mistaken", url })
  opened.push(mistaken)
  await until(() => expect(mistaken.state).toBe("ready"))
  const sink = new Kept()
  mistaken.submit(jobOf(), sink)
  expect((await sink.over())[0]).toMatchObject({
    kind: "lost",
    reason: "refused",
    detail: expect.stringContaining("computes nothing"),
  })
})
