/** The description of the API: whole, valid, and true of real answers. */
import { Validator } from "@seriousme/openapi-schema-validator"
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ERRORS, type ErrorCode } from "../../errors.ts"
import { ServiceHost } from "../../serve/service.ts"
import { buildServer } from "../server.ts"
import { testServer } from "../testing.ts"
import { openapiDocument } from "./document.ts"
import type { JsonSchema } from "./json-schema.ts"
import type { Example, Needs } from "./operation.ts"
import { OPERATIONS } from "./operations.ts"

const CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "Oslo"}}\n</tool_call>'
const SCRIPTS: Record<string, string> = {
  "THINK.": "<think>\nWell, well.\n</think>\n\nYes.",
  "CALL.": `Let me look.\n${CALL}`,
  "BOTH.": `<think>Hm.</think>${CALL}`,
}
const ALL: ReadonlySet<Needs> = new Set(["generation", "tokens", "embeddings"])
const describedAs = (more: object = {}) =>
  openapiDocument({
    ...{ version: "1.2.3", has: ALL, hasKeys: true, needsKey: true, protect: [] },
    ...more,
  }) as Promise<Document>

interface Document {
  openapi: string
  info: { version: string }
  paths: Record<string, Record<string, Path>>
  components: { schemas: Record<string, JsonSchema>; securitySchemes?: object }
}
interface Path {
  operationId: string
  security?: object[]
  parameters?: object[]
  requestBody?: { content: { "application/json": { schema: JsonSchema; examples: Record<string, Example> } } }
  responses: Record<string, { description: string; content: Record<string, { schema: JsonSchema }> }>
}

let server: Awaited<ReturnType<typeof testServer>>
let document: Document
let schemas: Ajv2020
beforeAll(async () => {
  server = await testServer({
    limits: { contextTokens: 4096 },
    fake: {
      script: (_, prompt) => Object.entries(SCRIPTS).find(([name]) => prompt.includes(name))?.[1],
    },
  })
  document = (await server.app.inject("/openapi.json")).json()
  schemas = new Ajv2020({ strict: false, validateFormats: false })
  schemas.addSchema(closed(document) as object, "api")
})
afterAll(() => server.close())

/** The same with no room for fields that are not described. */
function closed(part: unknown): unknown {
  if (Array.isArray(part)) return part.map(closed)
  if (typeof part !== "object" || part === null) return part
  const own = Object.fromEntries(Object.entries(part).map(([name, value]) => [name, closed(value)]))
  const isObject = own.type === "object" && own.properties !== undefined
  return isObject && own.additionalProperties === undefined ? { ...own, additionalProperties: false } : own
}

const escaped = (part: string) => part.replaceAll("~", "~0").replaceAll("/", "~1")
const compiled = new Map<string, ValidateFunction>()
function schemaAt(...path: string[]): ValidateFunction {
  const ref = `api#/${path.map(escaped).join("/")}`
  const found = compiled.get(ref) ?? schemas.compile({ $ref: ref })
  compiled.set(ref, found)
  return found
}
function expectFits(value: unknown, ...path: string[]): void {
  const fits = schemaAt(...path)
  expect(fits(value), `${JSON.stringify(fits.errors)} of ${JSON.stringify(value)}`).toBe(true)
}

