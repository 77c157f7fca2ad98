/** CPU time that a remote backend costs its gateway, a request and a token: `node bench/backend-cost.ts`. The engine is a
 * server in a process of its own that streams as fast as it is read. CPU time, not wall clock; quiet cores all the same. */
import { fork } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { Agent } from "undici"
import { defaultSloClasses } from "../src/config/slo-classes.ts"
import { GREEDY } from "../src/engine/port.ts"
import { BACKEND_KINDS } from "../src/fleet/backends/kinds.ts"
import { RemoteHost } from "../src/fleet/backends/remote-host.ts"
import type { Generation } from "../src/replica/generation.ts"
import type { JobSink } from "../src/replica/host.ts"
import { resolveSlo } from "../src/serve/slo-resolve.ts"

const TOKENS = 200
let ids = 0
const GENERATION: Generation = {
  prompt: { kind: "chat", messages: [{ role: "user", content: "Say hello" }], tools: null, variables: {} },
  ...{
    tenant: "default",
    maxTokens: 1000,
    sampling: GREEDY,
    parseSpecial: null,
    stops: [],
    singleCall: false,
  },
  slo: resolveSlo(defaultSloClasses(), {
    ...{ slo: { ttft_ms: 600_000, tpot_ms: 10_000 }, headers: {}, modelClass: null },
  }),
  ...{ session: null, reasoning: null, thinkingTokens: null },
}

if (process.send !== undefined) serve()
else await measure()

function serve(): void {
  const chunk = (token: number) =>
    `data: ${JSON.stringify({
      ...{ id: "cmpl-1", object: "chat.completion.chunk", created: 1, model: "m" },
      choices: [
        {
          ...{ index: 0, delta: { content: " word" }, logprobs: null, token_ids: [token] },
          finish_reason: token === TOKENS ? "stop" : null,
        },
      ],
      usage: { prompt_tokens: 12, completion_tokens: token, total_tokens: 12 + token },
    })}\n\n`
  const server = createServer((request, response) => {
    if (request.method === "GET") {
      const models = { data: [{ id: "m", owned_by: "vllm", max_model_len: 8192 }] }
      return void response.end(request.url === "/v1/models" ? JSON.stringify(models) : "")
    }
    request.resume().on("end", () => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      let token = 0
      const next = () => {
        if (++token > TOKENS) return void response.end("data: [DONE]\n\n")
        response.write(chunk(token))
        // Each chunk a write of its own, as engines do.
        setTimeout(next, 5)
      }
      next()
    })
  }).listen(0, "127.0.0.1", () => process.send!((server.address() as { port: number }).port))
}

async function measure(): Promise<void> {
  const child = fork(fileURLToPath(import.meta.url))
  const [port] = (await once(child, "message")) as [number]
  const dispatcher = new Agent()
  const host = new RemoteHost({
    ...{ name: "b", url: `http://127.0.0.1:${port}`, kind: BACKEND_KINDS.vllm, apps: 20, dispatcher },
    ...{ timeouts: { connectMs: 1000, firstByteMs: 60_000, silenceMs: 60_000 }, probeMs: 1000 },
  })
  while (host.state !== "ready") await new Promise((resolve) => setTimeout(resolve, 10))
  await run(host, 1, 5)
  console.log("| streams | CPU a token | tokens/s of a core |\n| --- | --- | --- |")
  for (const streams of [1, 10, 100, 400]) {
    const before = process.cpuUsage()
    const requests = Math.max(10, 2 * streams)
    await run(host, streams, requests)
    const { user, system } = process.cpuUsage(before)
    const us = (user + system) / (requests * TOKENS)
    console.log(`| ${streams} | ${us.toFixed(1)} µs | ${(1e6 / us).toFixed(0)} |`)
  }
  await host.close()
  await dispatcher.close()
  child.kill()
}

async function run(host: RemoteHost, streams: number, requests: number): Promise<void> {
  let left = requests
  const one = async () => {
    while (left-- > 0)
      await new Promise<void>((resolve) => {
        const sink: JobSink = { tokens() {}, end: () => resolve() }
        host.submit(
          { ...{ id: ++ids, generation: GENERATION, ageUs: 0 }, choices: [{ index: 0, begun: null }] },
          sink,
        )
      })
  }
  await Promise.all(Array.from({ length: streams }, one))
}
