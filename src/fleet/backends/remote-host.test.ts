/** A backend of each kind behind the port, over real sockets, and what goes wrong with them. */
import { Agent } from "undici"
import { afterEach, describe, expect, test } from "vitest"
import { freePort } from "../../free-port.ts"
import type { Begun, Job } from "../../replica/host.ts"
import type { Observed } from "../../replica/observed.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { BACKEND_KINDS, type OwnBatchingKind } from "./kinds.ts"
import { RemoteHost, type RemoteHostOptions } from "./remote-host.ts"
import { FakeBackend, type FakeOptions, WORDS } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function fake(options: FakeOptions = {}): Promise<FakeBackend> {
  const backend = await FakeBackend.open(options)
  opened.push(backend)
  return backend
}

function hostOf(backend: FakeBackend, changes: Partial<RemoteHostOptions> = {}): RemoteHost {
  const dispatcher = new Agent()
  opened.push(dispatcher)
  const host = new RemoteHost({
    ...{ name: "far", url: backend.url, kind: BACKEND_KINDS[backend.options.kind], apps: 20, dispatcher },
    ...{ timeouts: { connectMs: 1000, firstByteMs: 5000, silenceMs: 5000 }, probeMs: 20 },
    ...changes,
  })
  opened.push(host)
  return host
}

async function open(options: FakeOptions = {}, changes: Partial<RemoteHostOptions> = {}) {
  const backend = await fake(options)
  const host = hostOf(backend, changes)
  await until(() => expect(host.state).toBe("ready"))
  return { backend, host }
}

async function run(host: RemoteHost, job: Job) {
  const sink = new Kept(job.choices.length)
  host.submit(job, sink)
  return { sink, ends: await sink.over() }
}

/** The other half of what `Kept` begins. */
const begunWith = (text: string, tokens: number): Begun => ({
  steps: [{ tokens: Array.from({ length: tokens }, (_, i) => 100 + i), agoUs: 1000 }],
  text: { content: text, reasoning: "", toolCalls: 0 },
})

describe.each(Object.keys(BACKEND_KINDS) as OwnBatchingKind[])("%s", (kind) => {
  test("computes a job: text, tokens, one end with the engine's own counts and our verdict", async () => {
    const { host, backend } = await open({ kind, words: 4 })
    const seen: Observed[] = []
    host.onObserved((observed) => seen.push(observed))
    const { sink, ends } = await run(host, jobOf({ maxTokens: 50 }))
    expect(sink.text[0]).toBe("one two three four")
    expect(sink.tokensOf[0]).toHaveLength(4)
    expect(ends[0]).toMatchObject({
      ...{ kind: "finished", reason: "stop" },
      usage: { promptTokens: 12, cachedTokens: 4, completionTokens: 4 },
      outcome: { attained: true, outputTokens: 4, arrivalUs: 0 },
    })
    await until(() => {
      const effects = seen.flatMap((one) => one.effects)
      expect(effects.filter(({ type }) => type === "finished")).toHaveLength(1)
      expect(effects.reduce((n, effect) => n + (effect.type === "token" ? effect.count : 0), 0)).toBe(4)
    })
    expect(backend.asked[0]).toMatchObject({
      path: "/v1/chat/completions",
      body: {
        model: "m-1",
        stream: true,
        max_tokens: 50,
        messages: [{ role: "user", content: "Say hello" }],
      },
    })
    expect(host.twin.inFlight).toBe(0)
    expect(host.info?.limits.contextTokens).toBe(4096)
  })

  test("completions, cut at their length", async () => {
    const { host, backend } = await open({ kind })
    const { sink, ends } = await run(host, jobOf({ prompt: { kind: "text", text: "Count" }, maxTokens: 2 }))
    expect(sink.text[0]).toBe("one two")
    if (kind !== "vllm") expect(ends[0]).toMatchObject({ kind: "finished", reason: "length" })
    expect(backend.asked[0]).toMatchObject({ path: "/v1/completions", body: { prompt: "Count" } })
  })

  test("others' load is seen in its metrics, and gone when it is gone", async () => {
    const { host, backend } = await open({ kind, others: { running: 3, waiting: 5 } })
    if (kind === "openai") return expect(host.digest().snapshot).toMatchObject({ running: 0, waiting: 0 })
    await until(() => expect(host.digest().snapshot).toMatchObject({ running: 3, waiting: 5 }))
    backend.options.others = { running: 0, waiting: 0 }
    await until(() => expect(host.digest().snapshot).toMatchObject({ running: 0, waiting: 0 }))
  })
})

