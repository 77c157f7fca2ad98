/** `serve --peer`: real gateways on several ports, before engines that only keep time. */
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, describe, expect, test } from "vitest"
import { FakeBackend, type FakeOptions } from "../fleet/backends/testing.ts"
import { freePort } from "../free-port.ts"
import { by, complete, folder, HEADERS, keys, MAIN, start } from "./reload-testing.ts"

const SLOW = { timeout: 240_000 }
const SECRET = join(folder, "peer-secret")
writeFileSync(SECRET, "what these gateways have in common\n")
const opened: FakeBackend[] = []
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close()
})

async function backendsOf(count: number, options: FakeOptions): Promise<FakeBackend[]> {
  const all = await Promise.all(Array.from({ length: count }, () => FakeBackend.open(options)))
  opened.push(...all)
  return all
}

async function gateway(backends: FakeBackend[], port: number, peers: number[], ...args: string[]) {
  const named = [
    ...backends.flatMap(({ url, options }) => ["--backend", `${options.kind}=${url}`]),
    ...peers.flatMap((peer) => ["--peer", `127.0.0.1:${peer}`]),
  ]
  const peering = ["--peer-port", String(port), "--peer-secret", `file:${SECRET}`, "--log-level", "info"]
  return start(...named, ...peering, ...args)
}

async function metric(url: string, name: string): Promise<number> {
  const page = await (await fetch(`${url}/metrics`)).text()
  return Number(
    page
      .split("\n")
      .find((line) => line.startsWith(`${name} `))
      ?.split(" ")
      .at(-1),
  )
}

const connected = (urls: string[], count: number) =>
  expect
    .poll(() => Promise.all(urls.map((url) => metric(url, "slos_serve_peers"))), { timeout: 60_000 })
    .toEqual(urls.map(() => count))

const LONG = "You are a careful assistant that answers in few words. ".repeat(60)

/** What each of two told the other has heard. */
async function heard(urls: string[]): Promise<void> {
  const words = (what: string) =>
    Promise.all(urls.map((url) => metric(url, `slos_serve_peer_words_${what}_total`)))
  const isHeard = async () => String(await words("heard")) === String((await words("told")).toReversed())
  await expect.poll(isHeard).toBe(true)
}

/** Rounds of a session, at one gateway and another in turn: where each went. */
async function places(
  session: string,
  urls: string[],
  backends: FakeBackend[],
  count: number,
): Promise<number[]> {
  const messages = [{ role: "user", content: `${session} ${LONG}` }]
  const at: number[] = []
  for (let round = 0; round < count; round++) {
    const before = backends.map(({ asked }) => asked.length)
    // Without an objective: how fast engines are on a busy machine is not asked.
    const body = { messages, max_tokens: 3, slo: { session, class: "best_effort" } }
    const response = await fetch(`${urls[round % urls.length]}/v1/chat/completions`, {
      ...{ method: "POST", headers: HEADERS, body: JSON.stringify(body) },
    })
    expect(response.status).toBe(200)
    const { choices } = (await response.json()) as {
      choices: { message: { role: string; content: string } }[]
    }
    messages.push(choices[0]!.message, { role: "user", content: "And then?" })
    at.push(backends.findIndex(({ asked }, i) => asked.length > before[i]!))
    if (urls.length > 1) await heard(urls)
  }
  return at
}

/** How many of them went where the one before had gone. */
async function rounds(session: string, urls: string[], backends: FakeBackend[], count = 4): Promise<number> {
  const at = await places(session, urls, backends, count)
  return at.filter((backend, round) => round > 0 && backend === at[round - 1]).length
}

