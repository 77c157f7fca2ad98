/** API keys over the API: where they are read, what they may ask for, and how much of it in a minute. */
import OpenAI from "openai"
import { afterEach, expect, it } from "vitest"
import { digestOf } from "../config/api-keys.ts"
import { parseConfig } from "../config/file.ts"
import type { TenantOptions } from "../serve/tenants.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>

let server: Server
afterEach(() => server.close())

const key = (name: string, rules: string) => `  ${name}: {hash: "sha256:${digestOf(`sk-${name}`)}"${rules}}\n`

async function serving(text: string, more: TenantOptions = {}, listen = false): Promise<void> {
  const { tenants, keys } = parseConfig(text, "x")
  server = await testServer({ tenancy: { tenants, keys, ...more }, listen })
}

const by = (name: string) => ({ authorization: `Bearer sk-${name}` })
const complete = (headers: Record<string, string>, body: object = {}) =>
  server.app.inject({
    ...{ method: "POST", url: "/v1/completions", headers },
    payload: { prompt: "hi", max_tokens: 4, ...body },
  })
const codeOf = async (answer: ReturnType<typeof complete>) => {
  const { statusCode, body } = await answer
  return [statusCode, (JSON.parse(body) as { error?: { code: string } }).error?.code ?? null]
}

it("are known by their hashes, as OpenAI's and Anthropic's clients send them", async () => {
  await serving(
    `tenants:\n  team: {weight: 3, key: sk-plain}\nkeys:\n${key("a", ", tenant: team")}${key("b", ", weight: 2")}`,
  )
  const tenantOf = async (headers: Record<string, string>) => {
    const answer = await complete(headers)
    if (answer.statusCode !== 200) return answer.json().error.code
    const { service } = server
    await new Promise((resolve) => setImmediate(resolve))
    return service.explainer.journal.recent({ missed: false, most: 1, tenant: null })[0]?.tenant
  }
  expect(await tenantOf(by("a"))).toBe("team")
  expect(await tenantOf({ "x-api-key": "sk-b" })).toBe("b")
  expect(await tenantOf(by("plain"))).toBe("team")
  expect(await tenantOf({ "x-api-key": "sk-c" })).toBe("invalid_api_key")
  expect(await tenantOf({ authorization: "Basic abc" })).toBe("missing_api_key")
  // What a hash looks like is no key.
  expect(await tenantOf({ "x-api-key": `sha256:${digestOf("sk-a")}` })).toBe("invalid_api_key")
  expect(server.host.tenants.weightOf("b")).toBe(2)
  const wrong = await complete(by("z"))
  expect(wrong.headers["www-authenticate"]).toBe("Bearer")
  expect(wrong.body).not.toContain("sk-z")
})

it("may use their classes only", async () => {
  await serving(`keys:\n${key("a", ", classes: [chat, best_effort]")}${key("b", "")}`)
  expect(await codeOf(complete(by("a")))).toEqual([200, null])
  expect(await codeOf(complete(by("a"), { slo: { class: "best_effort" } }))).toEqual([200, null])
  expect(await codeOf(complete(by("a"), { slo: { class: "code" } }))).toEqual([403, "class_not_allowed"])
  expect(await codeOf(complete(by("a"), { model: "fake:code" }))).toEqual([403, "class_not_allowed"])
  expect(await codeOf(complete({ ...by("a"), "x-llm-d-inference-objective": "code" }))).toEqual([
    403,
    "class_not_allowed",
  ])
  expect(await codeOf(complete(by("b"), { slo: { class: "code" } }))).toEqual([200, null])
  // Before a stream begins.
  expect(await codeOf(complete(by("a"), { stream: true, slo: { class: "code" } }))).toEqual([
    403,
    "class_not_allowed",
  ])
})

it("ask for objectives within their bounds, however they say them", async () => {
  await serving(
    `keys:\n${key("a", ", tightest: {ttft: 500ms, tpot: 50ms}")}${key("b", ", tightest: {ttft_slowdown: 4, max_gap: 1s}")}`,
  )
  const refused = [403, "objective_too_tight"]
  const fine = [200, null]
  expect(await codeOf(complete(by("a"), { slo: { ttft_ms: 500, tpot_ms: 50 } }))).toEqual(fine)
  expect(await codeOf(complete(by("a"), { slo: { ttft_ms: 499 } }))).toEqual(refused)
  expect(await codeOf(complete(by("a"), { slo: { tpot_ms: 49 } }))).toEqual(refused)
  expect(await codeOf(complete(by("a"), { slo: { thinking_tpot_ms: 49 } }))).toEqual(refused)
  expect(await codeOf(complete({ ...by("a"), "x-slo-tpot-ms": "49" }))).toEqual(refused)
  expect(await codeOf(complete(by("a"), { vllm_xargs: { slo_ttft_ms: 499 } }))).toEqual(refused)
  // Neither a multiple nor a gap goes around the bounds.
  expect(await codeOf(complete(by("a"), { slo: { ttft_slowdown: 100 } }))).toEqual(refused)
  expect(await codeOf(complete(by("a"), { slo: { max_gap_ms: 49 } }))).toEqual(refused)
  expect(await codeOf(complete(by("a"), { slo: { max_gap_ms: 50 } }))).toEqual(fine)
  // Its class's own are the operator's word.
  expect(await codeOf(complete(by("a"), { slo: { class: "code" } }))).toEqual(fine)
  expect(await codeOf(complete(by("b"), { slo: { ttft_slowdown: 3.9 } }))).toEqual(refused)
  expect(await codeOf(complete(by("b"), { slo: { ttft_slowdown: 4 } }))).toEqual(fine)
  expect(await codeOf(complete(by("b"), { slo: { max_gap_ms: 999 } }))).toEqual(refused)
  const { error } = (await complete(by("a"), { slo: { ttft_ms: 20 } })).json()
  expect(error.message).toContain("asks for a TTFT of 20 ms; your API key has 500 ms at the least")
})

