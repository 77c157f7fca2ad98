/** A real llama-server behind the port, where there is one: LLAMA_SERVER=/path/to/llama-server. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Agent } from "undici"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { TINY_PRESETS, tinyModel } from "../../models/tiny.ts"
import type { Begun } from "../../replica/host.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { RemoteHost } from "./remote-host.ts"

const PROGRAM = process.env.LLAMA_SERVER ?? ""

describe.skipIf(PROGRAM === "")("llama-server", () => {
  let folder: string
  let model: string
  const dispatcher = new Agent()
  const servers: Running[] = []

  interface Running {
    child: ChildProcess
    host: RemoteHost
  }

  async function start(): Promise<Running> {
    const port = await freePort()
    const args = [
      "-m",
      model,
      "--port",
      String(port),
      "-t",
      "1",
      "-np",
      "2",
      "--metrics",
      "-fa",
      "off",
      "--no-webui",
    ]
    const libraries = { LD_LIBRARY_PATH: dirname(PROGRAM), DYLD_LIBRARY_PATH: dirname(PROGRAM) }
    const child = spawn(PROGRAM, args, { stdio: "ignore", env: { ...process.env, ...libraries } })
    const host = new RemoteHost({
      ...{
        name: `port ${port}`,
        url: `http://127.0.0.1:${port}`,
        kind: null,
        apps: 20,
        dispatcher,
        probeMs: 50,
      },
      timeouts: { connectMs: 2000, firstByteMs: 60_000, silenceMs: 60_000 },
    })
    const running = { child, host }
    servers.push(running)
    await until(() => expect(host.state).toBe("ready"), { timeout: 60_000 })
    return running
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "llama-"))
    model = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny.gguf")
  })
  afterAll(async () => {
    for (const { child, host } of servers) {
      await host.close()
      child.kill("SIGKILL")
    }
    await dispatcher.close()
    await rm(folder, { recursive: true })
  })

  const slo = { ttft_ms: 60_000, tpot_ms: 10_000 }
  const count = { prompt: { kind: "text" as const, text: "Tell me of the sea and of the ships on it." } }

  async function run(host: RemoteHost, maxTokens: number, begun: Begun | null = null) {
    const sink = new Kept()
    host.submit({ ...jobOf({ ...count, maxTokens }, 1, slo), choices: [{ index: 0, begun }] }, sink)
    return { sink, end: (await sink.over())[0] }
  }

  test("computes, is found out to be one, and its slots with it", async () => {
    const { host } = await start()
    expect(host.info).toMatchObject({ model: { fingerprint: expect.stringContaining("llama-server:") } })
    await until(() => expect(host.twin.rules.maxSequences).toBe(2))
    const first = await run(host, 12)
    expect(first.end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: 12 } })
    expect(first.sink.tokensOf[0]).toHaveLength(12)
    expect((await run(host, 12)).sink.text).toEqual(first.sink.text)
    const chat = new Kept()
    host.submit(jobOf({ maxTokens: 5 }, 1, slo), chat)
    expect((await chat.over())[0]).toMatchObject({ kind: "finished", usage: { completionTokens: 5 } })
  })

  test("many at a time: all end, two in the engine", async () => {
    const { host } = servers[0]!
    const all = await Promise.all(Array.from({ length: 12 }, () => run(host, 10)))
    for (const { end, sink } of all) {
      expect(end).toMatchObject({ kind: "finished" })
      expect(sink.text).toEqual(all[0]!.sink.text)
    }
    expect(host.twin.inFlight).toBe(0)
  })

  test("killed under way: the other one goes on up to the same length", async () => {
    const { host: other } = servers[0]!
    const whole = (await run(other, 200)).sink.text[0]!
    const { child, host } = await start()
    const sink = new Kept()
    host.submit(jobOf({ ...count, maxTokens: 200 }, 1, slo), sink)
    await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(20))
    child.kill("SIGKILL")
    await once(child, "exit")
    expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
    const content = sink.text[0]!
    expect(whole.startsWith(content)).toBe(true)
    const begun: Begun = {
      steps: [{ tokens: sink.tokensOf[0]!, agoUs: 1000 }],
      text: { content, reasoning: "", toolCalls: 0 },
    }
    const rest = await run(other, 200, begun)
    // Random weights write what is no text, so that the engine reads other tokens in it than it wrote: the rest differs.
    expect(rest.end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: 200 } })
    expect(rest.sink.tokensOf[0]!.length).toBe(200 - sink.tokensOf[0]!.length)
  })
})

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