describe("two gateways", () => {
  test(
    "rounds of a session find their KV from either; one is killed, and the other serves on",
    SLOW,
    async () => {
      const backends = await backendsOf(3, { words: 2 })
      const [a, b] = [await freePort(), await freePort()]
      // Did each look for the other, one of two connections would end, whenever that is, with what was told there.
      const one = await gateway(backends, a, [])
      const other = await gateway(backends, b, [a])
      const urls = [one.url, other.url]
      await connected(urls, 1)
      let stayed = 0
      for (let i = 0; i < 6; i++) {
        // Else both would give their first rounds to the same engines in turn, by luck.
        await rounds(`alone ${i}`, [other.url], backends, 1)
        stayed += await rounds(`s${i}`, i % 2 === 0 ? urls : urls.toReversed(), backends)
      }
      // Where they do not tell each other 3 to 9 of 18 stay.
      expect(stayed).toBeGreaterThan(14)
      other.child.kill("SIGKILL")
      await connected([one.url], 0)
      expect(one.said()).toContain("is gone")
      expect(await rounds("later", [one.url], backends, 6)).toBeGreaterThan(3)

      const again = await gateway(backends, b, [a])
      await connected([one.url, again.url], 1)
      await rounds("later still", [again.url], backends, 2)
      one.child.kill("SIGTERM")
      expect(await one.exit).toBe(0)
    },
  )

  test("one of two processes, one of one: each hears of all, and counts no request twice", SLOW, async () => {
    const backends = await backendsOf(1, { words: 60 })
    const goOn = backends[0]!.hold()
    const [a, b] = [await freePort(), await freePort()]
    const one = await gateway(backends, a, [], "--gateways", "2")
    const other = await gateway(backends, b, [a])
    await connected([one.url, other.url], 1)
    const body = JSON.stringify({ prompt: "hi", max_tokens: 60 })
    const ask = (url: string) =>
      // A connection each: the next one is another process's.
      fetch(`${url}/v1/completions`, {
        ...{ method: "POST", headers: { ...HEADERS, connection: "close" }, body },
      }).then((response) => response.text())
    const asked = [...Array.from({ length: 4 }, () => ask(one.url)), ask(other.url), ask(other.url)]
    const running = (url: string) => metric(url, `slos_serve_replica_running{replica="${host}"}`)
    const host = new URL(backends[0]!.url).host
    for (const url of [one.url, other.url]) await expect.poll(() => running(url)).toBe(6)
    goOn()
    await Promise.all(asked)
    for (const url of [one.url, other.url]) await expect.poll(() => running(url)).toBe(0)
    one.child.kill("SIGTERM")
    expect(await one.exit).toBe(0)
  })
})

test(
  "a gateway that starts, or starts again, amid load knows what the others have in flight, and where sessions are",
  SLOW,
  async () => {
    // Engines that say nothing of themselves: what is known of others' requests there others told. Answers outlast the test.
    const backends = await backendsOf(3, { kind: "openai", words: 10_000, wordMs: 200 })
    const [a, b] = [await freePort(), await freePort()]
    const one = await gateway(backends, a, [], "--gateways", "2")
    const running = async (url: string) => {
      const page = await (await fetch(`${url}/metrics`)).text()
      const counts = page.matchAll(/^slos_serve_replica_(?:running|waiting)\{[^}]*\} (\d+)$/gm)
      return [...counts].reduce((sum, [, count]) => sum + Number(count), 0)
    }
    const body = JSON.stringify({ prompt: "hi", max_tokens: 10_000, slo: { class: "best_effort" } })
    const over = new AbortController()
    const ask = (url: string) =>
      fetch(`${url}/v1/completions`, {
        ...{ method: "POST", headers: { ...HEADERS, connection: "close" }, body, signal: over.signal },
      })
        .then((response) => response.text())
        .catch(() => null)
    const asked = Array.from({ length: 5 }, () => ask(one.url))
    await expect.poll(() => running(one.url), { timeout: 60_000 }).toBe(5)
    const first = await gateway(backends, b, [a])
    await expect.poll(() => running(first.url), { timeout: 60_000 }).toBe(5)
    asked.push(ask(first.url))
    for (const url of [one.url, first.url]) await expect.poll(() => running(url), { timeout: 60_000 }).toBe(6)

    first.child.kill("SIGKILL")
    // With what it had.
    await expect.poll(() => running(one.url), { timeout: 60_000 }).toBe(5)
    for (const { options } of backends) Object.assign(options, { words: 2, wordMs: 1, firstMs: 1 })
    const sessions = ["s0", "s1", "s2", "s3", "s4", "s5"]
    const began: number[] = []
    for (const session of sessions) began.push(...(await places(session, [one.url], backends, 1)))
    const again = await gateway(backends, b, [a])
    await expect.poll(() => running(again.url), { timeout: 60_000 }).toBe(5)
    const wentOn: number[] = []
    for (const session of sessions) wentOn.push(...(await places(session, [again.url], backends, 1)))
    // By chance two of six would.
    expect(wentOn.filter((place, i) => place === began[i]).length).toBeGreaterThan(4)
    over.abort()
    await Promise.all(asked)
    await expect.poll(() => running(again.url), { timeout: 60_000 }).toBe(0)
    one.child.kill("SIGTERM")
    expect(await one.exit).toBe(0)
  },
)

