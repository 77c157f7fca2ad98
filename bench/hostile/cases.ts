/** Fuzz cases: requests that are wrong in their bodies, headers, paths or bytes. A pure function of seed and number. */
import { Random } from "../../src/random.ts"
import { SHAPES } from "./shapes.ts"

export interface Case {
  kind: string
  method: string
  path: string
  headers: Record<string, string>
  body: Buffer | null
  /** Instead of all these: what is written to the socket. */
  raw: Buffer | null
}

const CHAT = "/v1/chat/completions"
const TEXT = "/v1/completions"
const JSON_TYPE = { "content-type": "application/json" }

/** Keys that the server has; tenants of theirs are `a` and `b`. */
export const KEYS = { a: "key-a", b: "key-b" }

export function caseOf(seed: number, index: number): Case {
  const random = new Random("hostile", seed, index)
  const kinds = [mutated, mutated, mutated, mutated, shaped, torn, withHeaders, withPath, onTheWire]
  const one = kinds[random.below(kinds.length)]!(random)
  return one.raw === null
    ? { ...one, headers: { ...one.headers, ...whose(new Random("tenant", seed, index)) } }
    : one
}

/** Headers that say which tenant a request is of: with a key, a wrong one or none, and with a name, ever new or none. */
function whose(random: Random): Record<string, string> {
  const key = pick(random, [KEYS.a, KEYS.a, KEYS.b, "", "", "", "", "", "key-c", "key-a key-b"])
  const name = pick(random, [
    () => null,
    () => pick(random, ["a", "b", "default", "", "__proto__", "constructor"]),
    () => `t${random.below(150)}`,
    () => `new${random.below(2 ** 40)}`,
    () => pick(random, ["(all others)", "a b", "a, b", "x".repeat(129), "x".repeat(128), '"', "\\", "{}"]),
  ])()
  return {
    ...(key !== "" && { authorization: `Bearer ${key}` }),
    ...(name !== null && { "x-llm-d-inference-fairness-id": name }),
  }
}

const base = (kind: string, more: Partial<Case>): Case => ({
  ...{ kind, method: "POST", path: CHAT, headers: JSON_TYPE, body: null, raw: null },
  ...more,
})

/** A request as it should be, small enough to be answered at once. */
function proper(random: Random): { path: string; body: Record<string, unknown> } {
  const more = pick(random, [
    {},
    { stream: true, stream_options: { include_usage: true } },
    { n: 2, seed: 1 },
    { logprobs: 1 },
    { stop: ["a", "b"], logit_bias: { 5: 1 } },
    {
      response_format: {
        type: "json_schema",
        json_schema: { name: "a", schema: { type: "object", properties: { a: { enum: [1, "b", null] } } } },
      },
    },
    { slo: { ttft_ms: 500, tpot_ms: 50, session: "s" }, service_tier: "auto" },
  ])
  if (random.below(3) === 0)
    return {
      path: TEXT,
      body: { prompt: pick(random, ["hi", [1, 2, 3], ["a", "b"], [[1], [2, 3]]]), max_tokens: 2, ...more },
    }
  const tools = [
    {
      type: "function",
      function: { name: "f", parameters: { type: "object", properties: { x: { type: "string" } } } },
    },
  ]
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "text", text: "hi" }] },
    {
      role: "assistant",
      content: null,
      tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: '{"x":"y"}' } }],
    },
    { role: "tool", tool_call_id: "1", content: "z" },
  ].slice(0, 1 + random.below(4))
  const chat = pick(random, [
    {},
    { tools, tool_choice: "auto" },
    { tools, tool_choice: "required" },
    { chat_template_kwargs: { enable_thinking: true } },
  ])
  const logprobs = "logprobs" in more ? { logprobs: true, top_logprobs: 2 } : {}
  return { path: CHAT, body: { messages, max_tokens: 2, ...more, ...chat, ...logprobs } }
}

/** Values that are of the wrong type, or of none. */
function odd(random: Random): unknown {
  const length = 1 + random.below(random.below(20) === 0 ? 60_000 : 60)
  return pick(random, [
    () => null,
    () => random.below(2) === 0,
    () => pick(random, [0, -1, 1.5, 1e308, -0, 2 ** 53, 1e-320, 4294967296, 128, 1_000_001]),
    () => "x".repeat(length),
    () =>
      pick(random, [
        "<|im_end|>",
        "<|im_start|>system\n",
        "</think>",
        "\ud800",
        "\u0000",
        "😀",
        "ﷺ",
        "\u202e",
        "{{ messages }}",
        "{% for %}",
        "",
      ]).repeat(1 + random.below(50)),
    () => Array(length).fill(pick(random, [0, "", null, {}, []])),
    () =>
      Object.fromEntries(
        Array.from({ length: Math.min(length, 3000) }, (_, i) => [
          pick(random, ["", "k", "1", "<|im_end|>"]) + i,
          i,
        ]),
      ),
    () => deep(random, 1 + random.below(400)),
    () => ({ constructor: {}, toString: 1, hasOwnProperty: null, length: -1 }),
    () => [],
    () => ({}),
  ])()
}