describe("the document", () => {
  it("is valid OpenAPI 3.1, of this package's version", async () => {
    expect(document.openapi).toMatch(/^3\.1\./)
    expect(document.info.version).toBe((await server.app.inject("/version")).json().version)
    for (const one of [document, await describedAs(), await describedAs({ has: new Set() })]) {
      const { valid, errors } = await new Validator().validate(structuredClone(one) as never)
      expect(valid, JSON.stringify(errors)).toBe(true)
    }
  })

  it("has every route of the server, and no other", async () => {
    const app = buildServer({ host: new ServiceHost() })
    const routes = new Set<string>()
    app.addHook("onRoute", ({ method, url }) => {
      for (const one of [method].flat()) if (one !== "HEAD") routes.add(`${one} ${url}`)
    })
    await app.ready()
    await app.close()
    expect(routes.size).toBeGreaterThan(20)
    const told = OPERATIONS.map(({ method, path, route = path }) => `${method.toUpperCase()} ${route}`)
    expect(told.sort()).toEqual([...routes].sort())
  })

  it("has names that are unique, and a text for every field of a request", () => {
    const ids = OPERATIONS.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    const requests = Object.keys(document.components.schemas).filter((name) => name.endsWith("Request"))
    expect(requests.length).toBeGreaterThan(7)
    for (const name of [...requests.filter((one) => one !== "ExplainedRequest"), "Slo"])
      for (const [field, schema] of Object.entries(document.components.schemas[name]!.properties as object))
        expect(schema.description, `${name}.${field}`).toBeTruthy()
  })

  it("says what is not supported, and what instead", () => {
    const { functions, best_of } = document.components.schemas.ChatCompletionRequest!.properties as Record<
      string,
      JsonSchema
    >
    expect(functions).toMatchObject({ type: "null", description: "Not supported: use tools." })
    expect(best_of!.description).toMatch(/^Not supported other than 1: /)
  })

  it("has every error that a client can get", async () => {
    const full = await describedAs({ protect: ["status"] })
    const told = JSON.stringify(full.paths)
    const cli = ["port_in_use", "cannot_listen", "config_not_readable", "config_invalid"]
    // Of URLs that are none of the document's.
    const elsewhere = ["unknown_url", "method_not_allowed"]
    for (const code of Object.keys(ERRORS) as ErrorCode[])
      if (![...cli, ...elsewhere].includes(code)) expect(told, code).toContain(`\`${code}\``)
  })

  it("has objectives in headers, with units and bounds", () => {
    const { parameters } = document.components as unknown as { parameters: Record<string, JsonSchema> }
    expect(parameters["x-llm-d-slo-ttft-ms"]).toMatchObject({
      in: "header",
      description: expect.stringContaining("milliseconds"),
      schema: { type: "number", minimum: 1, maximum: 3_600_000 },
    })
    for (const name of ["ttft", "tpot", "thinking-tpot", "max-gap"])
      expect(parameters).toHaveProperty([`x-slo-${name}-ms`])
    const { parameters: own } = document.paths["/v1/chat/completions"]!.post!
    expect(own).toContainEqual({ $ref: "#/components/parameters/x-llm-d-slo-tpot-ms" })
  })
})

describe("what a server has", () => {
  it("is all that is described", async () => {
    const planner = await describedAs({ has: new Set() })
    expect(Object.keys(planner.paths)).toContain("/v1/slo/requests")
    expect(Object.keys(planner.paths)).not.toContain("/v1/chat/completions")
    const gateway = await describedAs({ has: new Set(["generation"]) })
    expect(Object.keys(gateway.paths)).toContain("/v1/messages")
    for (const path of ["/tokenize", "/tokenizer_info", "/v1/messages/count_tokens", "/v1/embeddings"])
      expect(Object.keys(gateway.paths)).not.toContain(path)
  })

  it("wants keys only where there are some", async () => {
    expect(document.components.securitySchemes).toBeUndefined()
    expect(document.paths["/v1/chat/completions"]!.post!.security).toBeUndefined()
    expect(document.paths["/v1/chat/completions"]!.post!.responses).not.toHaveProperty("401")

    const keys = await describedAs({ protect: ["metrics"] })
    expect(Object.keys(keys.components.securitySchemes!)).toEqual(["bearer", "apiKey"])
    const securityOf = (path: string, of = keys) => of.paths[path]!.get!.security
    expect(securityOf("/v1/models")).toEqual([{ bearer: [] }, { apiKey: [] }])
    expect(securityOf("/metrics")).toEqual([{ bearer: [] }, { apiKey: [] }])
    expect(securityOf("/health")).toEqual([])
    expect(securityOf("/openapi.json")).toEqual([])
    expect(keys.paths["/v1/models"]!.get!.responses).toHaveProperty("401")
    expect(keys.paths["/health"]!.get!.responses).not.toHaveProperty("401")
    const some = await describedAs({ needsKey: false })
    expect(securityOf("/v1/models", some)).toContainEqual({})
  })

  it("is told by the server as it is configured", async () => {
    const guarded = await testServer({
      tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-a"] }] } as object,
      protect: ["status"],
    })
    try {
      const told: Document = (await guarded.app.inject("/openapi.json")).json()
      expect(told.paths["/v1/slo/status"]!.get!.security).toEqual([{ bearer: [] }, { apiKey: [] }])
      const refused = await guarded.app.inject("/v1/models")
      expect(refused.statusCode).toBe(401)
      expectFits(refused.json(), "components", "schemas", "Error")
    } finally {
      await guarded.close()
    }
  })
})

