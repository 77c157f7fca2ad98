/** One suite over the real engines of others, behind the port of replicas. Each runs where it is installed. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { setImmediate, setTimeout } from "node:timers/promises"
import { Agent } from "undici"
import { afterAll, beforeAll, expect, test } from "vitest"
import { freePort } from "../../free-port.ts"
import type { Begun } from "../../replica/host.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { RemoteHost } from "./remote-host.ts"

/** Of a request that is cut short: an engine with a tiny model writes them in a second. */
const MANY_TOKENS = 400

export interface RealEngine {
  kind: string
  /** Before the first one starts. */
  prepare(): Promise<void>
  command(port: number): { program: string; args: string[]; env: NodeJS.ProcessEnv }
  /** How long it may take to come up. */
  startMs: number
  cleanUp(): Promise<void>
}

export interface Running {
  child: ChildProcess
  host: RemoteHost
  url: string
}

/** Two of them; the second one is killed under way. Of the first one more may be asked: it is what `first` gives. */
export function realEngineSuite(engine: RealEngine): { first: () => Running } {
  const dispatcher = new Agent()
  const servers: Running[] = []

  async function start(): Promise<Running> {
    const port = await freePort()
    const { program, args, env } = engine.command(port)
    const child = spawn(program, args, { stdio: "ignore", detached: true, env: { ...process.env, ...env } })
    const url = `http://127.0.0.1:${port}`
    const host = new RemoteHost({
      ...{ name: `port ${port}`, url, kind: null, apps: 20, dispatcher, probeMs: 50 },
      timeouts: { connectMs: 2000, firstByteMs: 60_000, silenceMs: 60_000 },
    })
    const running = { child, host, url }
    servers.push(running)
    await until(
      () => {
        expect(child.exitCode, "it has ended").toBeNull()
        expect(host.state).toBe("ready")
      },
      { timeout: engine.startMs },
    )
    return running
  }

  beforeAll(async () => {
    await engine.prepare()
    // Side by side: loading is most of the time.
    await Promise.all([start(), start()])
  }, engine.startMs + 10_000)

  afterAll(async () => {
    for (const { child, host } of servers) {
      await host.close()
      signal(child, "SIGKILL")
    }
    await dispatcher.close()
    await engine.cleanUp()
  })

  const slo = { ttft_ms: 60_000, tpot_ms: 10_000 }
  const count = { prompt: { kind: "text" as const, text: "Tell me of the sea and of the ships on it." } }

  async function run(host: RemoteHost, maxTokens: number, begun: Begun | null = null) {
    const sink = new Kept()
    host.submit({ ...jobOf({ ...count, maxTokens }, 1, slo), choices: [{ index: 0, begun }] }, sink)
    return { sink, end: (await sink.over())[0] }
  }

  test("computes, is found out to be one, and its limits with it", async () => {
    const { host } = servers[0]!
    expect(host.info).toMatchObject({ model: { fingerprint: expect.stringContaining(`${engine.kind}:`) } })
    const first = await run(host, 12)
    expect(first.end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: 12 } })
    expect(first.sink.tokensOf[0]).toHaveLength(12)
    expect((await run(host, 12)).sink.text).toEqual(first.sink.text)
    const chat = new Kept()
    host.submit(jobOf({ maxTokens: 5 }, 1, slo), chat)
    expect((await chat.over())[0]).toMatchObject({ kind: "finished", usage: { completionTokens: 5 } })
  })

  test("many at a time: all end, with one text", async () => {
    const { host } = servers[0]!
    const all = await Promise.all(Array.from({ length: 12 }, () => run(host, 10)))
    for (const { end, sink } of all) {
      expect(end).toMatchObject({ kind: "finished" })
      expect(sink.text).toEqual(all[0]!.sink.text)
    }
    expect(host.twin.inFlight).toBe(0)
  })

  test("a cancelled request leaves the engine before its end", async () => {
    const { host, url } = servers[0]!
    // It is quick: it may be done before it hears of it, and is asked again then.
    await until(async () => {
      const written = await figureOf(url, WRITTEN)
      const sink = new Kept()
      const job = jobOf({ ...count, maxTokens: MANY_TOKENS }, 1, slo)
      host.submit(job, sink)
      await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(2))
      host.cancel(job.id)
      await until(async () => expect(await figureOf(url, RUNNING)).toBe(0))
      expect((await figureOf(url, WRITTEN)) - written).toBeLessThan(MANY_TOKENS)
    })
  })

  /** What a request has written by the time that its engine stands still. It is quick: it may be done before, and is asked again then. */
  async function stoppedUnderWay({ child, host }: Running): Promise<Kept> {
    for (;;) {
      const sink = new Kept()
      host.submit(jobOf({ ...count, maxTokens: MANY_TOKENS }, 1, slo), sink)
      await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(20), { timeout: 60_000 })
      signal(child, "SIGSTOP")
      // What it had sent by then comes still.
      for (let read = -1; read < sink.tokensOf[0]!.length; ) {
        read = sink.tokensOf[0]!.length
        await setTimeout(200)
        // Where this process stands still as well, its timers come before what there is to be read.
        await setImmediate()
      }
      if (sink.ends[0]?.kind !== "finished") return sink
      signal(child, "SIGCONT")
      await until(() => expect(host.state).toBe("ready"))
    }
  }

  test("killed under way: the other one goes on up to the same length", async () => {
    const { host: other } = servers[0]!
    const whole = (await run(other, MANY_TOKENS)).sink.text[0]!
    const { child } = servers[1]!
    const sink = await stoppedUnderWay(servers[1]!)
    const exit = once(child, "exit")
    signal(child, "SIGKILL")
    await exit
    expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
    const content = sink.text[0]!
    expect(whole.startsWith(content)).toBe(true)
    const begun: Begun = {
      steps: [{ tokens: sink.tokensOf[0]!, agoUs: 1000 }],
      text: { content, reasoning: "", toolCalls: 0 },
    }
    const rest = await run(other, MANY_TOKENS, begun)
    // Random weights write what is no text, so that the engine reads other tokens in it than it wrote: the rest differs.
    expect(rest.end).toMatchObject({
      kind: "finished",
      reason: "length",
      usage: { completionTokens: MANY_TOKENS },
    })
    expect(rest.sink.tokensOf[0]!.length).toBe(MANY_TOKENS - sink.tokensOf[0]!.length)
  }, 300_000)

  return { first: () => servers[0]! }
}

/** To all that it has started as well: vLLM's engine is a process of its own, and its workers are. */
function signal(child: ChildProcess, name: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, name)
  } catch {
    // It has ended before.
  }
}

/** Requests that it computes. */
const RUNNING = "vllm:num_requests_running|llamacpp:requests_processing"
/** Tokens that it has written so far. */
const WRITTEN = "vllm:generation_tokens_total|llamacpp:tokens_predicted_total"

/** As its own metrics have it. */
async function figureOf(url: string, name: string): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text()
  const line = new RegExp(`^(?:${name})(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(metrics)
  expect(line, metrics).not.toBeNull()
  return Number(line![1])
}
