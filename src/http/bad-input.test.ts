/** Bad input gets a 4xx in OpenAI's shape, and what was already accepted goes on undisturbed. */
import { connect } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer({
    listen: true,
    bodyLimit: 64 * 1024,
    requestTimeoutMs: 400,
    fake: { outputTokens: 400 },
  })
})
afterAll(() => server.close())

const chat = (extra: object) => ({ messages: [{ role: "user", content: "hi" }], max_tokens: 2, ...extra })

interface Case {
  name: string
  body: unknown
  headers?: Record<string, string>
  url?: string
  method?: string
  status: number
  code: string | null
  param?: string
}

const CHAT = "/v1/chat/completions"
const value = (name: string, param: string, extra: object): Case => ({
  name,
  body: chat(extra),
  status: 400,
  code: "invalid_value",
  param,
})
const slo = (name: string, param: string, extra: object, headers: Record<string, string> = {}): Case => ({
  name,
  body: chat(extra),
  headers,
  status: 400,
  code: "invalid_slo",
  param,
})

const tool = (parameters: object | undefined) => ({ type: "function", function: { name: "a", parameters } })

const CASES: Case[] = [
  { name: "malformed JSON", body: '{"messages": [', status: 400, code: "invalid_json" },
  { name: "an empty body", body: "", status: 400, code: "invalid_json" },
  { name: "JSON that is no object", body: "[1]", status: 400, code: "invalid_json" },
  { name: "bad UTF-8", body: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), status: 400, code: "invalid_utf8" },
  {
    name: "a body of another type",
    body: "a=1",
    headers: { "content-type": "text/plain" },
    status: 415,
    code: "unsupported_media_type",
  },
  { name: "a huge body", body: chat({ x: "a".repeat(70_000) }), status: 413, code: "body_too_large" },
  {
    name: "JSON nested to the limit",
    body: `{"messages":${"[".repeat(30_000)}${"]".repeat(30_000)}}`,
    status: 400,
    code: "invalid_value",
    param: `messages${"[0]".repeat(11)}`,
  },
  { name: "an unknown URL", url: "/v1/audio/speech", body: {}, status: 404, code: "unknown_url" },
  {
    name: "a URL that cannot be decoded",
    url: "/v1/models/%zz",
    body: {},
    status: 400,
    code: "invalid_http",
  },
  { name: "a wrong method", url: "/v1/models", body: {}, status: 405, code: "method_not_allowed" },
  {
    name: "an unknown model",
    body: chat({ model: "gpt-4o" }),
    status: 404,
    code: "model_not_found",
    param: "model",
  },
  {
    name: "a model of an unknown class",
    body: chat({ model: "fake:nope" }),
    status: 404,
    code: "model_not_found",
  },
  {
    name: "a prompt beyond the context",
    body: { messages: [{ role: "user", content: "a".repeat(2000) }] },
    status: 400,
    code: "context_length_exceeded",
  },
  {
    name: "too many tokens asked for",
    body: chat({ max_tokens: 1024 }),
    status: 400,
    code: "context_length_exceeded",
  },
  {
    name: "an empty prompt",
    url: "/v1/completions",
    body: { prompt: [] },
    status: 400,
    code: "invalid_value",
    param: "prompt",
  },
  {
    name: "a token outside the vocabulary",
    url: "/v1/completions",
    body: { prompt: [1, 99_999] },
    status: 400,
    code: "invalid_value",
    param: "prompt",
  },
  {
    name: "more answers than one request may have",
    url: "/v1/completions",
    body: { prompt: ["a", "b"], n: 65 },
    status: 400,
    code: "invalid_value",
    param: "prompt",
  },
  {
    name: "log-probabilities of a part of the prompt",
    url: "/v1/completions",
    body: { prompt: "a", echo: true, logprobs: 1, truncate_prompt_tokens: 1 },
    status: 400,
    code: "invalid_value",
    param: "truncate_prompt_tokens",
  },
  {
    name: "a text to go before",
    url: "/v1/completions",
    body: { prompt: "a", suffix: "b" },
    status: 400,
    code: "invalid_value",
    param: "suffix",
  },
  {
    name: "a schema that no grammar keeps",
    body: chat({
      response_format: { type: "json_schema", json_schema: { name: "a", schema: { pattern: "^(?=a)" } } },
    }),
    status: 400,
    code: "invalid_json_schema",
    param: "response_format",
  },
  {
    name: "arguments that no grammar keeps",
    body: chat({ tools: [tool({ type: "object", not: {} })], tool_choice: "required" }),
    status: 400,
    code: "invalid_json_schema",
    param: "tools",
  },
  value("no messages", "messages", { messages: [] }),
  value("messages of a wrong type", "messages", { messages: "hi" }),
  value("an unknown role", "messages[0].role", { messages: [{ role: "robot", content: "" }] }),
  value("an image", "messages[0].content", {
    messages: [{ role: "user", content: [{ type: "image_url" }] }],
  }),
  value("a temperature that is text", "temperature", { temperature: "1" }),
  value("a temperature beyond 2", "temperature", { temperature: 2.5 }),
  value("max_tokens of zero", "max_tokens", { max_tokens: 0 }),
  value("no answers", "n", { n: 0 }),
  value("too many answers", "n", { n: 129 }),
  value("the best of several answers", "best_of", { best_of: 2 }),
  value("more tokens at least than at most", "min_tokens", { min_tokens: 5 }),
  value("a schema without a name", "response_format.json_schema.name", {
    response_format: { type: "json_schema", json_schema: {} },
  }),
  value("an unknown format", "response_format.type", { response_format: { type: "xml" } }),
  value("a forced call of nothing", "tool_choice", { tool_choice: "required" }),
  value("a forced call of an unknown tool", "tool_choice", {
    tools: [tool(undefined)],
    tool_choice: { type: "function", function: { name: "other" } },
  }),
  value("functions of old", "functions", { functions: [{ name: "a" }] }),
  value("a priority that is no integer", "priority", { priority: 0.5 }),
  value("an unknown service tier", "service_tier", { service_tier: "gold" }),
  value("a misspelt SLO field", "slo.ttft", { slo: { ttft: 5 } }),
  value("an SLO that is text", "slo.tpot_ms", { slo: { tpot_ms: "fast" } }),
  value("a bias on no token", "logit_bias.9999", { logit_bias: { 9999: 1 } }),
  value("a bias on text", "logit_bias.the", { logit_bias: { the: 1 } }),
  value("likeliest tokens without log-probabilities", "top_logprobs", { top_logprobs: 2 }),
  slo("a negative SLO", "slo.tpot_ms", { slo: { tpot_ms: -5 } }),
  slo("an SLO of zero", "slo.ttft_ms", { slo: { ttft_ms: 0 } }),
  slo("an SLO of hours", "slo.ttft_ms", { slo: { ttft_ms: 3_600_001 } }),
  slo("a slowdown below 1", "slo.ttft_slowdown", { slo: { ttft_slowdown: 0.5 } }),
  slo("two kinds of TTFT", "slo.ttft_slowdown", { slo: { ttft_slowdown: 5, ttft_ms: 5 } }),
  slo("a longest gap of zero", "slo.max_gap_ms", { slo: { max_gap_ms: 0 } }),
  slo("a longest gap that is no number", "x-slo-max-gap-ms", {}, { "x-slo-max-gap-ms": "none" }),
  slo("an infinite SLO header", "x-slo-tpot-ms", {}, { "x-slo-tpot-ms": "Infinity" }),
  slo("an SLO header that is no number", "x-llm-d-slo-ttft-ms", {}, { "x-llm-d-slo-ttft-ms": "soon" }),
  slo("a negative SLO header", "x-llm-d-slo-ttft-ms", {}, { "x-llm-d-slo-ttft-ms": "-1" }),
  slo("an argument out of bounds", "vllm_xargs.slo_tpot_ms", { vllm_xargs: { slo_tpot_ms: 0 } }),
  value("an unknown argument", "vllm_xargs.slo_tppt_ms", { vllm_xargs: { slo_tppt_ms: 100 } }),
  value("an argument of a wrong kind", "vllm_xargs.slo_ttft_ms", { vllm_xargs: { slo_ttft_ms: "soon" } }),
  value("another tenant's name", "vllm_xargs.slo_tenant", { vllm_xargs: { slo_tenant: "bob" } }),
  value("arguments that are a list", "vllm_xargs", { vllm_xargs: ["slo_tpot_ms"] }),
  {
    name: "an unknown argument of a completion",
    url: "/v1/completions",
    body: { prompt: "hi", vllm_xargs: { slo_speed: 1 } },
    status: 400,
    code: "invalid_value",
    param: "vllm_xargs.slo_speed",
  },
  {
    name: "an unknown class",
    body: chat({ slo: { class: "gold" } }),
    status: 400,
    code: "slo_class_not_found",
    param: "slo.class",
  },
  {
    name: "an unknown objective",
    body: chat({}),
    headers: { "x-llm-d-inference-objective": "gold" },
    status: 400,
    code: "slo_class_not_found",
  },
]

