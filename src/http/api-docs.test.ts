/** docs/api.md says what is: fields, headers, errors, metrics and examples are checked against the code. */
import { readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ERRORS } from "../errors.ts"
import { startAdvisor } from "../serve/scale.ts"
import { messagesSchema } from "./anthropic/schema.ts"
import { bodyLimits, MOST_DEPTH, MOST_NAME_BYTES, MOST_NUMBER_CHARACTERS } from "./limits.ts"
import { responsesSchema } from "./responses/schema.ts"
import { chatSchema, completionSchema } from "./schemas.ts"
import { testServer } from "./testing.ts"

const ROOT = resolve(import.meta.dirname, "../..")
const page = readFileSync(join(ROOT, "docs/api.md"), "utf8")
const section = (title: string) => page.split(/^## /m).find((part) => part.startsWith(title))!
const quoted = (text: string) => [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!)
/** First cells of a section's tables, as the names in them. */
const listed = (text: string) =>
  text
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => quoted(line.split(" | ")[0]!))

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer()
  const { service } = server
  service.advisedBy(startAdvisor(service, {}, () => {}))
})
afterAll(() => server.close())

describe("fields", () => {
  const sloFields = Object.keys(chatSchema.shape.slo.unwrap().unwrap().shape)
  const fields = new Set([...Object.keys(chatSchema.shape), ...Object.keys(completionSchema.shape)])

  it("has every field of a request, and no other", () => {
    const told = quoted(section("Request fields"))
    for (const field of fields) expect(told, field).toContain(field)
    for (const field of listed(section("Request fields"))) expect(fields).toContain(field)
  })

  it.each([
    ["Responses", responsesSchema],
    ["Messages", messagesSchema],
  ])("has every field of %s, and no other", (title, schema) => {
    const own = section(title)
    const told = [...quoted(own), ...quoted(section("Request fields"))]
    for (const field of Object.keys(schema.shape)) expect(told, field).toContain(field)
    for (const field of listed(own)) expect(Object.keys(schema.shape)).toContain(field)
  })

  it("has every field of `slo`, and no other", () => {
    expect(listed(section("What a request wants"))).toEqual(sloFields)
  })

  it("has every field of `metrics`, and no other", async () => {
    const payload = { messages: [{ role: "user", content: "hi" }], priority: 1 }
    const answer = await server.app.inject({ method: "POST", url: "/v1/chat/completions", payload })
    const { metrics } = answer.json()
    const { slo, ...rest } = metrics
    const names = [...Object.keys(rest), ...Object.keys(slo).map((name) => `slo.${name}`)]
    const told = section("What comes back")
    expect(listed(told).sort()).toEqual(names.sort())
    for (const name of Object.keys(slo.stages[0])) expect(quoted(told)).toContain(name)
  })
})

it("has every error that a client can get, with its status", () => {
  const rows = section("Errors").matchAll(/^\| (\d+) \| ([^|]+) \|/gm)
  const told = new Map([...rows].flatMap((row) => quoted(row[2]!).map((code) => [code, Number(row[1])])))
  const cli = ["port_in_use", "cannot_listen", "config_not_readable", "config_invalid"]
  for (const [code, { status }] of Object.entries(ERRORS))
    if (!cli.includes(code)) expect(told.get(code), code).toBe(status)
  for (const code of told.keys()) expect(Object.keys(ERRORS)).toContain(code)
})

it("has every limit of a body's parts", () => {
  const told = section("Limits")
  for (const { at, entries } of bodyLimits(null)) {
    const row = told.split("\n").find((line) => line.startsWith(at === "" ? "| the body" : `| \`${at}\``))
    expect(row, at).toBeDefined()
    if (entries !== undefined && !["prompt", "prompt[]", "input", "input[]", "tokens"].includes(at))
      expect(row, at).toMatch(new RegExp(`\\b${entries}\\b`))
  }
  for (const number of [MOST_DEPTH, MOST_NAME_BYTES, MOST_NUMBER_CHARACTERS])
    expect(told).toMatch(new RegExp(`\\b${number}\\b`))
})

it("names only headers that the code knows", () => {
  const code = ["http", "http/routes", "serve"]
    .flatMap((folder) =>
      readdirSync(join(ROOT, "src", folder)).map((file) => join(ROOT, "src", folder, file)),
    )
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .map((file) => readFileSync(file, "utf8"))
    .join()
  const headers = [...new Set(page.match(/\bx-[a-z-]+[a-z]|\bretry-after[a-z-]*/g))]
  expect(headers.length).toBeGreaterThan(8)
  for (const header of headers) {
    const stem = header.replace(/^x-(llm-d-)?(?=slo-)/, "")
    // Headers of objectives are made of the fields' names.
    const field = stem.replace(/^slo-/, "").replaceAll("-", "_")
    const spellings = stem.startsWith("slo-") ? [header, stem, field] : [header]
    expect(
      spellings.some((one) => code.includes(`"${one}"`)),
      header,
    ).toBe(true)
  }
})

it("has every metric, and no other", async () => {
  const text = (await server.app.inject("/metrics")).body
  const names = [...text.matchAll(/^# TYPE ((?:vllm:|slos_serve_)\S+)/gm)].map((match) => match[1]!)
  const told = new Set(section("Metrics").match(/(?:vllm:|slos_serve_)\w+/g))
  expect([...told].sort()).toEqual(names.sort())
})

describe("examples", () => {
  const examples = [...page.matchAll(/curl http:\/\/[^/]+(\S+) .*?-d '([\s\S]*?)'\n/g)]
  it.each(examples.map((match) => [match[1]!, match[2]!]))("curl %s %s", async (url, body) => {
    const answer = await server.app.inject({ method: "POST", url, payload: JSON.parse(body) })
    expect(answer.statusCode, answer.body).toBe(200)
  })

  it.each([
    "/v1/models",
    "/v1/slo/status",
    "/v1/slo/arrivals",
    "/v1/slo/requests",
    "/tokenizer_info",
    "/version",
    "/openapi.json",
    "/metrics",
    "/health",
    "/ready",
    "/",
  ])("GET %s", async (url) => {
    expect(page).toContain(`\`GET ${url}\``)
    expect((await server.app.inject(url)).statusCode).toBe(200)
  })
})
