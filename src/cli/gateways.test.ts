/** `serve --gateways`: real processes on one port, before engines that only keep time. */
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { type IncomingMessage, request } from "node:http"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { afterEach, describe, expect, test } from "vitest"
import { FakeBackend, type FakeOptions } from "../fleet/backends/testing.ts"
import { by, folder, HEADERS, keys, MAIN, start } from "./reload-testing.ts"

const SLOW = { timeout: 240_000 }
const opened: FakeBackend[] = []
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close()
})

async function gateways(options: FakeOptions, ...args: string[]) {
  const backend = await FakeBackend.open(options)
  opened.push(backend)
  const more = ["--gateways", "2", "--backend", `vllm=${backend.url}`, "--log-level", "info", ...args]
  const server = await start(...more)
  const { pids } = JSON.parse(
    server
      .said()
      .split("\n")
      .find((line) => line.includes('"pids"'))!,
  ) as {
    pids: number[]
  }
  return { ...server, pids, backend }
}

interface Answered {
  status: number
  headers: IncomingMessage["headers"]
  text: string
}

/** On a connection of its own: the next one is another process's. */
async function ask(
  url: string,
  path: string,
  {
    body,
    headers = {},
    method = body === undefined ? "GET" : "POST",
  }: Partial<{
    body: object
    headers: Record<string, string>
    method: string
  }> = {},
): Promise<Answered> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = request(
      `${url}${path}`,
      { agent: false, method, headers: { ...HEADERS, ...headers } },
      resolve,
    )
    asked.on("error", reject)
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
  return { status: response.statusCode!, headers: response.headers, text: await text(response) }
}

const completion = { prompt: "hi", max_tokens: 3 }
const complete = (url: string, headers: Record<string, string> = {}, more: object = {}) =>
  ask(url, "/v1/completions", { body: { ...completion, ...more }, headers })

async function times<T>(count: number, act: () => Promise<T>): Promise<T[]> {
  const all: T[] = []
  for (let i = 0; i < count; i++) all.push(await act())
  return all
}

/** Processes that answered requests, by the log. */
const answering = (said: string): Set<number> =>
  new Set(
    said
      .split("\n")
      .filter((line) => line.includes('"msg":"request"'))
      .map((line) => (JSON.parse(line) as { pid: number }).pid),
  )

async function metric(url: string, name: string): Promise<number> {
  const { text: page } = await ask(url, "/metrics")
  const line = page.split("\n").find((one) => one.startsWith(name))
  return Number(line?.split(" ").at(-1))
}

const ENDED = 'vllm:request_success_total{model_name="m-1",engine="0",finished_reason="stop"}'

