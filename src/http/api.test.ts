/** The API as the official OpenAI client sees it, over a socket, on the fake engine in real time. */
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { failingAfter } from "../replica/testing.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
let server: Server
let client: OpenAI

/** What the fake model answers, by a word in the prompt; otherwise 20 tokens of text. */
function script(_id: number, prompt: string): string | undefined {
  if (prompt.includes("THINK")) return "<think>\nhmm, hmm\n</think>\n\nforty-two"
  if (prompt.includes("CALL"))
    return 'Looking.<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'
  if (prompt.includes("COUNT")) return "one two three four"
  if (prompt.includes("EMOJI")) return "a🙂b"
  if (prompt.includes("LONG")) return "word ".repeat(150)
  return undefined
}

beforeAll(async () => {
  server = await testServer({ listen: true, fake: { script } })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
})
afterAll(() => server.close())

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

const user = (content: string) => [{ role: "user" as const, content }]
const tools = [{ type: "function" as const, function: { name: "look", parameters: { type: "object" } } }]

describe("chat completions", () => {
  it("answers, with usage, SLO result and request id", async () => {
    const { data, response } = await client.chat.completions
      .create({ model: "fake", messages: user("COUNT") }, { headers: { "x-request-id": "my-id.1" } })
      .withResponse()
    expect(response.headers.get("x-request-id")).toBe("my-id.1")
    expect(data.choices[0]).toMatchObject({
      finish_reason: "stop",
      message: { role: "assistant", content: "one two three four" },
    })
    // 18 characters and the end token; the prompt as ChatML.
    expect(data.usage).toMatchObject({ completion_tokens: 19, total_tokens: 19 + data.usage!.prompt_tokens })
    const { metrics } = data as unknown as { metrics: Metrics }
    expect(metrics.time_to_first_token_ms).toBeGreaterThan(0)
    expect(metrics.queue_time_ms).toBeLessThanOrEqual(metrics.time_to_first_token_ms)
    expect(metrics.slo.class).toBe("chat")
    expect(metrics.slo.stages.map((s) => s.stage)).toEqual(["prefill", "answer"])
  })

  it("streams the same text, a final chunk with metrics, then usage", async () => {
    const stream = await client.chat.completions.create({
      model: "fake",
      messages: user("COUNT"),
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = await collect(stream)
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: "assistant", content: "" })
    expect(chunks.map((c) => c.choices[0]?.delta.content ?? "").join("")).toBe("one two three four")
    expect(chunks.length).toBeGreaterThan(15)
    const [last, usage] = chunks.slice(-2)
    expect(last!.choices[0]!.finish_reason).toBe("stop")
    expect(last).toHaveProperty("metrics.slo.attained")
    expect(usage).toMatchObject({ choices: [], usage: { completion_tokens: 19 } })
    expect(chunks.slice(0, -1).every((c) => c.usage === null)).toBe(true)
  })

  it("counts tokens in every chunk with continuous_usage_stats", async () => {
    const stream = await client.chat.completions.create({
      model: "fake",
      messages: user("COUNT"),
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true } as { include_usage: boolean },
    })
    const chunks = await collect(stream)
    const counts = chunks
      .filter((c) => c.choices[0]?.delta.content)
      .map((c) => c.usage?.completion_tokens ?? 0)
    expect(counts[0]).toBeGreaterThan(0)
    expect(counts).toEqual([...counts].sort((a, b) => a - b))
    expect(counts.at(-1)).toBeLessThanOrEqual(chunks.at(-1)!.usage!.completion_tokens)
    expect(new Set(counts).size).toBe(counts.length)
  })

  it.each(["chat", "text"])("counts tokens without text as they come (%s)", async (kind) => {
    const asked = {
      ...{ model: "fake", stream: true as const },
      stream_options: { include_usage: true, continuous_usage_stats: true } as { include_usage: boolean },
    }
    const chunks =
      kind === "chat"
        ? await collect(await client.chat.completions.create({ ...asked, messages: user("EMOJI") }))
        : await collect(await client.completions.create({ ...asked, prompt: "EMOJI" }))
    const told = chunks.flatMap(({ choices: [choice], usage }) => {
      if (choice === undefined || !usage) return []
      return [[usage.completion_tokens, "delta" in choice ? choice.delta.content : choice.text]]
    })
    // A character of four tokens comes with its last one.
    expect(told).toEqual([
      ...[
        [1, "a"],
        [2, ""],
        [3, ""],
        [4, ""],
        [5, "🙂"],
      ],
      [6, "b"],
    ])
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 7 } })
  })

  it("never cuts a character in two", async () => {
    const stream = await client.chat.completions.create({
      model: "fake",
      messages: user("EMOJI"),
      stream: true,
    })
    const pieces = (await collect(stream)).map((c) => c.choices[0]?.delta.content ?? "")
    expect(pieces.filter((p) => p !== "")).toEqual(["a", "🙂", "b"])
  })

  it("stops at a stop string, which it does not show", async () => {
    const stream = await client.chat.completions.create({
      model: "fake",
      messages: user("COUNT"),
      stop: ["three", "nine"],
      stream: true,
    })
    const chunks = await collect(stream)
    expect(chunks.map((c) => c.choices[0]?.delta.content ?? "").join("")).toBe("one two ")
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("stop")
  })

  it("separates thinking and judges it as a stage", async () => {
    const body = { model: "fake:reasoning", messages: user("THINK") }
    const whole = await client.chat.completions.create(body)
    expect(whole.choices[0]!.message).toMatchObject({ content: "forty-two", reasoning_content: "hmm, hmm\n" })
    expect(whole.usage!.completion_tokens_details!.reasoning_tokens).toBeGreaterThan(8)
    const { metrics } = whole as unknown as { metrics: Metrics }
    expect(metrics.slo.stages.map((s) => s.stage)).toEqual(["prefill", "thinking", "answer"])
    const stream = await client.chat.completions.create({ ...body, stream: true })
    let reasoning = ""
    for await (const chunk of stream)
      reasoning +=
        (chunk.choices[0]?.delta as { reasoning_content?: string } | undefined)?.reasoning_content ?? ""
    expect(reasoning).toBe("hmm, hmm\n")
  })

  it("turns tool calls of the model into tool_calls, and only when tools were given", async () => {
    const body = { model: "fake", messages: user("CALL") }
    const { choices } = await client.chat.completions.create({ ...body, tools })
    expect(choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: "Looking." } })
    const call = { type: "function", function: { name: "look", arguments: '{"at": "sky"}' } }
    expect(choices[0]!.message.tool_calls).toMatchObject([call])
    const chunks = await collect(await client.chat.completions.create({ ...body, tools, stream: true }))
    const deltas = chunks.flatMap((c) => c.choices[0]?.delta.tool_calls ?? [])
    expect(deltas[0]).toMatchObject({ index: 0, type: "function", function: { name: "look" } })
    expect(deltas.map((one) => one.function!.arguments).join("")).toBe(call.function.arguments)
    const plain = await client.chat.completions.create(body)
    expect(plain.choices[0]).toMatchObject({ finish_reason: "stop" })
    expect(plain.choices[0]!.message.content).toContain("<tool_call>")
  })

  it("gives log-probabilities when asked", async () => {
    const { choices } = await client.chat.completions.create({
      model: "fake",
      messages: user("COUNT"),
      max_tokens: 3,
      logprobs: true,
      top_logprobs: 2,
    })
    expect(choices[0]!.logprobs!.content).toHaveLength(3)
    expect(choices[0]!.logprobs!.content![0]).toMatchObject({ token: "o", bytes: [111] })
    expect(choices[0]!.logprobs!.content![0]!.top_logprobs).toHaveLength(2)
    expect(choices[0]!.finish_reason).toBe("length")
  })

  it("takes its SLO from the body, headers and service tier", async () => {
    const ask = async (extra: object, headers: Record<string, string> = {}) => {
      const body = { model: "fake", messages: user("COUNT"), ...extra }
      const answer = await client.chat.completions.create(body, { headers })
      return answer as unknown as { metrics: Metrics; service_tier: string }
    }
    const headers = { "x-slo-ttft-ms": "900", "x-llm-d-slo-tpot-ms": "70" }
    expect((await ask({}, headers)).metrics.slo).toMatchObject({ ttft_ms: 900, tpot_ms: 70 })
    const own = await ask({ slo: { ttft_ms: 5000, class: "code" } }, headers)
    expect(own.metrics.slo).toMatchObject({ class: "code", ttft_ms: 5000, tpot_ms: 70, attained: true })
    expect(own.service_tier).toBe("default")
    const forVllm = { vllm_xargs: { slo_class: "code", slo_ttft_ms: 4000, others: [1, "a"] } }
    expect((await ask(forVllm, headers)).metrics.slo).toMatchObject({
      class: "code",
      ttft_ms: 4000,
      tpot_ms: 70,
    })
    const text = { model: "fake", prompt: "COUNT", max_tokens: 2, ...forVllm }
    expect(await client.completions.create(text)).toMatchObject({ metrics: { slo: { ttft_ms: 4000 } } })
    const flex = await ask({ service_tier: "flex" })
    expect(flex.metrics.slo).toMatchObject({ tier: "best_effort", attained: null, ttft_ms: null })
    expect(flex.service_tier).toBe("flex")
  })

  it("holds a stream to its longest gap, and tells it whether asked or not", async () => {
    const ask = async (slo: object, maxTokens: number, headers: Record<string, string> = {}) => {
      const body = { model: "fake", messages: user("LONG"), max_tokens: maxTokens, slo }
      const answer = await client.chat.completions.create(body, { headers })
      return (answer as unknown as { metrics: Metrics }).metrics
    }
    const lax = { ttft_ms: 60_000, tpot_ms: 60_000 }
    const kept = await ask({ ...lax, max_gap_ms: 60_000 }, 20)
    expect(kept.slo).toMatchObject({ max_gap_ms: 60_000, attained: true })
    expect(kept.max_gap_ms).toBeGreaterThanOrEqual(kept.mean_itl_ms!)
    // No step of the fake engine is as short: every later token is late by the gap alone.
    const missed = await ask(lax, 20, { "x-llm-d-slo-max-gap-ms": "1" })
    expect(missed.max_gap_ms).toBeGreaterThan(1)
    expect(missed.slo).toMatchObject({ max_gap_ms: 1, attained: false })
    expect(missed.slo.stages.map(({ stage, attained }) => [stage, attained])).toEqual([
      ["prefill", true],
      ["answer", false],
    ])
    expect(await ask(lax, 1)).toMatchObject({ max_gap_ms: null, slo: { max_gap_ms: null, attained: true } })
  })

  it("without a TTFT, a TPOT counts from the first token", async () => {
    const body = { model: "fake", messages: user("LONG"), max_tokens: 20 }
    const slo = { class: "best_effort", tpot_ms: 0.1 }
    const answer = await client.chat.completions.create({ ...body, ...{ slo } })
    const { metrics } = answer as unknown as { metrics: Metrics }
    expect(metrics.slo).toMatchObject({ ttft_ms: null, tpot_ms: 0.1, attained: false })
  })

  it("reuses the prompt of an earlier round", async () => {
    const first = user("COUNT: a first message that is long enough to fill a few blocks of KV memory")
    await client.chat.completions.create({ model: "fake", messages: first })
    const again = await client.chat.completions.create({ model: "fake", messages: first })
    expect(again.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(64)
  })

  it("cancels when the client goes away, streaming or not", async () => {
    // A step takes 20 ms: no machine ends an answer of 16 s before the server asks whether its client is there.
    const cost = { pieces: [{ step: 20_000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
    const slow = await testServer({ listen: true, fake: { cost } })
    const client = new OpenAI({ baseURL: `${slow.url}/v1`, apiKey: "none", maxRetries: 0 })
    for (const stream of [true, false]) {
      const abort = new AbortController()
      const ended = new Promise<string>((resolve) =>
        slow.driver.observe((effect) => effect.type === "finished" && resolve(effect.reason)),
      )
      const answer = client.chat.completions.create(
        { model: "fake", messages: user("LONG"), stream, max_tokens: 800, ...{ ignore_eos: true } },
        { signal: abort.signal },
      )
      const seen = answer.then(async (a) => {
        if (Symbol.asyncIterator in a) for await (const _ of a) abort.abort()
      })
      // Not before the server has it: a request that is taken back on its way was never there.
      if (!stream) {
        await vi.waitUntil(() => slow.driver.snapshot().running > 0, { timeout: 60_000, interval: 5 })
        abort.abort()
      }
      await seen.catch(() => {})
      expect(await ended).toBe("cancelled")
    }
    expect(slow.driver.snapshot()).toMatchObject({ running: 0, waiting: 0 })
    await slow.close()
  })
})

describe("completions", () => {
  it("takes text and tokens", async () => {
    const text = await client.completions.create({ model: "fake", prompt: "COUNT", max_tokens: 40 })
    expect(text.choices[0]).toMatchObject({ text: "one two three four", finish_reason: "stop" })
    const tokens = [...new TextEncoder().encode("COUNT")]
    const same = await client.completions.create({ model: "fake", prompt: tokens, max_tokens: 7 })
    expect(same.choices[0]).toMatchObject({ text: "one two", finish_reason: "length" })
    const stream = await client.completions.create({
      model: "fake",
      prompt: ["COUNT"],
      max_tokens: 7,
      stream: true,
    })
    const chunks = await collect(stream)
    expect(chunks.map((c) => c.choices[0]?.text ?? "").join("")).toBe("one two")
  })
})

describe("models", () => {
  it("lists the model and its class aliases", async () => {
    const ids = (await collect(client.models.list())).map((m) => m.id)
    expect(ids).toEqual(expect.arrayContaining(["fake", "fake:chat", "fake:best_effort"]))
    expect(await client.models.retrieve("fake:code")).toMatchObject({ slo_class: "code" })
    await expect(client.models.retrieve("gpt")).rejects.toBeInstanceOf(OpenAI.NotFoundError)
  })
})

describe("errors as the client's classes", () => {
  it("unknown model, wrong value, too long", async () => {
    const ask = (extra: object) =>
      client.chat.completions.create({ model: "fake", messages: user("hi"), ...extra })
    await expect(ask({ model: "gpt-4o" })).rejects.toMatchObject({ status: 404, code: "model_not_found" })
    await expect(ask({ temperature: "hot" })).rejects.toBeInstanceOf(OpenAI.BadRequestError)
    await expect(ask({ max_tokens: 1020 })).rejects.toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      message: expect.stringContaining("maximum context length is 1024 tokens"),
    })
  })

  it("a full queue is 429 with the time to wait; draining is 503", async () => {
    const small = await testServer({ listen: true, maxQueue: 1, fake: { outputTokens: 200 } })
    const other = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: "none", maxRetries: 0 })
    const body = { model: "fake", messages: user("hi") }
    const first = await other.chat.completions.create({ ...body, stream: true })
    const error = await other.chat.completions.create(body).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.RateLimitError)
    const { headers } = error as { headers: Headers }
    expect(Number(headers.get("retry-after-ms"))).toBeGreaterThan(0)
    expect(Number(headers.get("retry-after"))).toBeGreaterThan(0)
    expect(headers.get("x-llm-d-request-dropped-reason")).toBe("queue_full")
    const drained = small.host.drain()
    await expect(other.chat.completions.create(body)).rejects.toMatchObject({ status: 503 })
    expect((await fetch(`${small.url}/ready`)).status).toBe(503)
    expect((await fetch(`${small.url}/health`)).status).toBe(200)
    // What was accepted ends as if nothing had happened.
    expect((await collect(first)).at(-1)!.choices[0]!.finish_reason).toBe("stop")
    await drained
    await small.close()
  })

  it("a failure before the first token is a 500, after it an error event", async () => {
    const broken = await testServer({ listen: true, wrap: (engine) => failingAfter(5, engine) })
    const other = new OpenAI({ baseURL: `${broken.url}/v1`, apiKey: "none", maxRetries: 0 })
    const body = { model: "fake", messages: user("hi") }
    const stream = await other.chat.completions.create({ ...body, stream: true })
    await expect(collect(stream)).rejects.toThrow("could not compute this request: too hard.")
    await expect(other.chat.completions.create({ ...body, stream: true })).rejects.toMatchObject({
      status: 500,
      code: "engine_failed",
    })
    expect((await fetch(`${broken.url}/ready`)).status).toBe(200)
    await broken.close()
  })
})