async function send({ url = CHAT, body, headers = {}, method = "POST" }: Partial<Case>) {
  const raw = typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body)
  const response = await fetch(server.url + url, {
    method,
    headers: { "content-type": "application/json", ...headers },
    body: raw as string,
  })
  return { status: response.status, body: (await response.json()) as { error: Record<string, unknown> } }
}

describe("bad input", () => {
  it.each(CASES)("$name", async (each) => {
    const { status, body } = await send(each)
    expect({ status, code: body.error.code }).toEqual({ status: each.status, code: each.code })
    if (each.param !== undefined) expect(body.error.param).toBe(each.param)
    expect(body.error.type).toBe("invalid_request_error")
    expect(body.error.message).not.toMatch(/undefined|\{\w+\}|\bat .*:\d+:\d+/)
  })

  it("a prompt far beyond the context is refused before it is tokenized", async () => {
    const { status, body } = await send({
      body: chat({ messages: [{ role: "user", content: "a".repeat(60_000) }] }),
    })
    expect({ status, code: body.error.code }).toEqual({ status: 400, code: "context_length_exceeded" })
    expect(body.error.message).toMatch(/you requested at least \d+ tokens/)
  })

  it("leaves an accepted stream undisturbed", async () => {
    const response = await fetch(server.url + CHAT, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(chat({ max_tokens: 400, stream: true })),
    })
    const text = response.text()
    await Promise.all(CASES.map(send))
    const lines = (await text).split("\n\n").filter((line) => line !== "")
    expect(lines.at(-1)).toBe("data: [DONE]")
    expect(JSON.parse(lines.at(-2)!.slice(6)).choices[0].finish_reason).toMatch(/stop|length/)
    expect(lines.length).toBeGreaterThan(390)
  })
})