describe("two processes", () => {
  test("both serve; whichever answers tells of all, and knows what the other made", SLOW, async () => {
    const { url, said, pids, child, exit } = await gateways({})
    expect(new Set(pids).size).toBe(2)
    expect(pids).not.toContain(child.pid)
    const answers = await times(8, () => complete(url))
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200))
    await expect.poll(() => answering(said())).toEqual(new Set(pids))
    expect(await times(4, () => metric(url, ENDED))).toEqual([8, 8, 8, 8])
    // One of them forecasts how many engines are wanted.
    expect(await times(2, () => metric(url, "slos_serve_replicas "))).toEqual([1, 1])

    const status = await times(3, async () => JSON.parse((await ask(url, "/v1/slo/status")).text))
    for (const one of status) {
      expect(one.replicas).toHaveLength(1)
      expect(one.tenants[0].output_tokens).toBe(8 * 3)
    }
    const id = String(answers[0]!.headers["x-request-id"])
    for (const found of await times(4, () => ask(url, `/v1/slo/requests/${id}`)))
      expect(JSON.parse(found.text)).toMatchObject({ id, answers: [{ output_tokens: 3 }] })
    const recent = JSON.parse((await ask(url, "/v1/slo/requests?limit=5")).text)
    expect(recent.requests).toHaveLength(5)
    expect(recent.kept).toBe(8)
    const ends = recent.requests.map(({ ended_at }: { ended_at: string }) => Date.parse(ended_at))
    expect(ends).toEqual(ends.toSorted((a: number, b: number) => b - a))
    const recording = (await ask(url, "/v1/slo/arrivals")).text
    // Nothing is known of the engine's step times yet, or all arrivals are told.
    if (recording.includes('"arrivals"')) expect(recording.trim().split("\n")).toHaveLength(1 + 8)

    const first = JSON.parse((await ask(url, "/v1/responses", { body: { input: "hi" } })).text)
    for (const one of await times(4, () => ask(url, `/v1/responses/${first.id}`)))
      expect(JSON.parse(one.text).output).toEqual(first.output)
    const goOn = { body: { input: "and?", previous_response_id: first.id } }
    for (const one of await times(4, () => ask(url, "/v1/responses", goOn))) expect(one.status).toBe(200)
    expect((await ask(url, `/v1/responses/${first.id}`, { method: "DELETE" })).status).toBe(200)
    for (const one of await times(4, () => ask(url, `/v1/responses/${first.id}`)))
      expect(one.status).toBe(404)

    child.kill("SIGTERM")
    expect(await exit).toBe(0)
    for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow()
  })

  test(
    "one is killed: the other serves on, another comes in its place, counters do not fall",
    SLOW,
    async () => {
      const { url, said, pids } = await gateways({})
      await times(6, () => complete(url))
      expect(await metric(url, ENDED)).toBe(6)
      process.kill(pids[0]!, "SIGKILL")
      await expect.poll(said).toContain("process 0 died of SIGKILL")
      const meanwhile = await times(6, () => complete(url))
      expect(meanwhile.map(({ status }) => status)).toEqual(Array(6).fill(200))
      expect(await metric(url, ENDED)).toBe(12)
      await expect.poll(said).toContain("process 0 is back")
      const before = answering(said()).size
      await times(4, () => complete(url))
      await expect.poll(() => answering(said()).size).toBe(before + 1)
      expect(await times(2, () => metric(url, ENDED))).toEqual([16, 16])
    },
  )

  test("one that stands still is ended, and another comes in its place", SLOW, async () => {
    const { said, pids } = await gateways({})
    process.kill(pids[1]!, "SIGSTOP")
    await expect.poll(said).toContain("process 1 is back")
    expect(said()).toContain("process 1 does not answer")
  })

  test("a key's rate, and the queue, are of both together", SLOW, async () => {
    const config = join(folder, "gateways-limits.yaml")
    const limited = keys("a", "b").replace("}", ", requests_per_minute: 5}")
    writeFileSync(config, limited)
    const { url, backend } = await gateways({ words: 40 }, "--config", config, "--max-queue", "4")
    const statuses = (answers: Answered[]) => answers.map(({ status }) => status).toSorted()
    const many = await Promise.all(
      Array.from({ length: 14 }, () => complete(url, by("sk-a"), { max_tokens: 1 })),
    )
    expect(many.filter((one) => one.text.includes("rate_limit_exceeded"))).toHaveLength(14 - 5)
    expect(statuses(many)).toContain(200)
    const refused = await complete(url, by("sk-a"))
    expect(refused.status).toBe(429)
    expect(refused.headers["x-ratelimit-remaining-requests"]).toBe("0")
    expect(refused.text).toContain("rate_limit_exceeded")

    const best = { slo: { class: "best_effort" }, max_tokens: 30 }
    const goOn = backend.hold()
    const answers: Answered[] = []
    let sent = 0
    const send = () => {
      sent++
      void complete(url, by("sk-b"), best).then((one) => answers.push(one))
    }
    // Each has its part of the places, and a busy one takes fewer connections: more come until all places are taken.
    const taken = () => metric(url, "slos_serve_queue_places_taken")
    const isKnown = async () => answers.length + (await taken()) === sent
    while ((await taken()) < 4) {
      send()
      await expect.poll(isKnown).toBe(true)
    }
    for (let i = 0; i < 8; i++) send()
    await expect.poll(isKnown).toBe(true)
    expect(await taken()).toBe(4)
    expect(new Set(statuses(answers))).toEqual(new Set([429]))
    goOn()
    await expect.poll(() => answers.length).toBe(sent)
    expect(statuses(answers).filter((status) => status === 200)).toHaveLength(4)
  })

  test("a config that is read again is all processes', also of one that comes later", SLOW, async () => {
    const config = join(folder, "gateways-reload.yaml")
    writeFileSync(config, keys("a"))
    const { url, hup, said, pids } = await gateways({}, "--config", config)
    const statuses = async (key: string) =>
      (await times(4, () => complete(url, by(key)))).map(({ status }) => status)
    expect(await statuses("sk-b")).toEqual([401, 401, 401, 401])
    writeFileSync(config, keys("a", "b"))
    await hup()
    await expect.poll(() => said().match(/changed: tenants, keys/g)?.length).toBe(2)
    expect(await statuses("sk-b")).toEqual([200, 200, 200, 200])
    // What is wrong changes nothing, nor does what was not said to be read.
    writeFileSync(config, "keys: [")
    expect(await hup()).toContain("all stays as it was")
    writeFileSync(config, keys("a"))
    process.kill(pids[1]!, "SIGKILL")
    await expect.poll(said).toContain("process 1 is back")
    expect(await statuses("sk-b")).toEqual([200, 200, 200, 200])
  })

  test("SIGTERM: what runs is finished by both", SLOW, async () => {
    const { url, child, exit, said, backend } = await gateways({ words: 20 })
    const goOn = backend.hold()
    const running = Array.from({ length: 4 }, () => complete(url, {}, { max_tokens: 20, stream: true }))
    await expect.poll(() => backend.live).toBe(4)
    child.kill("SIGTERM")
    await expect.poll(said).toContain("SIGTERM")
    goOn()
    for (const { status, text: stream } of await Promise.all(running)) {
      expect(status).toBe(200)
      expect(stream).toContain("[DONE]")
    }
    expect(await exit).toBe(0)
  })

  test("none outlives the parent", SLOW, async () => {
    const { child, pids } = await gateways({})
    child.kill("SIGKILL")
    for (const pid of pids) await expect.poll(() => isThere(pid)).toBe(false)
  })
})

