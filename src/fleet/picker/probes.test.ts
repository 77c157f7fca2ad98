/** Endpoints are asked how they are, over real HTTP: one that is down is left out, and what it says of its load is told. */
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, expect, it } from "vitest"
import type { Learnt } from "../backends/kind.ts"
import { BACKEND_KINDS } from "../backends/kinds.ts"
import { Probes } from "./probes.ts"

const METRICS = `
vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 2.0
vllm:kv_cache_usage_perc{model_name="m"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
`
const opened: { close(): void }[] = []
afterEach(() => {
  for (const each of opened.splice(0)) each.close()
})

async function engine(): Promise<{ server: Server; endpoint: string; state: { status: number } }> {
  const state = { status: 200 }
  const server = createServer(({ url }, response) => {
    if (url === "/metrics") response.end(METRICS)
    else if (url === "/v1/models") response.end('{"data":[{"id":"m","max_model_len":4096}]}')
    else response.writeHead(state.status).end()
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()))
  opened.push({ close: () => server.close().closeAllConnections() })
  return { server, endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`, state }
}

it("leaves out what is down while others are there, and tells what changed once", async () => {
  const [a, b] = [await engine(), await engine()]
  const told: [string, boolean][] = []
  const learnt = new Map<string, Learnt>()
  const probes = new Probes({
    ...{ kind: BACKEND_KINDS.vllm, everyMs: 5, scheme: "http" },
    learnt: (endpoint, what) => void learnt.set(endpoint, what),
    changed: (endpoint, up) => void told.push([endpoint, up]),
  })
  opened.push(probes)
  const both = [a.endpoint, b.endpoint]
  probes.setEndpoints(both)
  await expect.poll(() => learnt.size).toBe(2)
  expect(learnt.get(a.endpoint)).toEqual({
    load: { running: 3, waiting: 2, kvUsedTokens: 8000 },
    rules: { kvTokens: 16_000 },
  })
  a.state.status = 503
  await expect.poll(() => probes.left(both)).toEqual([b.endpoint])
  b.state.status = 503
  await expect.poll(() => told.length).toBe(2)
  // Where none is left a probe may be what is wrong.
  expect(probes.left(both)).toEqual(both)
  a.state.status = 200
  await expect.poll(() => probes.left(both)).toEqual([a.endpoint])
  expect(told).toEqual([
    [a.endpoint, false],
    [b.endpoint, false],
    [a.endpoint, true],
  ])
  probes.setEndpoints([b.endpoint])
  expect(probes.left([a.endpoint])).toEqual([a.endpoint])
})