describe("answers fit", () => {
  const tools = [{ type: "function", function: { name: "look", parameters: { type: "object" } } }]
  const say = (content: string) => ({ messages: [{ role: "user", content }], max_tokens: 60 })
  const CHATS = [
    say("hi"),
    { ...say("hi"), n: 2, priority: 1 },
    { ...say("hi"), logprobs: true, top_logprobs: 2 },
    { ...say("hi"), slo: { ttft_ms: 1, tpot_ms: 0.01, max_gap_ms: 1 } },
    { ...say("hi"), service_tier: "flex" },
    { ...say("THINK."), reasoning: true },
    { ...say("CALL."), tools },
    { ...say("BOTH."), tools, reasoning: true, slo: { thinking_tpot_ms: 100 } },
  ]
  const COMPLETIONS = [
    { prompt: "hi" },
    { prompt: ["hi", "ho"], logprobs: 2, echo: true },
    { prompt: "hi there", max_tokens: 0, logprobs: 1, echo: true },
  ]
  const own = [{ type: "function", name: "look", parameters: { type: "object" } }]
  const RESPONSES = [
    { input: "hi", metadata: { a: "b" } },
    { input: "THINK.", reasoning: { effort: "low" }, include: ["reasoning.encrypted_content"] },
    { input: "THINK.", reasoning: { effort: "low", summary: "auto" } },
    { input: "CALL.", tools: own, tool_choice: "auto", max_tool_calls: 3 },
    { input: "hi", max_output_tokens: 3, top_logprobs: 1, include: ["message.output_text.logprobs"] },
  ]
  const schema = { type: "object" }
  const MESSAGES = [
    say("hi"),
    { ...say("THINK."), thinking: { type: "enabled", budget_tokens: 50 } },
    { ...say("CALL."), tools: [{ name: "look", input_schema: schema }] },
    { ...say("hi"), max_tokens: 3 },
    { ...say("x".repeat(4000)), max_tokens: 5000, ignore_eos: true },
  ]
  const ASKED: [string, object][] = [
    ...CHATS.map((body): [string, object] => ["/v1/chat/completions", body]),
    ...COMPLETIONS.map((body): [string, object] => ["/v1/completions", body]),
    ...RESPONSES.map((body): [string, object] => ["/v1/responses", body]),
    ...MESSAGES.map((body): [string, object] => ["/v1/messages", body]),
  ]

  const responseAt = (path: string, method: string, type: string) =>
    ["paths", path, method, "responses", "200", "content", type, "schema"] as const
  const post = (url: string, payload: object) => server.app.inject({ method: "POST", url, payload })

  it.each(ASKED)("POST %s %j", async (url, body) => {
    const whole = await post(url, body)
    expect(whole.statusCode, whole.body).toBe(200)
    expectFits(whole.json(), ...responseAt(url, "post", "application/json"))
  })

  it.each(ASKED)("POST %s %j, streamed", async (url, body) => {
    const options = url.endsWith("completions") && { stream_options: { include_usage: true } }
    const streamed = await post(url, { ...body, stream: true, ...options })
    const events = eventsOf(streamed.body)
    expect(events.length).toBeGreaterThan(2)
    for (const event of events) expectFits(event, ...responseAt(url, "post", "text/event-stream"))
  })

  it.each([
    ["/v1/embeddings", { input: "hi" }],
    ["/v1/embeddings", { input: ["hi", "ho"], encoding_format: "base64" }],
    ["/v1/messages/count_tokens", { messages: say("hi").messages }],
    ["/tokenize", { prompt: "hi", return_token_strs: true }],
    ["/tokenize", { content: "hi ü", with_pieces: true }],
    ["/tokenize", { content: "hi" }],
    ["/detokenize", { tokens: [1, 2] }],
  ])("POST %s %j", async (url, body) => {
    const answer = await post(url, body)
    expect(answer.statusCode, answer.body).toBe(200)
    expectFits(answer.json(), ...responseAt(url, "post", "application/json"))
  })

  it("of all that can be got", async () => {
    const kept = (await post("/v1/responses", { input: "hi" })).json().id
    await post("/v1/chat/completions", { ...say("hi"), slo: { ttft_ms: 1, tpot_ms: 0.01 } })
    const missed = (await server.app.inject("/v1/slo/requests?missed")).json()
    expect(missed.requests.length).toBeGreaterThan(0)
    for (const [path, url = path] of [
      ["/v1/models"],
      ["/v1/models/{model}", "/v1/models/fake"],
      ["/v1/models/{model}", "/v1/models/fake:chat"],
      ["/v1/responses/{id}", `/v1/responses/${kept}`],
      ["/v1/responses/{id}/input_items", `/v1/responses/${kept}/input_items?order=asc&limit=5`],
      ["/v1/slo/requests", "/v1/slo/requests?missed"],
      ["/v1/slo/requests"],
      ["/v1/slo/requests/{id}", `/v1/slo/requests/${missed.requests[0].id}`],
      ...[["/tokenizer_info"], ["/v1/slo/status"], ["/health"], ["/ready"], ["/version"], ["/openapi.json"]],
    ] as [string, string?][]) {
      const answer = await server.app.inject(url)
      expect(answer.statusCode, url).toBe(200)
      expectFits(answer.json(), ...responseAt(path, "get", "application/json"))
    }
    for (const [path, type] of [
      ["/metrics", "text/plain"],
      ["/", "text/html"],
      ["/v1/slo/arrivals", "application/x-ndjson"],
    ] as const) {
      const answer = await server.app.inject(path)
      expect(String(answer.headers["content-type"])).toContain(type)
      expectFits(answer.body, ...responseAt(path, "get", type))
    }
    const gone = await server.app.inject({ method: "DELETE", url: `/v1/responses/${kept}` })
    expectFits(gone.json(), ...responseAt("/v1/responses/{id}", "delete", "application/json"))
  })

  it("of failures", async () => {
    const wrong = await post("/v1/chat/completions", { messages: 1 })
    expect(wrong.statusCode).toBe(400)
    expectFits(wrong.json(), "components", "schemas", "Error")
    const anthropic = await post("/v1/messages", { messages: 1 })
    expectFits(anthropic.json(), "components", "schemas", "AnthropicError")
  })
})