test("once its step times are known, forecasts know what one more of its kind would be like", async () => {
  const { host } = await open({ kind: "vllm" }, { priority: true })
  expect(host.info!.planner).toBe(null)
  const { fit } = host.twin
  for (let i = 0; i < 20; i++) {
    fit.observe({ entries: 0, steps: 10, tokens: 40, sequences: 40, pairs: 4000, us: 200_000 }, 0)
    fit.observe({ entries: 1, steps: 10, tokens: 540, sequences: 50, pairs: 130_000, us: 260_000 }, 500)
  }
  expect(fit.confident).toBe(true)
  const planner = host.info!.planner!
  expect(planner).toMatchObject({ policy: "vllm-priority", options: { tokenBudget: 2048 }, cost: fit.model })
  // A simulated pool has memory for each of its blocks.
  expect(planner.limits).toMatchObject({ kvTokens: 256 * 4096, contextTokens: 4096, maxSequences: 256 })
})

describe("what is handed on", () => {
  test("the client's own body, with what is ours changed", async () => {
    const models = new Map([["mine", "m-1"]])
    const { host, backend } = await open({}, { models, apiKey: "secret" })
    const body = {
      ...{ model: "mine:chat", messages: [{ role: "user", content: "hi" }], skip_eos: true, seed: 7 },
      ...{ stream: false, n: 2, slo: { ttft_ms: 100 }, best_of: 1, top_p: null },
    }
    const { ends } = await run(host, {
      ...jobOf({ sampling: { ...jobOf().generation.sampling, seed: 7 } }, 2),
      body,
    })
    expect(ends.map((end) => end?.kind)).toEqual(["finished", "finished"])
    const asked = backend.asked.map((one) => one.body)
    for (const one of asked) {
      expect(one).toMatchObject({ model: "m-1", skip_eos: true, stream: true, return_token_ids: true })
      for (const ours of ["slo", "n", "best_of", "top_p"]) expect(one).not.toHaveProperty(ours)
    }
    expect(asked.map(({ seed }) => seed).sort()).toEqual([7, 8])
    expect(backend.asked[0]!.headers.authorization).toBe("Bearer secret")
    expect(host.info?.model.name).toBe("mine")
  })

  test("token ids where the engine says them", async () => {
    const { host } = await open({ kind: "vllm" })
    const { sink } = await run(host, jobOf())
    expect(sink.tokensOf[0]).toEqual([100, 101, 102, 103])
  })

  test("the absolute deadline as priority, best effort after all that are promised", async () => {
    const { host, backend } = await open({}, { priority: true })
    await run(host, jobOf({}, 1, { ttft_ms: 3000 }))
    await run(host, jobOf({}, 1, { ttft_ms: 9000 }))
    const idle = jobOf()
    await run(host, {
      ...idle,
      generation: { ...idle.generation, slo: { ...idle.generation.slo, tier: "bestEffort" } },
    })
    const [first, second, third] = backend.asked.map(({ body }) => Number(body.priority)) as [
      number,
      number,
      number,
    ]
    expect(second - first).toBeGreaterThan(5000)
    expect(second - first).toBeLessThan(7000 + 5000)
    expect(third).toBeGreaterThan(second)
    expect(Number.isInteger(first)).toBe(true)
  })
})

