/** The suite of all hosts over a worker process, and what only a process can do: die, stand still, be poisoned. */
import { afterEach, expect, test } from "vitest"
import { WorkerProcess } from "../fleet/worker-process.ts"
import { Restarts } from "../router/health.ts"
import { hostSuite, jobOf, Kept, SUITE_MAX_QUEUE } from "../serve/host.suite.ts"
import { until } from "../serve/until-testing.ts"
import type { ServeOptions } from "./serve-options.ts"
import { parseDevices, shareOf, spawnWorker } from "./spawn-worker.ts"
import { setupOf } from "./worker-testing.ts"

const OPTIONS = {
  ...{ model: "tiny", host: "127.0.0.1", port: 0, policy: "slos-serve", maxSequences: 16, context: 1024 },
  ...{ maxBatchTokens: 256, maxQueue: 1000, defaultMaxTokens: 1024, parseSpecial: "asked", requireKey: true },
  ...{ speculate: "off", maxSpeculation: 8, library: "auto", engine: "fake", profile: false, bodyLimit: 1e6 },
  ...{ requestTimeout: 30, stepTimeout: 10, drainTimeout: 30 },
} as unknown as ServeOptions

const started: WorkerProcess[] = []

function worker(options: Partial<ServeOptions> = {}, more: { silenceMs?: number } = {}): WorkerProcess {
  const one = new WorkerProcess({
    name: "w0",
    spawn: () => spawnWorker(undefined),
    setup: setupOf("w0", { ...OPTIONS, ...options }),
    restarts: new Restarts({ firstUs: 10_000, longestUs: 50_000, stableUs: 1_000_000 }),
    ...more,
  })
  started.push(one)
  return one
}

afterEach(async () => {
  await Promise.all(started.splice(0).map((one) => one.close()))
})

hostSuite("a worker process", async () => {
  const host = worker({ maxQueue: SUITE_MAX_QUEUE })
  await host.ready()
  return { host, close: async () => {} }
})

async function busy(more: { silenceMs?: number } = {}) {
  const host = worker({}, more)
  await host.ready()
  const sink = new Kept()
  host.submit(jobOf({ maxTokens: 900 }), sink)
  await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
  return { host, sink }
}

const SLOW = { timeout: 240_000 }

test("one that is killed is started again; its jobs are lost once it is down", SLOW, async () => {
  const { host, sink } = await busy()
  const { pid } = host
  let stateThen = ""
  const end = sink.end
  sink.end = (choice, how) => {
    stateThen = host.state
    end(choice, how)
  }
  process.kill(pid!, "SIGKILL")
  expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
  expect(stateThen).toBe("down")
  expect(host.comesBack).toBe(true)
  await host.ready()
  expect(host.pid).not.toBe(pid)
  expect(host.restarts).toBe(1)
  const again = new Kept()
  host.submit(jobOf(), again)
  expect((await again.over())[0]?.kind).toBe("finished")
})

test("one that stands still is killed and started again", SLOW, async () => {
  const { host, sink } = await busy({ silenceMs: 4000 })
  const { pid } = host
  process.kill(pid!, "SIGSTOP")
  expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
  await host.ready()
  expect(host.pid).not.toBe(pid)
  expect(() => process.kill(pid!, 0)).toThrow()
})

test("one whose operator must put something right says what, and is not started again", SLOW, async () => {
  const host = worker({ engine: "llama", model: "/nowhere/model.gguf" })
  await expect(host.ready()).rejects.toThrow(/model\.gguf/)
  await until(() => expect(host.state).toBe("down"))
  expect(host.restarts).toBe(0)
})

test("no process is left when its parent closes it, even while it starts", SLOW, async () => {
  const host = worker()
  const { pid } = host
  await host.close()
  expect(host.state).toBe("closed")
  expect(() => process.kill(pid!, 0)).toThrow()
})

test("workers share what the server was given", () => {
  const whole = { ...OPTIONS, threads: 5, maxSequences: 9, kvTokens: 4096 }
  expect(shareOf(whole, 2, undefined)).toMatchObject({ threads: 2, maxSequences: 4, kvTokens: 2048 })
  expect(shareOf({ ...whole, threads: 1 }, 4, undefined)).toMatchObject({ threads: 1 })
  expect(() => shareOf(whole, 5, undefined)).toThrow(/--kv-tokens 4096 for 5 replicas is 819 each/)
  expect(shareOf(whole, 2, { kind: "cpu", cores: null })).toMatchObject({ gpuLayers: 0 })
})

test("devices", () => {
  expect(parseDevices("cpu,cpu:0-3,cpu:0+2,gpu:1")).toEqual([
    { kind: "cpu", cores: null },
    { kind: "cpu", cores: "0-3" },
    { kind: "cpu", cores: "0,2" },
    { kind: "gpu", index: "1" },
  ])
  for (const wrong of ["", "gpu", "tpu:0", "cpu:x", "gpu:0;rm"])
    expect(() => parseDevices(wrong)).toThrow(/--device/)
})