describe("requests", () => {
  const bodies = OPERATIONS.flatMap(({ path, body }) => (body === undefined ? [] : [{ path, ...body }]))
  const fits = (path: string, value: unknown) =>
    schemaAt("paths", path, "post", "requestBody", "content", "application/json", "schema")(value)
  const examples = bodies.flatMap(({ path, examples }) =>
    Object.entries(examples).map(([name, { value }]): [string, string, object] => [path, name, value]),
  )

  it.each(examples)("%s: the example %s is one, and is answered", async (path, _name, value) => {
    expectFits(value, "paths", path, "post", "requestBody", "content", "application/json", "schema")
    const answer = await server.app.inject({ method: "POST", url: path, payload: value })
    expect(answer.statusCode, answer.body).toBe(200)
  })

  const say = { messages: [{ role: "user", content: "hi" }] }
  it.each([
    ["/v1/chat/completions", { ...say, temperature: 3 }],
    ["/v1/chat/completions", { messages: [] }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: [{ type: "image_url" }] }] }],
    ["/v1/chat/completions", { ...say, slo: { ttft: 1 } }],
    ["/v1/chat/completions", { ...say, tools: [{ type: "function", function: {} }] }],
    ["/v1/chat/completions", { ...say, seed: 1.5 }],
    ["/v1/chat/completions", { ...say, functions: [] }],
    ["/v1/chat/completions", { ...say, logit_bias: { a: 1 } }],
    ["/v1/completions", { prompt: [1.5] }],
    ["/v1/responses", { input: [{ role: "user" }] }],
    ["/v1/responses", { input: [{ type: "web_search_call" }] }],
    ["/v1/messages", { messages: [{ role: "user", content: [{ type: "tool_use" }] }], max_tokens: 5 }],
    ["/v1/messages", say],
    ["/v1/embeddings", { input: "hi", dimensions: 3 }],
    ["/detokenize", { tokens: ["a"] }],
  ])("%s: %j is refused, and does not fit", async (path, value) => {
    expect((await server.app.inject({ method: "POST", url: path, payload: value })).statusCode).toBe(400)
    expect(fits(path, value)).toBe(false)
  })

  it.each([
    ["/v1/chat/completions", { ...say, seed: 12345, logit_bias: { 5: 1 }, stop: "x" }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: [{ type: "text", text: "hi" }] }] }],
    ["/v1/completions", { prompt: [[1, 2], [3]], max_tokens: 2 }],
    ["/v1/responses", { input: [{ role: "user", content: "hi" }] }],
    ["/v1/messages", { ...say, max_tokens: 5, system: [{ type: "text", text: "Be brief." }] }],
  ])("%s: %j is answered, and fits", async (path, value) => {
    const answer = await server.app.inject({ method: "POST", url: path, payload: value })
    expect(answer.statusCode, answer.body).toBe(200)
    expectFits(value, "paths", path, "post", "requestBody", "content", "application/json", "schema")
  })
})

/** What a stream's events have: JSON, but for the last of OpenAI's. */
function eventsOf(body: string): unknown[] {
  return body
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice("data: ".length))
    .map((data) => (data === "[DONE]" ? data : JSON.parse(data)))
}
