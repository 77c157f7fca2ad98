/** Tenants over the API: by key and by header, with promises, places, sessions and prefixes of their own. */
import { connect } from "node:net"
import OpenAI from "openai"
import { afterEach, describe, expect, it } from "vitest"
import type { TenantConfig } from "../config/tenants.ts"
import type { RequestSpec } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { BreakableEngine, VirtualClock } from "../replica/testing.ts"
import { MOST_NAMED } from "../serve/tenants.ts"
import { type TestServerOptions, testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
const FAIRNESS = "x-llm-d-inference-fairness-id"
const tenant = (name: string, weight = 1): TenantConfig => ({ name, weight, keys: [`key-${name}`] })
const A_AND_B = [tenant("a"), tenant("b")]

let server: Server
afterEach(() => server.close())

async function serving(options: TestServerOptions): Promise<Server> {
  server = await testServer(options)
  return server
}

/** What the core is told of each request. */
function specsOf({ driver }: Server): RequestSpec[] {
  const specs: RequestSpec[] = []
  const handle = driver.replica.handle.bind(driver.replica)
  driver.replica.handle = (event, nowUs) => {
    if (event.type === "arrived") specs.push(event.request)
    handle(event, nowUs)
  }
  return specs
}

const by = (name: string | null) => (name === null ? {} : { authorization: `Bearer key-${name}` })
const complete = (headers: Record<string, string>, body: object = {}) =>
  server.app.inject({
    ...{ method: "POST", url: "/v1/completions", headers },
    payload: { prompt: "hi", max_tokens: 4, ...body },
  })

describe("keys", () => {
  it("are asked for by every route of the API, however its URL is spelled, and by no other", async () => {
    await serving({ tenancy: { tenants: A_AND_B } })
    const urls = ["/v1/models", "/v1/models/fake", "/v1/chat/completions", "/v1/completions", "/%761/models"]
    for (const url of urls)
      for (const [headers, code] of [
        [{}, "missing_api_key"],
        [by("c"), "invalid_api_key"],
      ] as const) {
        const method = url.endsWith("completions") ? "POST" : "GET"
        // Neither body nor content type is looked at before.
        const answer = await server.app.inject({
          method,
          url,
          headers,
          ...(method === "POST" && { payload: "{" }),
        })
        expect([answer.statusCode, answer.json().error.code, answer.headers["www-authenticate"]]).toEqual([
          ...[401, code, "Bearer"],
        ])
        expect(answer.json().error.type).toBe("invalid_request_error")
      }
    expect((await server.app.inject({ url: "/v1/models", headers: by("a") })).statusCode).toBe(200)
    expect((await complete(by("a"))).statusCode).toBe(200)
    for (const url of ["/", "/health", "/ready", "/metrics", "/v1/slo/status"])
      expect((await server.app.inject(url)).statusCode).toBe(200)
  })

  it("are asked for before the model is loaded", async () => {
    await serving({ tenancy: { tenants: A_AND_B } })
    server.host.phase = "starting"
    expect((await complete({})).statusCode).toBe(401)
    expect((await complete(by("a"))).statusCode).toBe(503)
    server.host.phase = "ready"
  })

  it("tell the core whose a request and each of its answers is", async () => {
    await serving({ tenancy: { tenants: A_AND_B } })
    const specs = specsOf(server)
    await complete(by("b"), { n: 2, prompt: ["x".repeat(40), "y"] })
    await complete({ ...by("a"), [FAIRNESS]: "b" })
    expect(specs.map((spec) => spec.tenant)).toEqual([3, 3, 3, 3, 2])
    expect(server.driver.queue.takenBy(3)).toBe(0)
  })
})

describe("the header", () => {
  it("names tenants where there are no keys, and must be a name", async () => {
    await serving({ tenancy: { tenants: [{ name: "gold", weight: 4, keys: [] }] } })
    const specs = specsOf(server)
    for (const name of ["one", "gold", "one", "two"]) await complete({ [FAIRNESS]: name })
    await complete({})
    expect(specs.map((spec) => spec.tenant)).toEqual([3, 2, 3, 4, 0])
    const wrong = await complete({ [FAIRNESS]: "two words" })
    expect([wrong.statusCode, wrong.json().error.code, wrong.json().error.param]).toEqual([
      ...[400, "invalid_value", FAIRNESS],
    ])
  })

  it("with ever new names costs neither memory nor metrics", async () => {
    await serving({})
    const names = Array.from({ length: 3 * MOST_NAMED }, (_, i) => `t${i}`)
    for (const name of names)
      expect((await complete({ [FAIRNESS]: name }, { max_tokens: 1 })).statusCode).toBe(200)
    const { body } = await server.app.inject("/metrics")
    expect(body.match(/^slos_serve_tenant_live\{/gm)).toHaveLength(MOST_NAMED + 2)
    expect(body).toContain(
      `slos_serve_tenant_tokens_total{tenant="(all others)",kind="output"} ${2 * MOST_NAMED}\n`,
    )
    const { tenants } = (await server.app.inject("/v1/slo/status")).json()
    expect(tenants).toHaveLength(MOST_NAMED + 2)
    expect(tenants.reduce((sum: number, { live }: { live: number }) => sum + live, 0)).toBe(0)
  })
})

describe("a prompt", () => {
  const prompt = "a prompt of some blocks of KV. ".repeat(4)
  const cached = async (headers: Record<string, string>) =>
    (await complete(headers, { prompt })).json().usage.prompt_tokens_details.cached_tokens as number

  it("is reused within a tenant, not by another", async () => {
    await serving({ tenancy: { tenants: A_AND_B } })
    expect(await cached(by("a"))).toBe(0)
    expect(await cached(by("b"))).toBe(0)
    expect(await cached(by("a"))).toBe(112)
    expect(await cached(by("b"))).toBe(112)
  })

  it("is reused by another where that is configured", async () => {
    await serving({ tenancy: { tenants: A_AND_B, sharePrefixes: true } })
    expect([await cached(by("a")), await cached(by("b"))]).toEqual([0, 112])
  })

  it("is not reused by the tenant that gets another's number", async () => {
    await serving({})
    expect(await cached({ [FAIRNESS]: "first" })).toBe(0)
    for (let i = 0; i < MOST_NAMED - 1; i++) await complete({ [FAIRNESS]: `t${i}` }, { max_tokens: 1 })
    const specs = specsOf(server)
    expect(await cached({ [FAIRNESS]: "second" })).toBe(0)
    // The first number that a name gets.
    expect(specs[0]!.tenant).toBe(2)
    expect(await cached({ [FAIRNESS]: "first" })).toBe(112)
  })
})

describe("a session", () => {
  it("of one tenant is not another's of the same name", async () => {
    await serving({ tenancy: { tenants: A_AND_B, sharePrefixes: true } })
    const specs = specsOf(server)
    for (const name of ["a", "b", "a", "b"]) await complete(by(name), { slo: { session: "s" } })
    await complete(by("a"), { slo: { session: "t" } })
    const [a, b, a2, b2, other] = specs.map(({ session }) => session)
    expect([a2, b2]).toEqual([a, b])
    expect(new Set([a, b, other]).size).toBe(3)
  })

  it("has not missed for another tenant's round that has, nor for a cancelled or best-effort one", async () => {
    await serving({ tenancy: { tenants: A_AND_B }, listen: true })
    const { engine } = server
    const missed: boolean[] = []
    const decide = server.driver.replica.policy.decide.bind(server.driver.replica.policy)
    server.driver.replica.policy.decide = (line, batch, nowUs) => {
      for (const { sessionMissed, output } of line) if (output === 0) missed.push(sessionMissed)
      decide(line, batch, nowUs)
    }
    const wasMissed = async (name: string, session: string) => {
      missed.length = 0
      await complete(by(name), { slo: { session, class: "best_effort" } })
      return missed[0]
    }
    // No machine has a token in a hundredth of a millisecond.
    const late = { ttft_ms: 1, tpot_ms: 0.01 }
    await complete(by("a"), { slo: { session: "s", ...late } })
    expect([await wasMissed("a", "s"), await wasMissed("b", "s")]).toEqual([true, false])
    await complete(by("a"), { slo: { session: "r", class: "best_effort" } })
    expect(await wasMissed("a", "r")).toBe(false)
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "key-a", maxRetries: 0 })
    const stream = await client.completions.create({
      ...{ model: "fake", prompt: "hi", max_tokens: 900, stream: true },
      ...{ ignore_eos: true, slo: { session: "q", ...late } },
    })
    for await (const _ of stream) break
    await expect.poll(() => server.driver.queue.taken).toBe(0)
    expect(await wasMissed("a", "q")).toBe(false)
    expect(engine.model.name).toBe("fake")
  })
})