function deep(random: Random, levels: number): unknown {
  let value: unknown = 1
  const keys = ["a", "items", "properties", "anyOf", "const", "$ref"]
  for (let i = 0; i < levels; i++) value = random.below(2) === 0 ? [value] : { [pick(random, keys)]: value }
  return value
}

/** A proper request in which up to three places have something else, or have gone. */
function mutated(random: Random): Case {
  const { path, body } = proper(random)
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const places = placesOf(body)
    if (places.length === 0) break
    const { holder, key } = pick(random, places)
    const action = random.below(5)
    if (action === 0) delete (holder as Record<string, unknown>)[key]
    else if (action === 1) (holder as Record<string, unknown>)[pick(random, FIELDS)] = odd(random)
    else if (action === 2 && Array.isArray(holder))
      holder.push(...Array(random.below(400)).fill(holder[Number(key)]))
    else (holder as Record<string, unknown>)[key] = odd(random)
  }
  // Whatever became of it, it is answered soon.
  if (typeof body.max_tokens === "number" && body.max_tokens > 8) body.max_tokens = 8
  if (body.max_tokens === undefined || body.max_tokens === null) body.max_tokens = 3
  if (typeof body.n === "number" && body.n > 4 && body.n <= 128) body.n = 4
  if (body.max_completion_tokens !== undefined) body.max_completion_tokens = 1
  return base("mutated", { path, body: Buffer.from(JSON.stringify(body)) })
}

const FIELDS = (
  "messages prompt max_tokens temperature top_p top_k min_p presence_penalty frequency_penalty repeat_penalty repetition_penalty repeat_last_n seed " +
  "logit_bias stop ignore_eos min_tokens n best_of user priority service_tier slo response_format stream stream_options logprobs top_logprobs tools " +
  "tool_choice parallel_tool_calls functions function_call reasoning reasoning_effort chat_template_kwargs echo suffix model parse_special role content " +
  "name tool_calls tool_call_id arguments function type schema json_schema strict enum const anyOf $ref items properties required pattern session class x"
).split(" ")

function placesOf(value: unknown): { holder: object; key: string }[] {
  if (typeof value !== "object" || value === null) return []
  return Object.keys(value)
    .slice(0, 50)
    .flatMap((key) => [{ holder: value, key }, ...placesOf((value as Record<string, unknown>)[key])])
}

/** One of the hostile shapes, of all sizes; one in a thousand of the largest. */
function shaped(random: Random): Case {
  const { url, name, body } = pick(random, SHAPES)
  const bytes = random.below(400) === 0 ? 8_000_000 : Math.round(2 ** (5 + 12 * random.uniform()))
  const fixed = name.startsWith("most ") || name.startsWith("long stops")
  // Those that have one size take seconds: seldom.
  if (fixed && random.below(400) > 0) return mutated(random)
  return base(`shape ${name}`, { path: url, body: Buffer.from(body(fixed ? 8_000_000 : bytes)) })
}

/** JSON that is cut off, or has other bytes in it. */
function torn(random: Random): Case {
  const { path, body } = proper(random)
  const bytes = Buffer.from(JSON.stringify(body))
  const changes = random.below(4)
  for (let i = 0; i < changes; i++)
    bytes[random.below(bytes.length)] = pick(
      random,
      [0, 0x22, 0x5c, 0x2c, 0x7b, 0x5d, 0x3a, 0xff, 0xc0, 0x80, 0x20, 0x65],
    )
  const cut = random.below(2) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes
  const prefix = pick(random, ["", "", "\ufeff", " ", "[", "\u0000"])
  return base("torn", { path, body: Buffer.concat([Buffer.from(prefix), cut]) })
}

const HEADERS = [
  "x-request-id x-slo-ttft-ms x-llm-d-slo-ttft-ms x-slo-tpot-ms x-slo-thinking-tpot-ms x-slo-max-gap-ms x-llm-d-inference-objective",
  "x-llm-d-inference-fairness-id content-type accept accept-encoding content-encoding authorization x-forwarded-for cookie host te upgrade",
  "expect range if-none-match origin x-http-method-override traceparent",
].flatMap((names) => names.split(" "))

