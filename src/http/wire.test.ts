/** Gateways reach a server's replica over its HTTP port; other upgrades change nothing. The suite of all hosts runs over it. */
import { afterEach, expect, test } from "vitest"
import type { Serving } from "../fleet/one-model.ts"
import { RemoteReplica } from "../fleet/remote-replica.ts"
import { freePort } from "../free-port.ts"
import { Restarts } from "../router/health.ts"
import { hostSuite, jobOf, Kept, SUITE_MAX_QUEUE } from "../serve/host.suite.ts"
import { HOST_LIMITS } from "../serve/host-testing.ts"
import { until } from "../serve/until-testing.ts"
import { testServer } from "./testing.ts"

const quick = () => new Restarts({ firstUs: 10_000, longestUs: 50_000, stableUs: 1_000_000 })
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

const serve = async (options: object = {}) => {
  const fake = { outputTokens: 5000 }
  const server = await testServer({ listen: true, fake, limits: HOST_LIMITS, ...options })
  closers.push(server.close)
  return server
}

function reach(url: string, apiKey: string | null = null) {
  const host = new RemoteReplica({ name: "far", url, apiKey, restarts: quick() })
  closers.unshift(() => host.close())
  return host
}

const ready = (host: RemoteReplica) => until(() => expect(host.state).toBe("ready"))

hostSuite("on the HTTP port of another server", async () => {
  const server = await testServer({
    ...{ listen: true, maxQueue: SUITE_MAX_QUEUE, limits: HOST_LIMITS, fake: { outputTokens: 5000 } },
  })
  const host = new RemoteReplica({ name: "far", url: server.url, restarts: quick() })
  await ready(host)
  return { host, close: server.close }
})

test("a server that comes back is reached again", async () => {
  const first = await serve({ listen: false })
  const port = await freePort()
  const url = await first.app.listen({ port, host: "127.0.0.1" })
  const host = reach(url)
  await ready(host)
  const sink = new Kept()
  host.submit(jobOf({ maxTokens: 900 }), sink)
  await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
  await first.close()
  expect(["lost", "cancelled"]).toContain((await sink.over())[0]?.kind)
  await until(() => expect(host.state).toBe("down"))
  const second = await serve({ listen: false })
  await second.app.listen({ port, host: "127.0.0.1" })
  await ready(host)
  expect(host.restarts).toBe(1)
})

test("without a key, where keys are wanted, it says so and tries on", async () => {
  const tenancy = { tenants: [{ name: "ops", weight: 1, keys: ["secret"] }] }
  const { url } = await serve({ tenancy })
  const stranger = reach(url)
  await until(() => expect(stranger.detail).toMatch(/401.*API key/))
  await ready(reach(url, "secret"))
})

test("what is no server of ours says so", async () => {
  const { url } = await serve()
  const host = reach(`${url}/elsewhere`)
  await until(() => expect(host.detail).toMatch(/404/))
  const nothing = reach("http://127.0.0.1:1")
  await until(() => expect(nothing.detail).toMatch(/cannot be reached/))
})

test("a client that offers another protocol is answered in this one", async () => {
  const { url } = await serve()
  const { request } = await import("node:http")
  const status = await new Promise((resolve, reject) => {
    const headers = {
      connection: "Upgrade, HTTP2-Settings",
      upgrade: "h2c",
      "http2-settings": "AAMAAABkAAQAAP__",
    }
    const asked = request(`${url}/health`, { headers }, (response) => resolve(response.statusCode))
    asked.on("error", reject)
    asked.end()
  })
  expect(status).toBe(200)
})

test("one that cannot be used with its model is down and says why, until it can", async () => {
  const { url } = await serve()
  let beside: Serving | null = { name: "near", model: "another" }
  const host = new RemoteReplica({ name: "far", url, apiKey: null, restarts: quick(), beside: () => beside })
  closers.unshift(() => host.close())
  await until(() => expect(host.detail).toMatch(/it serves .*, and near serves another; give both one name/))
  expect(host.state).toBe("down")
  beside = null
  await ready(host)
})