test("a key's rate is of all gateways together, and what one keeps of responses all find", SLOW, async () => {
  const config = join(folder, "peers-limits.yaml")
  writeFileSync(config, keys("a", "b").replace("}", ", requests_per_minute: 6}"))
  const backends = await backendsOf(1, {})
  const [a, b] = [await freePort(), await freePort()]
  const one = await gateway(backends, a, [], "--config", config, "--gateways", "2")
  const other = await gateway(backends, b, [a], "--config", config)
  const urls = [one.url, other.url]
  await connected(urls, 1)
  const headers = { ...HEADERS, ...by("sk-b") }
  const respond = (url: string, body: object) =>
    fetch(`${url}/v1/responses`, { method: "POST", headers, body: JSON.stringify(body) })
  const { id, output } = (await (await respond(one.url, { input: "hi" })).json()) as {
    id: string
    output: object[]
  }
  const read = (url: string) => fetch(`${url}/v1/responses/${id}`, { headers })
  expect(((await (await read(other.url)).json()) as { output: object[] }).output).toEqual(output)
  const next = (await (await respond(other.url, { input: "and?", previous_response_id: id })).json()) as {
    id: string
  }
  const said = backends[0]!.asked.at(-1)!.body.messages as { content: string }[]
  expect(said.map(({ content }) => content)).toEqual(["hi", "one two three four", "and?"])
  expect((await respond(one.url, { input: "so?", previous_response_id: next.id })).status).toBe(200)
  expect((await fetch(`${other.url}/v1/responses/${id}`, { method: "DELETE", headers })).status).toBe(200)
  for (const url of urls) expect((await read(url)).status).toBe(404)

  // By two gateways that do not tell each other 12 of 16 would be taken.
  let taken = 0
  for (let i = 0; i < 16; i++) {
    if ((await complete(urls[i % 2]!, "sk-a")).status === 200) taken++
    await heard(urls)
  }
  expect(taken).toBeGreaterThanOrEqual(6)
  expect(taken).toBeLessThan(9)
})

const BACKEND = ["--backend", "http://127.0.0.1:1"]
test.each<[string[], RegExp]>([
  [[...BACKEND, "--peer", "http://gw-2:8090"], /--peer: "http:\/\/gw-2:8090" is no address of a gateway/],
  [[...BACKEND, "--peer", "gw-2:0"], /is no address/],
  [[...BACKEND, "--peer", "gw-2"], /peers need a secret/],
  [[...BACKEND, "--peer", "gw-2", "--peer-secret", "in plain words, long"], /--peer-secret must be env:NAME/],
  [[...BACKEND, "--peer", "gw-2", "--peer-secret", "env:NO_SUCH_NAME"], /NO_SUCH_NAME is not set/],
  [[...BACKEND, "--peer", "gw-2", "--peer-secret", `file:${folder}/none`], /cannot read the file/],
  [[...BACKEND, "--peer", "gw-2", "--peer-secret", "env:SHORT_SECRET"], /shorter than 16/],
  [[...BACKEND, "--peer-secret", `file:${SECRET}`], /is of a gateway with peers/],
  [
    [...BACKEND, "--peer", "gw-2", "--peer-secret", `file:${SECRET}`, "--peer-port", "70000"],
    /between 1 and 65535/,
  ],
  [["--engine", "fake", "--peer", "gw-2", "--peer-secret", `file:${SECRET}`], /there are no backends/],
  [
    [...BACKEND, "--peer-file", `${folder}/none.yaml`, "--peer-secret", `file:${SECRET}`],
    /none\.yaml: ENOENT/,
  ],
])("what cannot be meant is one line and exit code 2: %j", SLOW, (args, line) => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, "serve", "--port", "0", ...args], {
    ...{ encoding: "utf8", env: { ...process.env, SHORT_SECRET: "x" } },
  })
  expect(stderr).toMatch(line)
  expect(status).toBe(2)
  expect(
    stderr
      .trim()
      .split("\n")
      .filter((one) => one.includes("error")),
  ).toHaveLength(1)
})

test.each([[[]], [["--gateways", "2"]]])(
  "a taken port is one line and exit code 2: %j",
  SLOW,
  async (more: string[]) => {
    const [backend] = await backendsOf(1, {})
    const { port } = new URL(backend!.url)
    const args = ["serve", "--port", "0", "--backend", backend!.url, "--peer-port", port]
    const { status, stderr } = spawnSync(
      process.execPath,
      [MAIN, ...args, "--peer-secret", `file:${SECRET}`, ...more],
      {
        encoding: "utf8",
      },
    )
    expect(stderr).toContain("--peer-port")
    expect(status).toBe(2)
  },
)
