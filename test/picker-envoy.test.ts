/** The endpoint picker behind a real Envoy, which runs examples/envoy.yaml and its other modes. Skipped where there is no
 * Envoy: bench/get-envoy.sh brings one. */
import { spawn } from "node:child_process"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { LeastLoaded } from "../src/fleet/picker/least-loaded.ts"
import { EndpointPicker, type PickerOptions } from "../src/fleet/picker/run.ts"
import { pickerOptions } from "../src/fleet/picker/testing.ts"
import { freePorts } from "../src/free-port.ts"
import { Envoy, type EnvoyPorts, exampleConfig, findEnvoy } from "./envoy.ts"

const binary = findEnvoy()
if (binary === null)
  console.warn("There is no Envoy: test/picker-envoy.test.ts is skipped (bench/get-envoy.sh brings one).")

interface Seen {
  engine: number
  headers: IncomingMessage["headers"]
  body: string
}

const EVENTS = 4
/** A process starts, a connection is tried again. */
const SLOW = { timeout: 50_000 }
const CHAT = "/v1/chat/completions"

/** Engines that stream an answer, the last event of each when `finish` is called. */
class Engines {
  readonly servers: Server[]
  readonly seen: Seen[] = []
  readonly #waiting: ServerResponse[] = []
  /** Answers end by themselves. */
  quick = true

  constructor() {
    this.servers = [0, 1].map((engine) =>
      createServer((request, response) => this.#serve(engine, request, response)),
    )
  }

  async listen(): Promise<[number, number]> {
    for (const server of this.servers)
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()))
    const [a, b] = this.servers.map((server) => (server.address() as AddressInfo).port)
    return [a!, b!]
  }

  finish(): void {
    for (const response of this.#waiting.splice(0)) response.end("data: [DONE]\n\n")
  }

  get open(): number {
    return this.#waiting.length
  }

  #serve(engine: number, request: IncomingMessage, response: ServerResponse): void {
    const pieces: Buffer[] = []
    request.on("data", (piece: Buffer) => pieces.push(piece))
    request.on("end", () => {
      this.seen.push({ engine, headers: request.headers, body: Buffer.concat(pieces).toString() })
      if (request.method === "GET") return void response.end('{"data":[]}')
      const picked = String(request.headers["x-gateway-destination-endpoint"])
      response.writeHead(200, { "content-type": "text/event-stream", "x-picked": picked })
      for (let i = 0; i < EVENTS; i++) response.write(`data: {"choices":[{"text":"${i}"}]}\n\n`)
      this.#waiting.push(response)
      if (this.quick) this.finish()
    })
  }

  close(): void {
    this.finish()
    for (const server of this.servers) {
      server.close()
      server.closeAllConnections()
    }
  }
}

