/** An engine that hangs, or fails at every step, as clients and operators see it. */
import { expect, it } from "vitest"
import { BreakableEngine } from "../replica/testing.ts"
import { testServer } from "./testing.ts"

async function breakable() {
  let engine!: BreakableEngine
  const server = await testServer({
    listen: true,
    watch: { leastUs: 1_500_000 },
    wrap: (inner) => {
      engine = new BreakableEngine(inner)
      return engine
    },
  })
  const ask = (fields: object) =>
    fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "hi", max_tokens: 900, ignore_eos: true, ...fields }),
    })
  const ready = async () => (await fetch(`${server.url}/ready`)).status
  const metrics = async () => (await fetch(`${server.url}/metrics`)).text()
  return { server, engine, ask, ready, metrics }
}

it("a step that hangs: streams get an error event, others 503, /ready says why; its end brings the server back", async () => {
  const { server, engine, ask, ready, metrics } = await breakable()
  expect(await metrics()).toMatch(/^slos_serve_engine_up 1$/m)
  const stream = await ask({ stream: true })
  const [whole, many] = [ask({}), ask({ n: 3 })]
  await expect.poll(() => server.driver.queue.taken).toBe(5)
  engine.hold()
  const text = await stream.text()
  const error = /^data: (\{"error".*\})\n\ndata: \[DONE\]\n\n$/m.exec(text)![1]!
  const message = expect.stringMatching(
    /^The engine is down: a step with \d requests? has not ended within .* s \(.* predicted\)\. Retry after/,
  )
  const down = { error: { message, type: "server_error", param: null, code: "engine_down" } }
  expect(JSON.parse(error)).toEqual(down)
  for (const answer of [await whole, await many]) {
    expect(answer.status).toBe(503)
    expect(await answer.json()).toEqual(down)
  }
  for (const refused of [await ask({}), await ask({ stream: true }), await fetch(`${server.url}/ready`)]) {
    expect(refused.status).toBe(503)
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0)
    expect(await refused.json()).toEqual(down)
  }
  expect((await fetch(`${server.url}/health`)).status).toBe(200)
  expect((await fetch(`${server.url}/v1/models`)).status).toBe(200)
  const hung = await metrics()
  expect(hung).toMatch(/^slos_serve_engine_up 0$/m)
  expect(hung).toMatch(/^slos_serve_watchdog_trips_total 1$/m)
  expect(hung).toMatch(/^slos_serve_rejections_total\{reason="engineDown"\} 2$/m)
  expect(hung).toMatch(/^slos_serve_engine_down_seconds_total\{state="hung"\} \d*\.?\d*[1-9]/m)
  const status = await (await fetch(`${server.url}/v1/slo/status`)).json()
  expect(status).toMatchObject({
    phase: "ready",
    engine: { state: "hung", detail: expect.stringContaining("has not ended"), hung_steps: 1 },
    requests: { running: 0, waiting: 0 },
  })
  engine.letGo()
  await expect.poll(ready).toBe(200)
  const answer = (await (await ask({ max_tokens: 5 })).json()) as { usage: object }
  expect(answer.usage).toMatchObject({ completion_tokens: 5 })
  expect(await metrics()).toMatch(/^slos_serve_engine_up 1$/m)
  const { kvUsedTokens, kvCachedTokens } = server.driver.snapshot()
  expect(kvUsedTokens).toBe(kvCachedTokens)
  await server.close()
})

it("every step fails: the same, until one is computed", async () => {
  const { server, engine, ask, ready, metrics } = await breakable()
  const [stream, other] = [await ask({ stream: true }), ask({})]
  await expect.poll(() => server.driver.queue.taken).toBe(2)
  engine.fails = () => "no device"
  expect(await stream.text()).toMatch(/"The engine is down: every step fails \(no device\)\. /)
  expect((await other).status).toBe(503)
  expect(await ready()).toBe(503)
  expect((await ask({})).status).toBe(503)
  expect(await metrics()).toMatch(/^slos_serve_engine_down_seconds_total\{state="failing"\} \d*\.?\d*[1-9]/m)
  engine.fails = () => null
  await expect.poll(ready).toBe(200)
  expect((await ask({ max_tokens: 5 })).status).toBe(200)
  await server.close()
})