it.each([
  ["all", [200, 200, 403]],
  ["keys", [403, 200, 403]],
  ["none", [403, 403, 403]],
] as const)("with objectives from %s", async (objectives, statuses) => {
  await serving(`keys:\n${key("a", "")}${key("b", ", objectives: false")}${key("c", ", objectives: true")}`, {
    ...{ objectives, requireKey: false },
  })
  const asks = { slo: { tpot_ms: 70 } }
  const got = []
  for (const headers of [{}, by("a"), by("b")]) got.push((await complete(headers, asks)).statusCode)
  expect(got).toEqual(statuses)
  expect((await complete(by("c"), asks)).statusCode).toBe(200)
  // Classes and best effort are no objectives of one's own.
  expect((await complete({}, { slo: { class: "code" } })).statusCode).toBe(200)
  expect((await complete({}, { service_tier: "flex" })).statusCode).toBe(200)
})

it("have so many requests a minute, told in headers, also of streams", async () => {
  await serving(`keys:\n${key("a", ", requests_per_minute: 3")}${key("b", "")}`, {}, true)
  const first = await complete(by("a"))
  expect(first.headers).toMatchObject({
    "x-ratelimit-limit-requests": "3",
    "x-ratelimit-remaining-requests": "2",
  })
  expect(first.headers["x-ratelimit-limit-tokens"]).toBeUndefined()
  const body = JSON.stringify({ prompt: "hi", max_tokens: 4, stream: true })
  const headers = { "content-type": "application/json", ...by("a") }
  const stream = await fetch(`${server.url}/v1/completions`, { method: "POST", body, headers })
  expect(stream.headers.get("x-ratelimit-remaining-requests")).toBe("1")
  expect(await stream.text()).toContain("[DONE]")
  // What is refused counts as well, and reading does not.
  expect((await complete(by("a"), { max_tokens: -5 })).statusCode).toBe(400)
  expect((await server.app.inject({ url: "/v1/models", headers: by("a") })).statusCode).toBe(200)
  const refused = await complete(by("a"))
  expect([refused.statusCode, refused.json().error.code, refused.json().error.type]).toEqual([
    ...[429, "rate_limit_exceeded", "rate_limit_error"],
  ])
  expect(Number(refused.headers["retry-after"])).toBeGreaterThan(55)
  expect(refused.headers["x-ratelimit-remaining-requests"]).toBe("0")
  expect((await complete(by("b"))).statusCode).toBe(200)
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-a", maxRetries: 0 })
  await expect(client.completions.create({ model: "fake", prompt: "hi" })).rejects.toThrow(
    OpenAI.RateLimitError,
  )
  const { body: metrics } = await server.app.inject("/metrics")
  expect(metrics).toContain('slos_serve_tenant_limited_total{tenant="a"} 2\n')
})

it("have so many tokens a minute: what could come is held, what did not come is given back", async () => {
  await serving(`keys:\n${key("a", ", tokens_per_minute: 200")}`)
  const left = (answer: Awaited<ReturnType<typeof complete>>) =>
    Number(answer.headers["x-ratelimit-remaining-tokens"])
  const tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  const first = await complete(by("a"), { prompt: tokens, max_tokens: 50, ignore_eos: true })
  expect(left(first)).toBe(140)
  // Of 120 that could come, 20 did: the fake answers with so many.
  const second = await complete(by("a"), { prompt: tokens, max_tokens: 110 })
  expect(second.statusCode).toBe(200)
  expect(left(second)).toBe(20)
  const usage = second.json().usage.total_tokens as number
  expect(usage).toBeLessThan(60)
  const third = await complete(by("a"), { prompt: tokens, max_tokens: 5 })
  expect(left(third)).toBe(140 - usage - 15)
  const refused = await complete(by("a"), { prompt: tokens, max_tokens: 140 })
  expect([refused.statusCode, refused.json().error.code]).toEqual([429, "rate_limit_exceeded"])
  expect(Number(refused.headers["retry-after"])).toBeGreaterThan(55)
  const never = await complete(by("a"), { prompt: tokens, max_tokens: 191 })
  expect([never.statusCode, never.json().error.code, never.headers["x-should-retry"]]).toEqual([
    ...[429, "token_limit_too_small", "false"],
  ])
  // A request that fails gives all back.
  const wrong = await complete(by("a"), { prompt: [1e9], max_tokens: 9 })
  expect(wrong.statusCode).toBe(400)
  const last = await complete(by("a"), { prompt: tokens, max_tokens: 5 })
  expect(left(last)).toBe(140 - usage - 30)
})