const DUPLEX = "FULL_DUPLEX_STREAMED"
const MODES: [string, Record<string, string>][] = [
  ["as in the example", {}],
  ["without the chunks of answers", { response_body_mode: "NONE" }],
  ["with requests in full duplex", { request_body_mode: DUPLEX }],
  ["with both in full duplex", { request_body_mode: DUPLEX, response_body_mode: DUPLEX }],
  ["with headers alone", { request_body_mode: "NONE", response_body_mode: "NONE" }],
]
describe.skipIf(binary === null).each(MODES)("behind Envoy %s", (_name, modes) => {
  const engines = new Engines()
  let ports: EnvoyPorts
  let envoy: Envoy
  let picker: EndpointPicker
  let metricsPort = 0

  async function startPicker(changes: Partial<PickerOptions> = {}) {
    const endpoints = ports.engines.map((port) => ({ host: "127.0.0.1", port }))
    picker = new EndpointPicker(pickerOptions({ endpoints, port: ports.picker, named: 2, ...changes }))
    metricsPort = (await picker.start()).metricsPort!
  }

  const post = (body: string, headers: Record<string, string> = {}, signal?: AbortSignal) =>
    fetch(`http://127.0.0.1:${ports.gateway}${CHAT}`, {
      ...{ method: "POST", body, headers: { "content-type": "application/json", ...headers } },
      ...(signal !== undefined && { signal }),
    })

  async function gauge(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
    return Number(new RegExp(`^slos_serve_picker_${name} (\\S+)$`, "m").exec(text)?.[1])
  }

  beforeAll(async () => {
    const [gateway, pickerPort, admin] = (await freePorts(3)) as [number, number, number]
    ports = { gateway, picker: pickerPort, admin, engines: await engines.listen() }
    envoy = await Envoy.start(binary!, exampleConfig(ports, modes), admin)
  })

  beforeEach(() => {
    engines.quick = true
    engines.seen.length = 0
  })

  afterEach(async () => {
    engines.finish()
    await picker.stop(5000)
  })

  afterAll(async () => {
    await envoy.close()
    engines.close()
  })

  const readsBodies = modes.request_body_mode !== "NONE"

  it("requests reach the endpoint picked, with what is written for it, and answers their clients", async () => {
    await startPicker({ rewrite: { priority: "low-first", sloArguments: true } })
    const body = JSON.stringify({ messages: [{ role: "user", content: "ü".repeat(200_000) }], seed: 1 })
    const answers = await Promise.all(
      [1, 2, 3, 4].map((n) => post(body, { "x-llm-d-slo-ttft-ms": String(n * 1000) })),
    )
    for (const answer of answers) {
      expect(answer.status).toBe(200)
      const text = await answer.text()
      expect(text.match(/data: \{/g)).toHaveLength(EVENTS)
      expect(text).toMatch(/\[DONE\]\n\n$/)
    }
    expect(new Set(engines.seen.map(({ engine }) => engine)).size).toBe(2)
    for (const { engine, headers, body: came } of engines.seen) {
      const destination = String(headers["x-gateway-destination-endpoint"]).split(",")
      expect(destination[0]).toBe(`127.0.0.1:${ports.engines[engine]}`)
      expect(destination).toHaveLength(2)
      const fields = JSON.parse(came)
      expect(fields).toMatchObject(JSON.parse(body))
      if (readsBodies) expect(fields.vllm_xargs.slo_ttft_ms).toBeGreaterThanOrEqual(1000)
      expect(typeof fields.priority).toBe(readsBodies ? "number" : "undefined")
    }
    await expect.poll(() => gauge("streams")).toBe(0)
  })

  it("requests without a body go on", async () => {
    await startPicker()
    const answer = await fetch(`http://127.0.0.1:${ports.gateway}/v1/models`)
    expect(await answer.json()).toEqual({ data: [] })
  })

  it("what is held is sent when an answer ends, and refused where there is no more room", async () => {
    engines.quick = false
    await startPicker({
      chooser: new LeastLoaded(1),
      flow: { mostHeld: 1, mostHeldBytes: 1e9, longestHoldUs: 60e6, late: "send" },
    })
    const running = [post("{}"), post("{}")]
    await expect.poll(() => engines.open).toBe(2)
    const held = post("{}", { "x-llm-d-slo-ttft-ms": "30000" })
    await expect.poll(() => gauge("held")).toBe(1)
    const refused = await post("{}", { "x-llm-d-slo-ttft-ms": "60000" })
    expect(refused.status).toBe(429)
    expect(refused.headers.get("x-llm-d-request-dropped-reason")).toBe("rejected-saturated")
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1)
    expect(refused.headers.get("content-type")).toContain("application/json")
    expect(await refused.json()).toMatchObject({ error: { type: "rate_limit_error" } })
    engines.quick = true
    engines.finish()
    for (const answer of [...running, held]) expect(await (await answer).text()).toContain("[DONE]")
  })

  it("a client that leaves while it is held, or streamed to, frees its place", async () => {
    engines.quick = false
    await startPicker({ chooser: new LeastLoaded(1) })
    const abort = new AbortController()
    const running = [post("{}", {}, abort.signal), post("{}", {}, abort.signal)]
    await Promise.all(running)
    const held = post("{}", {}, abort.signal).catch(() => "gone")
    await expect.poll(() => gauge("held")).toBe(1)
    abort.abort()
    expect(await held).toBe("gone")
    await expect.poll(() => gauge("streams")).toBe(0)
    engines.quick = true
    expect(await (await post("{}")).text()).toContain("[DONE]")
    expect(await gauge("held")).toBe(0)
  })

  it.skipIf(!readsBodies)(
    "bodies that cannot be read get their error, and the next request goes on",
    async () => {
      await startPicker({ bodyLimit: 1000 })
      expect(await (await post("{")).json()).toMatchObject({ error: { code: "invalid_json" } })
      expect((await post(JSON.stringify({ a: "x".repeat(5000) }))).status).toBe(413)
      expect((await post('{"slo":{"class":"unheard"}}')).status).toBe(400)
      expect(engines.seen).toEqual([])
      expect((await post("{}")).status).toBe(200)
    },
  )

  it("a picker without endpoints says so; without a picker any gets a request, but in full duplex", async () => {
    await startPicker({ endpoints: [] })
    expect((await post("{}")).status).toBe(503)
    await picker.stop(0)
    expect((await post("{}")).status).toBe(modes.request_body_mode === DUPLEX ? 500 : 200)
    await startPicker()
    await expect.poll(async () => (await post("{}")).headers.get("x-picked")).not.toBe("undefined")
  })

  const duplexRequests = modes.request_body_mode === DUPLEX

  it.skipIf(duplexRequests)(
    "a picker that is killed takes no answer with it, and any gets the next request",
    async () => {
      engines.quick = false
      await startPicker()
      await picker.stop(5000)
      const args = ["endpoint-picker", "--port", String(ports.picker), "--no-metrics", "--probe-every", "0"]
      const main = new URL("../src/cli/main.ts", import.meta.url).pathname
      const child = spawn(process.execPath, [main, ...args, "-e", `127.0.0.1:${ports.engines[0]}`])
      const picked = () => post("{}").then((response) => response.headers.get("x-picked"))
      try {
        // It starts, and Envoy may still have the last picker in mind.
        await expect.poll(picked, SLOW).toBe(`127.0.0.1:${ports.engines[0]}`)
        const answer = await post("{}")
        const text = answer.text().catch(() => "broken off")
        child.kill("SIGKILL")
        await expect.poll(picked, SLOW).toBe("undefined")
        engines.finish()
        expect(await text).toContain("[DONE]")
      } finally {
        child.kill("SIGKILL")
      }
    },
  )

  it("an answer under way outlives a drained picker", async () => {
    engines.quick = false
    await startPicker()
    const answer = await post("{}")
    await expect.poll(() => engines.open).toBe(1)
    // In full duplex Envoy needs the picker to the end; else it goes on without.
    const duplex = modes.response_body_mode === DUPLEX
    const stopped = picker.stop(duplex ? 10_000 : 0)
    if (!duplex) await stopped
    engines.finish()
    expect(await answer.text()).toContain("[DONE]")
    expect(await stopped).toBe(0)
  })
})