function oddHeader(random: Random): string {
  return pick(random, [
    () => String(pick(random, [0, -1, 1e9, "NaN", "Infinity", "1e3", "0x10", " 5 ", "1,2", "soon", ""])),
    () => "a".repeat(random.below(15_000)),
    () =>
      pick(random, [
        "application/json; charset=utf-16",
        "text/plain",
        "application/json;;",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "*/*",
        "gzip",
        "100-continue",
        "h2c",
        "close, x",
      ]),
    () => String.fromCharCode(...Array.from({ length: 1 + random.below(40) }, () => 0x21 + random.below(94))),
    () => Buffer.from([0xc3, 0xa9, 0xff, 0x80]).toString("latin1"),
    () => "chat",
  ])()
}

function withHeaders(random: Random): Case {
  const { path, body } = proper(random)
  const headers: Record<string, string> = { ...JSON_TYPE }
  for (let i = 1 + random.below(6); i > 0; i--) headers[pick(random, HEADERS)] = oddHeader(random)
  for (let i = random.below(50); i > 0; i--) headers[`x-${i}`] = "y"
  const bytes = Buffer.from(JSON.stringify(body))
  return base("headers", { raw: wire("POST", path, headers, bytes) })
}

function withPath(random: Random): Case {
  const pieces = [
    "/",
    "v1",
    "chat",
    "completions",
    "models",
    "fake",
    ":",
    "%",
    "%00",
    "%2e%2e",
    "..",
    "?",
    "#",
    "a=1&",
    "__proto__",
    "*",
    "é",
    "%zz",
    "slo",
    "status",
    "health",
    "metrics",
    " ",
    "\\",
    "//",
    ";",
    "x".repeat(200),
  ]
  const own = [
    "/v1/models",
    "/v1/models/",
    "/health",
    "/ready",
    "/metrics",
    "/",
    "/v1/slo/status",
    CHAT,
    TEXT,
  ]
  const tail = Array.from({ length: random.below(random.below(10) === 0 ? 60 : 8) }, () =>
    pick(random, pieces),
  ).join("")
  const path = random.below(2) === 0 ? pick(random, own) + tail : `/${tail}`
  const method = pick(random, [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "PROPFIND",
    "get",
    "XYZ",
  ])
  const body = method === "POST" ? Buffer.from(JSON.stringify(proper(random).body)) : Buffer.alloc(0)
  return base("path", { raw: wire(method, path, method === "POST" ? JSON_TYPE : {}, body) })
}

/** What is no HTTP, or says other than it is. */
function onTheWire(random: Random): Case {
  const { path, body } = proper(random)
  const bytes = Buffer.from(JSON.stringify(body))
  const head = (lines: string[]) =>
    `POST ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n${lines.join("\r\n")}\r\n\r\n`
  const chunks = [...bytes].map((byte) => `1\r\n${String.fromCharCode(byte)}\r\n`).join("")
  const raw = pick(random, [
    () => head([`content-length: ${bytes.length}`, `content-length: ${bytes.length + 1}`]) + bytes,
    () => head(["content-length: -1"]) + bytes,
    () => head(["content-length: 99999999999"]) + bytes,
    () => head([`content-length: ${bytes.length}`, "transfer-encoding: chunked"]) + bytes,
    () => `${head(["transfer-encoding: chunked"])}${chunks}0\r\n\r\n`,
    () => `${head(["transfer-encoding: chunked"])}zz\r\n${bytes}\r\n0\r\n\r\n`,
    () => `${head(["transfer-encoding: gzip, chunked"])}${chunks}0\r\n\r\n`,
    () => head([`content-length: ${Math.max(0, bytes.length - 5)}`]) + bytes,
    () => head([`x: ${"a".repeat(random.below(30_000))}`, `content-length: ${bytes.length}`]) + bytes,
    () =>
      head([
        ...Array.from({ length: random.below(2500) }, (_, i) => `x${i}: ${i}`),
        `content-length: ${bytes.length}`,
      ]) + bytes,
    () => head(["bad header", `content-length: ${bytes.length}`]) + bytes,
    () => `POST ${path} HTTP/${pick(random, ["1.0", "0.9", "2.0", "9.9"])}\r\nconnection: close\r\n\r\n`,
    () => "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001",
    () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    () => "\r\n".repeat(1 + random.below(1000)),
  ])()
  return base("wire", { raw: Buffer.from(raw, "latin1") })
}

function wire(method: string, path: string, headers: Record<string, string>, body: Buffer): Buffer {
  const all = {
    host: "x",
    connection: "close",
    ...headers,
    ...(method === "POST" && { "content-length": String(body.length) }),
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`)
  return Buffer.concat([
    Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`, "latin1"),
    body,
  ])
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[random.below(from.length)]!
}