describe("a full queue", () => {
  async function full() {
    const held = new BreakableEngine(
      fakeEngine({ limits: LIMITS, cost: COST, time: "real", outputTokens: 4 }),
    )
    await serving({ engine: held, maxQueue: 4, tenancy: { tenants: [tenant("a"), tenant("b", 3)] } })
    held.hold()
    const flood = Array.from({ length: 4 }, () => complete(by("a")))
    await expect.poll(() => server.driver.queue.taken).toBe(4)
    return { held, flood }
  }

  it("takes what a tenant's share of it holds, and says so to the one that filled it", async () => {
    const { held, flood } = await full()
    const refused = await complete(by("a"))
    expect(refused.statusCode).toBe(429)
    expect(refused.json().error.message).toContain(
      "takes 4 requests, every answer counted, and 4 are live; this",
    )
    const own = [complete(by("b")), complete(by("b"), { n: 2 })]
    await expect.poll(() => server.driver.queue.taken).toBe(7)
    const [again, more] = [await complete(by("a")), await complete(by("b"))]
    expect([again.statusCode, more.statusCode]).toEqual([429, 429])
    expect(again.json().error).toMatchObject({ code: "queue_full", type: "rate_limit_error" })
    expect(again.json().error.message).toContain(
      "7 are live; of its places tenant a has 4, and its share is 1; this",
    )
    expect(more.json().error.message).toContain("tenant b has 3, and its share is 3;")
    const { tenants } = (await server.app.inject("/v1/slo/status")).json()
    expect(tenants).toMatchObject([
      { name: "default", live: 0 },
      { name: "a", weight: 1, live: 4, refused: 2 },
      { name: "b", weight: 3, live: 3, refused: 1 },
    ])
    held.letGo()
    for (const answer of [...flood, ...own]) expect((await answer).statusCode).toBe(200)
    expect(server.driver.queue.taken).toBe(0)
  })
})