/** What the server answers to raw bytes; the connection stays open on our side. */
function raw(bytes: string | Buffer, drip?: { bytes: string; everyMs: number }): Promise<string> {
  return new Promise((resolve, reject) => {
    const { port } = new URL(server.url)
    const socket = connect(Number(port), "127.0.0.1", () => socket.write(bytes))
    const timer = drip && setInterval(() => socket.writable && socket.write(drip.bytes), drip.everyMs)
    let answer = ""
    socket.on("data", (data) => (answer += data.toString()))
    socket.on("error", reject)
    socket.on("close", () => {
      clearInterval(timer)
      resolve(answer)
    })
  })
}

describe("bad connections", () => {
  it("a body that drips in is cut off with 408", async () => {
    const head = `POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9000\r\n\r\n`
    // All of it would take longer than the test may.
    const answer = await raw(head, { bytes: " ", everyMs: 50 })
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
    expect(JSON.parse(answer.split("\r\n\r\n")[1]!).error.code).toBe("request_timeout")
  })

  it("a body that is refused is read to its end: its answer arrives, and the connection serves on", async () => {
    const body = "a".repeat(3_000_000)
    const post = (bytes: string, more = "") =>
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${more}content-length: ${bytes.length}\r\n\r\n${bytes}`
    const answers = await raw(post(body) + post("{}", "connection: close\r\n"))
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 413", "HTTP/1.1 400"])
  })

  it("headers that drip in are cut off with 408", async () => {
    expect(await raw(`POST ${CHAT} HTTP/1.1\r\nx: `, { bytes: "a", everyMs: 50 })).toMatch(/^HTTP\/1\.1 408 /)
  })

  it("what is not HTTP gets a 400, headers that are too large a 431", async () => {
    expect(await raw("hello\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /)
    const headers = `x: ${"a".repeat(20_000)}\r\n`
    expect(await raw(`GET / HTTP/1.1\r\nhost: x\r\n${headers}\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
  })
})