function isThere(pid: number): boolean {
  try {
    // A zombie has no memory any more.
    return readFileSync(`/proc/${pid}/status`, "utf8").includes("VmRSS")
  } catch {
    return false
  }
}

test.each([
  [["--gateways", "2", "--engine", "fake"], /there are no backends/],
  [["--gateways", "3", "--backend", "http://127.0.0.1:1", "--max-queue", "2"], /--max-queue 2 is less than/],
  [["--gateways", "0", "--backend", "http://127.0.0.1:1"], /between 1 and 64/],
  [["--gateways", "2", "--backend", "http://127.0.0.1:1", "--tls-cert", "x.pem"], /--tls-key/],
])("what several cannot do is one line and exit code 2: %j", SLOW, (args, line) => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, "serve", "--port", "0", ...args], {
    encoding: "utf8",
  })
  expect(status).toBe(2)
  expect(stderr).toMatch(line)
})

test("a port that is taken is one line and exit code 2", SLOW, async () => {
  const backend = await FakeBackend.open({})
  opened.push(backend)
  const { port } = new URL(backend.url)
  const args = ["serve", "--gateways", "2", "--port", port, "--backend", backend.url]
  const { status, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8" })
  expect(status).toBe(2)
  expect(stderr.match(/error:/g)).toHaveLength(1)
  expect(stderr).toContain("--port")
})