describe("goes on with an answer that has begun elsewhere", () => {
  test("a chat, by its text; what is out counts", async () => {
    const { host, backend } = await open({ words: 6 })
    const job = jobOf({ maxTokens: 40 })
    const choices = [{ index: 0, begun: begunWith("one two", 2) }]
    const { sink, ends } = await run(host, { ...job, choices })
    expect(sink.text[0]).toBe(" three four five six")
    expect(ends[0]).toMatchObject({ usage: { completionTokens: 6 }, outcome: { outputTokens: 6 } })
    expect(backend.asked[0]!.body).toMatchObject({
      ...{ continue_final_message: true, add_generation_prompt: false, max_tokens: 38 },
      messages: [{ role: "user" }, { role: "assistant", content: "one two" }],
    })
  })

  test("a completion, by its prompt and text, anywhere", async () => {
    const { host, backend } = await open({ kind: "openai" })
    const job = jobOf({ prompt: { kind: "text", text: "Count:" }, maxTokens: 10 })
    await run(host, { ...job, choices: [{ index: 0, begun: begunWith(" one", 1) }] })
    expect(backend.asked[0]!.body).toMatchObject({ prompt: "Count: one", max_tokens: 9 })
  })

  test.each([
    ["no text", { text: undefined }, "vllm", "not known"],
    ["thinking", { text: { content: "", reasoning: "hm", toolCalls: 0 } }, "vllm", "thought"],
    ["calls", { text: { content: "", reasoning: "", toolCalls: 1 } }, "vllm", "called tools"],
    ["an API without it", {}, "openai", "cannot go on"],
  ] as const)("not where it cannot: %s", async (_, changes, kind, why) => {
    const { host, backend } = await open({ kind })
    const { text, ...begun } = { ...begunWith("one", 1), ...changes }
    const choices = [{ index: 0, begun: { ...begun, ...(text !== undefined && { text }) } }]
    const job = { ...jobOf(), choices }
    expect((await host.offer(job, 100)).takes).toBe(false)
    const { ends } = await run(host, job)
    expect(ends[0]).toMatchObject({ kind: "lost", reason: "refused", detail: expect.stringContaining(why) })
    expect(backend.asked).toEqual([])
  })
})

describe("a client that goes", () => {
  test("is told of to the engine, held or under way", async () => {
    const { host, backend } = await open({ words: 8, wordMs: 20 })
    const sink = new Kept()
    const job = jobOf({ maxTokens: 1000 })
    host.submit(job, sink)
    await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
    expect(await host.withdraw(job.id)).toBe(false)
    host.cancel(job.id)
    expect((await sink.over())[0]).toMatchObject({ kind: "cancelled" })
    await until(() => expect(backend.aborted).toBe(1))
    const held = jobOf()
    const heldSink = new Kept()
    host.submit(held, heldSink)
    host.cancel(held.id)
    expect((await heldSink.over())[0]).toMatchObject({ kind: "cancelled" })
    host.cancel(123_456)
    expect(host.twin.inFlight).toBe(0)
  })

  test("a job without a token out can be had back", async () => {
    const { host, backend } = await open({ firstMs: 5000 })
    const sink = new Kept()
    const job = jobOf()
    host.submit(job, sink)
    await until(() => expect(backend.live).toBe(1))
    expect(await host.withdraw(job.id)).toBe(true)
    expect(await host.withdraw(job.id)).toBe(false)
    expect(sink.ends).toEqual([])
  })
})

describe("what goes wrong is of one request alone", () => {
  test.each([
    ["not JSON", "data: {oops\n\n", "not JSON"],
    ["not a chunk", 'data: {"choices": 5}\n\n', "choices"],
    ["an error", 'data: {"error": {"message": "out of memory"}}\n\n', "out of memory"],
  ])("a malformed chunk: %s", async (_, chunk, why) => {
    const { host, backend } = await open({ words: 8, wordMs: 5 })
    let struck = 0
    backend.misbehave = (_asked, response, word) => {
      if (word !== 3 || struck++ > 0) return false
      response.end(chunk)
      return true
    }
    const [bad, good] = await Promise.all([
      run(host, jobOf({ maxTokens: 100 })),
      run(host, jobOf({ maxTokens: 100 })),
    ])
    const [first, second] = bad.ends[0]?.kind === "lost" ? [bad, good] : [good, bad]
    expect(first.ends[0]).toMatchObject({
      kind: "lost",
      reason: "broken",
      detail: expect.stringContaining(why),
    })
    expect(first.sink.text[0]).toBe("one two")
    expect(second.sink.text[0]).toBe(WORDS.join(""))
    expect(host.state).toBe("ready")
  })

  test("a stream that ends early, or says [DONE] without an end, is lost", async () => {
    const { host, backend } = await open()
    for (const ending of ["", "data: [DONE]\n\n"]) {
      backend.misbehave = (_asked, response, word) => word === 2 && response.end(ending) !== undefined
      const { ends, sink } = await run(host, jobOf({ maxTokens: 100 }))
      expect(ends[0]).toMatchObject({ kind: "lost", reason: "died" })
      expect(sink.text[0]).toBe("one")
    }
  })

  test("a stream that stands still, an answer that never begins, a socket that is cut", async () => {
    const { host, backend } = await open(
      {},
      { timeouts: { connectMs: 500, firstByteMs: 300, silenceMs: 300 } },
    )
    backend.misbehave = (_asked, _response, word) => word === 0
    expect((await run(host, jobOf())).ends[0]).toMatchObject({
      reason: "died",
      detail: expect.stringContaining("begun"),
    })
    backend.misbehave = (_asked, response, word) => word === 2 && response.socket!.destroy() !== undefined
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "lost", reason: "died" })
  })

  test("what the client did wrong it is told in the engine's words; nothing else happens", async () => {
    const { host, backend } = await open()
    backend.misbehave = (_asked, response) => {
      response.writeHead(400, { "content-type": "application/json" })
      response.end(JSON.stringify({ object: "error", message: "temperature must be positive", code: 400 }))
      return true
    }
    const { ends } = await run(host, jobOf())
    expect(ends[0]).toMatchObject({
      kind: "failed",
      error: { status: 400, message: "temperature must be positive" },
    })
    expect(host.state).toBe("ready")
  })

  test("an engine that is full says for how long: nothing is sent before", async () => {
    const { host, backend } = await open()
    backend.misbehave = (_asked, response) => {
      response.writeHead(503, { "retry-after": "1" }).end("full")
      return true
    }
    const { ends } = await run(host, jobOf())
    expect(ends[0]).toMatchObject({
      kind: "lost",
      reason: "refused",
      detail: expect.stringContaining("full"),
    })
    backend.misbehave = null
    expect((await host.offer(jobOf(), 100)).takes).toBe(false)
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "lost", reason: "refused" })
    await until(async () => expect((await host.offer(jobOf(), 100)).takes).toBe(true))
    expect(backend.asked).toHaveLength(1)
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "finished" })
  })
})