describe("for operators", () => {
  it("/metrics has vLLM's names and ours, with what was served", async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text()
    expect(text).toMatch(/^vllm:time_to_first_token_seconds_count\{model_name="fake",engine="0"\} [1-9]/m)
    expect(text).toMatch(/^vllm:num_requests_running\{model_name="fake",engine="0"\} 0$/m)
    expect(text).toMatch(
      /^slos_serve_stages_total\{class="reasoning",stage="thinking",attained="\w+"\} [12]$/m,
    )
    expect(text).toMatch(/^slos_serve_max_gap_seconds_count\{class="chat"\} [1-9]/m)
    expect(text).toMatch(/^slos_serve_step_time_ratio_count [1-9]/m)
    expect(text).toMatch(/^slos_serve_event_loop_delay_seconds\{percentile="99"\} \d/m)
  })

  it("/v1/slo/status counts requests by class", async () => {
    const status = (await (await fetch(`${server.url}/v1/slo/status`)).json()) as {
      classes: { name: string; window: { requests: { total: number } } }[]
    }
    expect(status.classes.find((c) => c.name === "reasoning")!.window.requests.total).toBe(2)
    expect((await fetch(server.url)).headers.get("content-type")).toContain("text/html")
  })
})

interface Metrics {
  time_to_first_token_ms: number
  mean_itl_ms: number | null
  max_gap_ms: number | null
  queue_time_ms: number
  slo: {
    class: string
    attained: boolean | null
    stages: { stage: string; attained: boolean | null }[]
  }
}
