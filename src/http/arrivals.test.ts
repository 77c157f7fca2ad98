/** What a server records of its requests, and tells: every one, how it ended, and nothing of its text. */
import { afterEach, expect, it } from "vitest"
import { Advisor } from "../scale/advisor.ts"
import type { Arrival } from "../scale/arrival.ts"
import { parseRecording } from "../scale/recording-file.ts"
import { startAdvisor } from "../serve/scale.ts"
import { type TestServerOptions, testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
afterEach(() => server.close())

const ask = (body: object, url = "/v1/completions") =>
  server.app.inject({ method: "POST", url, payload: { prompt: "some words", max_tokens: 5, ...body } })

async function recorded(): Promise<readonly Arrival[]> {
  const { body, headers, statusCode } = await server.app.inject("/v1/slo/arrivals")
  expect([statusCode, headers["content-type"]]).toEqual([200, "application/x-ndjson"])
  return parseRecording(body, "it").recording.arrivals
}

it("has an arrival for each answer, with its objectives, its session's rounds and its lengths", async () => {
  server = await testServer()
  await ask({ n: 2, slo: { tpot_ms: 80, session: "s" } })
  await ask({ slo: { ttft_slowdown: 3, session: "s" } })
  await ask({ slo: { class: "best_effort" } })
  const [first, second, third, last] = await recorded()
  const served = { end: "done", outputTokens: 5, maxOutputTokens: 5, session: 0 }
  expect(first).toMatchObject({ ...served, slo: { tpotUs: 80_000, maxGapUs: Infinity }, tier: "slo" })
  expect(second).toMatchObject(served)
  expect(third).toMatchObject({ ...served, slo: { ttftUs: Infinity, ttftSlowdown: 3 } })
  expect(last).toMatchObject({ session: -1, tier: "bestEffort", slo: { tpotUs: Infinity } })
  expect(first!.promptTokens).toBeGreaterThan(0)
  expect(first!.endUs).toBeGreaterThan(first!.atUs)
})

it("counts what a full queue refused, and not what no server would take", async () => {
  server = await testServer({ maxQueue: 1 })
  expect((await ask({ n: 2 })).json().error.code).toBe("queue_too_small")
  const slow = ask({ max_tokens: 900, ignore_eos: true })
  await expect.poll(() => server.service.front.queue.taken).toBe(1)
  expect((await ask({})).statusCode).toBe(429)
  await slow
  expect((await ask({ max_tokens: 5000 })).statusCode).toBe(400)
  expect((await recorded()).map(({ end }) => end)).toEqual(["done", "refused"])
})

it("knows what its client gave up", async () => {
  server = await testServer({ listen: true })
  const gone = new AbortController()
  const answer = fetch(`${server.url}/v1/completions`, {
    ...{ method: "POST", headers: { "content-type": "application/json" }, signal: gone.signal },
    body: JSON.stringify({ prompt: "x", max_tokens: 900, ignore_eos: true, stream: true }),
  })
  await (await answer).body!.getReader().read()
  gone.abort()
  await expect.poll(async () => (await recorded())[0]!.end).toBe("cancelled")
})

it("tells nothing of its text, and says when it is not ready", async () => {
  server = await testServer()
  await ask({ prompt: "a secret", slo: { session: "hidden" } })
  const { body } = await server.app.inject("/v1/slo/arrivals")
  expect(body).not.toMatch(/secret|hidden/)
  server.host.phase = "starting"
  expect((await server.app.inject("/v1/slo/arrivals")).statusCode).toBe(503)
  server.host.phase = "ready"
})

const metrics = async () =>
  (await server.app.inject("/metrics")).body
    .split("\n")
    .filter((line) => /^slos_serve_(replicas|forecast)/.test(line))

it.each<[string, TestServerOptions, number]>([
  ["enough", {}, 1],
  ["too few", { maxQueue: 2048 }, 0],
])("shows no signal before the first forecast, then what it rests on: %s", async (_, options, enough) => {
  server = await testServer(options)
  const { service } = server
  const advisor = startAdvisor(service, { share: 1, windowS: 60 }, () => {})
  expect(advisor).toBeInstanceOf(Advisor)
  service.advisedBy(advisor)
  expect(await metrics()).toEqual(["slos_serve_replicas 1", "slos_serve_forecast_busy_seconds_total 0"])
  for (let i = 0; i < (enough ? 16 : 1); i++) await ask({})
  // The first fifth of the recording does not count: the rest is after it.
  await advisor.forecast()
  const lines = await metrics()
  expect(lines).toContain("slos_serve_replicas_wanted 1")
  expect(lines).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^slos_serve_forecast_requests \d+$/),
      `slos_serve_forecast_enough ${enough}`,
      expect.stringMatching(/^slos_serve_forecast_idle_ratio\{replicas="2"\} 0\.\d+$/),
      expect.stringMatching(/^slos_serve_forecast_age_seconds \d/),
      expect.stringMatching(/^slos_serve_forecast_measured_ratio [01]/),
    ]),
  )
})
