/** GET /v1/slo/requests: what is said of each request, and which clients may see it. */
import { pino } from "pino"
import { afterEach, describe, expect, it } from "vitest"
import type { AnswerJson, PartsJson } from "../explain/json.ts"
import { until } from "../serve/until-testing.ts"
import { type TestServerOptions, testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
afterEach(() => server.close())

const serving = async (options: TestServerOptions = {}) => {
  server = await testServer(options)
}
const get = async (url: string, headers: Record<string, string> = {}) => {
  const answer = await server.app.inject({ url, headers })
  return { status: answer.statusCode, body: answer.json() }
}
const complete = (body: object = {}, headers: Record<string, string> = {}) =>
  server.app.inject({
    ...{ method: "POST", url: "/v1/completions", headers },
    payload: { prompt: "hi", max_tokens: 5, ignore_eos: true, ...body },
  })
/** They are told of in a later turn than the answer's end. */
const told = (answers = 1, headers: Record<string, string> = {}) =>
  until(async () =>
    expect((await get("/v1/slo/requests?limit=1000", headers)).body.requests).toHaveLength(answers),
  )
const sumOf = (parts: PartsJson) => Object.values(parts).reduce((sum, ms) => sum + ms, 0)

describe("a request", () => {
  it("is found by its response's id and by its header, with parts that add up to its time", async () => {
    await serving()
    const response = await complete({ slo: { ttft_ms: 60_000, tpot_ms: 10_000 } })
    await told()
    const { metrics, id } = response.json()
    for (const name of [id, response.headers["x-request-id"]]) {
      const { status, body } = await get(`/v1/slo/requests/${name}`)
      expect([status, body.answers.length]).toEqual([200, 1])
      const [answer] = body.answers as [AnswerJson]
      expect(answer).toMatchObject({
        ...{ id: response.headers["x-request-id"], tenant: "default", class: "chat", end: "length" },
        ...{ attained: true, reason: null, output_tokens: 5, e2e_ms: metrics.e2e_ms },
        time_to_first_token_ms: metrics.time_to_first_token_ms,
      })
      expect(sumOf(answer.time!)).toBeCloseTo(metrics.e2e_ms, 6)
      expect(sumOf(answer.time_to_first_token!)).toBeCloseTo(metrics.time_to_first_token_ms, 6)
      expect(answer.decisions.map(({ what }) => what)).toEqual(["promised"])
    }
    expect(metrics.slo.reason).toBeNull()
  })

  it("that missed says why in its response, the same as when it is asked for", async () => {
    await serving({ fake: { cost: { ...COST, pieces: [{ step: 30_000, tokens: 5 }] } } })
    const response = await complete({ slo: { ttft_ms: 5, tpot_ms: 1 } })
    await told()
    const { reason } = response.json().metrics.slo
    // What took most of it is the machine's to say.
    expect(reason).toMatchObject({
      code: expect.stringMatching(/own_work|slow_engine|server|before/),
      bound: null,
    })
    expect(reason.text).toMatch(/the first token was .* late by its TTFT: .* took/)
    expect(reason.would_have_kept.ttft_ms).toBe(response.json().metrics.time_to_first_token_ms)
    const { body } = await get("/v1/slo/requests?missed")
    expect(body.requests).toHaveLength(1)
    expect(body.requests[0].reason).toEqual(reason)
    expect(body.requests[0].decisions[0]).toMatchObject({
      what: "turned_down",
      reason: "wont_fit",
      bound: "alone",
    })
  })

  it("with several answers has all of them, and one line in the log", async () => {
    const lines: Record<string, unknown>[] = []
    await serving({ logger: loggerInto(lines) })
    const response = await complete({ n: 3, slo: { ttft_ms: 60_000, tpot_ms: 10_000 } })
    await told(3)
    const { body } = await get(`/v1/slo/requests/${response.json().id}`)
    expect(body.answers.map(({ choice, choices }: AnswerJson) => [choice, choices]).sort()).toEqual([
      ...[
        [0, 3],
        [1, 3],
        [2, 3],
      ],
    ])
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatchObject({
      ...{ id: response.headers["x-request-id"], tenant: "default", class: "chat", end: "length" },
      ...{ output_tokens: 15, kept: true },
    })
    expect(lines[0]).toHaveProperty("ttft_ms")
    expect(lines[0]).toHaveProperty("max_gap_ms")
  })

  it("that finds the queue full is there too, with the wait that its client was told of", async () => {
    const lines: Record<string, unknown>[] = []
    await serving({ maxQueue: 1, logger: loggerInto(lines) })
    const refused = await complete({ n: 1, prompt: ["a", "b"] })
    expect(refused.statusCode).toBe(429)
    await told(2)
    const { body } = await get(`/v1/slo/requests/${refused.headers["x-request-id"]}`)
    expect(body.answers).toHaveLength(2)
    expect(body.answers[0]).toMatchObject({
      end: "refused",
      attained: false,
      time: null,
      output_tokens: null,
    })
    expect(body.answers[0].error.code).toBe(refused.json().error.code)
    expect(lines).toMatchObject([{ end: "refused", kept: false, reason: refused.json().error.code }])
  })

  it("that asks for what cannot be served is no miss", async () => {
    await serving()
    const wrong = await complete({ max_tokens: 100_000 }, { "x-request-id": "long" })
    expect(wrong.statusCode).toBe(400)
    await told()
    const { body } = await get("/v1/slo/requests/long")
    expect(body.answers[0]).toMatchObject({ end: "invalid", attained: null })
    expect((await get("/v1/slo/requests?missed")).body.requests).toEqual([])
  })

  it("that was refused says when there should be room", async () => {
    await serving({ maxQueue: 1, fake: { cost: { ...COST, pieces: [{ step: 20_000, tokens: 5 }] } } })
    const first = complete({ max_tokens: 100, slo: { class: "best_effort" } })
    await expect.poll(() => server.driver.queue.taken).toBe(1)
    const refused = await complete({ slo: { class: "best_effort" } })
    expect([refused.statusCode, refused.json().error.code]).toEqual([429, "queue_full"])
    const { expected_wait_ms } = refused.json().metrics
    expect(expected_wait_ms).toBeGreaterThan(0)
    expect(Number(refused.headers["retry-after-ms"])).toBeGreaterThanOrEqual(expected_wait_ms)
    await told(2)
    const { body } = await get(`/v1/slo/requests/${refused.headers["x-request-id"]}`)
    expect(body.answers[0].expected_wait_ms).toBe(expected_wait_ms)
    await first
  })
})

describe("the list", () => {
  it("has the last first, within the limit and since a time", async () => {
    await serving()
    for (const id of ["a", "b", "c"]) await complete({}, { "x-request-id": id })
    await told(3)
    const ids = async (query: string) =>
      (await get(`/v1/slo/requests${query}`)).body.requests.map(({ id }: AnswerJson) => id)
    expect(await ids("")).toEqual(["c", "b", "a"])
    expect(await ids("?limit=2")).toEqual(["c", "b"])
    expect(await ids("?since=2000-01-01T00:00:00Z&limit=1000")).toEqual(["c", "b", "a"])
    expect(await ids(`?since=${Date.now() / 1000 + 100}`)).toEqual([])
    expect(await ids("?missed=false")).toEqual(["c", "b", "a"])
  })

  it.each([
    ["?limit=0", "limit"],
    ["?limit=1001", "limit"],
    ["?limit=x", "limit"],
    ["?since=yesterday", "since"],
    ["?missed=maybe", "missed"],
    ["?missed&missed", "missed"],
    ["?tenant=a", "tenant"],
  ])("refuses %s and names what is wrong", async (query, param) => {
    await serving()
    const { status, body } = await get(`/v1/slo/requests${query}`)
    expect([status, body.error.code, body.error.param]).toEqual([400, "invalid_value", param])
  })

  it("says which it has when one is asked for that it has not", async () => {
    await serving()
    await complete()
    await told()
    const { status, body } = await get("/v1/slo/requests/none")
    expect([status, body.error.code]).toEqual([404, "request_not_found"])
    expect(body.error.message).toMatch(/`none` among the last 1 answers/)
  })
})

describe("with keys", () => {
  const tenancy = {
    tenants: ["a", "b"].map((name) => ({ name, weight: 1, keys: [`key-${name}`] })),
  }
  const by = (name: string) => ({ authorization: `Bearer key-${name}` })

  it("each tenant sees its own requests, and none without a key", async () => {
    await serving({ tenancy })
    await complete({}, { ...by("a"), "x-request-id": "of-a" })
    await complete({}, { ...by("b"), "x-request-id": "of-b" })
    await told(1, by("a"))
    await told(1, by("b"))
    const { body } = await get("/v1/slo/requests", by("a"))
    expect(body.requests.map(({ id }: AnswerJson) => id)).toEqual(["of-a"])
    expect((await get("/v1/slo/requests/of-a", by("a"))).status).toBe(200)
    expect((await get("/v1/slo/requests/of-a", by("b"))).body.error.code).toBe("request_not_found")
    for (const url of ["/v1/slo/requests", "/v1/slo/requests/of-a"]) expect((await get(url)).status).toBe(401)
  })
})

const COST = { pieces: [], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }

/** Takes the lines of requests. */
function loggerInto(lines: Record<string, unknown>[]) {
  return pino(
    { level: "info" },
    {
      write: (text: string) => {
        const line = JSON.parse(text) as Record<string, unknown>
        if (line.msg === "request") lines.push(line)
      },
    },
  )
}