describe("bodies on their way", () => {
  it("hold of one tenant what leaves another's room", async () => {
    await serving({ listen: true, bodyMemory: 64 * 1024, tenancy: { tenants: A_AND_B } })
    const { port } = new URL(server.url)
    // Each takes 16 KiB, and never ends.
    const slow = Array.from({ length: 4 }, () => {
      const socket = connect(Number(port), "127.0.0.1")
      const head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
      socket.write(`${head}authorization: Bearer key-a\r\ncontent-length: 9000\r\n\r\n{"prompt":`)
      return socket
    })
    const codes = async (name: string) => {
      const answer = await complete(by(name))
      return answer.statusCode === 200 ? 200 : answer.json().error.code
    }
    await expect.poll(() => codes("a")).toBe("too_many_large_bodies")
    expect(await codes("b")).toBe(200)
    for (const socket of slow) socket.destroy()
    await expect.poll(() => codes("a")).toBe(200)
  })
})

const LIMITS = {
  ...{ kvTokens: 4096, blockTokens: 16, maxSequences: 4, maxBatchTokens: 256, contextTokens: 256 },
  ...{ minChunkTokens: 1, unifiedKv: true },
}
const COST = { pieces: [{ step: 1000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }

/** Steps of a second: what real time adds to an arrival, before virtual time goes on, is nothing against it. */
describe("beside a flood", () => {
  const SLOW = { pieces: [{ step: 1e6, tokens: 1e6 }], residualSigma: 0, fastPassTokens: 1, unifiedKv: true }
  // A prompt of A's takes about 40 s, one of B's, which is longer, 60 s: without tenants it would go first.
  const PROMPTS = { a: "x".repeat(40), b: "y".repeat(60) }

  async function play(options: TestServerOptions["tenancy"]) {
    const clock = new VirtualClock()
    const limits = { ...LIMITS, maxSequences: 64 }
    await serving({
      ...{ clock, listen: true, limits, tenancy: options ?? {} },
      fake: { cost: SLOW, time: clock, outputTokens: 4 },
    })
    const submit = server.driver.submit.bind(server.driver)
    let submitted = 0
    server.driver.submit = (...given) => {
      submitted++
      return submit(...given)
    }
    const send = async (name: "a" | "b", count: number) => {
      const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: `key-${name}`, maxRetries: 0 })
      const before = submitted
      const slo = { ttft_ms: 700_000, tpot_ms: 200_000 }
      // Each begins with a letter of its own: nothing is shared.
      const prompt = (i: number) => `${String.fromCharCode(65 + i)}${PROMPTS[name]}`
      const answers = Array.from({ length: count }, (_, i) =>
        client.completions.create({ model: "fake", prompt: prompt(i), max_tokens: 4, ...{ slo } }),
      )
      await expect.poll(() => submitted - before, { timeout: 60_000 }).toBe(count)
      return answers
    }
    const sent = { a: await send("a", 40), b: await send("b", 4) }
    const running = setInterval(() => void clock.run(), 5)
    const kept = async (answers: Promise<OpenAI.Completion>[]) => {
      const all = (await Promise.all(answers)) as unknown as Told[]
      return all.filter(({ metrics }) => metrics.slo.attained).length
    }
    const counts = { a: await kept(sent.a), b: await kept(sent.b) }
    clearInterval(running)
    return counts
  }

  it("a tenant keeps its promises; without tenants it would not", { timeout: 120_000 }, async () => {
    const alone = await play({})
    await server.close()
    const apart = await play({ tenants: A_AND_B })
    expect(apart.b).toBe(4)
    expect(alone.b).toBeLessThan(4)
    // The flood has what is left.
    expect(apart.a).toBeGreaterThan(0)
    expect(apart.a).toBeLessThan(40)
    const { body } = await server.app.inject("/metrics")
    expect(body).toContain('slos_serve_tenant_requests_total{tenant="b",attained="true"} 4\n')
    expect(body).toContain(`slos_serve_tenant_requests_total{tenant="a",attained="true"} ${apart.a}\n`)
    expect(body).toContain('slos_serve_tenant_tokens_total{tenant="a",kind="output"} 160\n')
  })
})

interface Told {
  metrics: { slo: { attained: boolean | null } }
}