describe("an engine that goes and comes", () => {
  test("is not reached at first: keeps trying, and serves once it is there", async () => {
    const backend = await fake({ port: await freePort() })
    await backend.close()
    const host = hostOf(backend)
    await until(() => expect(host.detail).toContain("nothing listens there"))
    expect(host.state).toBe("starting")
    expect((await host.offer(jobOf(), 100)).takes).toBe(false)
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "lost", reason: "refused" })
    await backend.listen()
    await until(() => expect(host.state).toBe("ready"))
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "finished" })
  })

  test("dies with streams under way: all of them are lost at once, and it is taken back", async () => {
    const { host, backend } = await open({ words: 8, wordMs: 30, port: await freePort() })
    const sinks = [new Kept(), new Kept()]
    for (const sink of sinks) host.submit(jobOf({ maxTokens: 1000 }), sink)
    await until(() => expect(sinks.every((sink) => sink.tokensOf[0]?.length)).toBe(true))
    await backend.close()
    for (const sink of sinks) expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
    await until(() => expect(host.state).toBe("down"))
    await backend.listen()
    await until(() => expect(host.state).toBe("ready"))
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "finished" })
  })

  test("a busy one whose health page fails is not down while its streams go on", async () => {
    const { host, backend } = await open({ words: 8, wordMs: 25 })
    const sink = new Kept()
    host.submit(jobOf({ maxTokens: 1000 }), sink)
    await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
    backend.healthy = false
    expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
    await until(() => expect(host.state).toBe("down"))
  })

  test("given up, it loses what it has at once, and is taken back when it answers", async () => {
    const { host, backend } = await open({ firstMs: 2000 })
    const sink = new Kept()
    host.submit(jobOf(), sink)
    await until(() => expect(backend.live).toBe(1))
    host.giveUp("it is stuck")
    expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died", detail: "it is stuck" })
    backend.options.firstMs = 1
    await until(() => expect(host.state).toBe("ready"))
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "finished" })
  })

  test("does not serve the model that is asked of it: says so, and serves nothing", async () => {
    const backend = await fake({ model: "other" })
    const host = hostOf(backend, { models: new Map([["mine", "m-1"]]) })
    await until(() => expect(host.detail).toContain("does not serve the model m-1; it serves other"))
    expect(host.state).toBe("starting")
  })

  test("drains: what it has ends, what comes is refused; closed: all ends", async () => {
    const { host } = await open({ words: 8, wordMs: 10 })
    const sink = new Kept()
    host.submit(jobOf({ maxTokens: 100 }), sink)
    await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
    const drained = host.drain()
    expect((await run(host, jobOf())).ends[0]).toMatchObject({ kind: "lost", reason: "refused" })
    await drained
    expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
    await host.close()
    expect(host.state).toBe("closed")
  })
})
