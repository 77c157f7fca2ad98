/** Hosts that a server answers for: unit cases, and over a socket as a page of another site would come. */
import { request } from "node:http"
import { afterEach, expect, it } from "vitest"
import { UPGRADE_PATH, UPGRADE_PROTOCOL } from "../wire/upgrade.ts"
import { checkHost } from "./hosts.ts"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>> | null = null
afterEach(async () => {
  await server?.close()
  server = null
})

const takes = (header: string | undefined, address: string, allowed: string[] = []) => {
  try {
    checkHost(header, { address, allowed })
    return true
  } catch {
    return false
  }
}

it.each([
  ...["localhost", "localhost:8080", "LOCALHOST.", "127.0.0.1:1", "[::1]:8080", "::1"].map(
    (host) => [host, true] as const,
  ),
  ...[
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "",
    "[::2]:1",
    "a:b:c",
  ].map((host) => [host, false] as const),
])("on loopback %s: %s", (host, taken) => {
  for (const address of ["127.0.0.1", "localhost", "::1"]) expect(takes(host, address)).toBe(taken)
})

it("knows names that it was given, and those below a name", () => {
  const allowed = ["llm.example", ".lab.example"]
  for (const host of ["llm.example", "LLM.example:443", "lab.example", "a.b.lab.example"])
    expect(takes(host, "127.0.0.1", allowed)).toBe(true)
  for (const host of ["xllm.example", "a.llm.example", "evillab.example"])
    expect(takes(host, "127.0.0.1", allowed)).toBe(false)
  expect(takes("any", "127.0.0.1", ["*"])).toBe(true)
  // HTTP/1.0 has none, and no page sends it.
  expect(takes(undefined, "127.0.0.1")).toBe(true)
})

it("for other machines asks only where names are given", () => {
  expect(takes("any.example", "0.0.0.0")).toBe(true)
  expect(takes("any.example", "0.0.0.0", ["llm.example"])).toBe(false)
  expect(takes("llm.example", "0.0.0.0", ["llm.example"])).toBe(true)
  expect(takes("10.0.0.7", "10.0.0.7", ["llm.example"])).toBe(true)
})

it("refuses another host on every route and every method, before a key or a body is looked at", async () => {
  server = await testServer({ listen: true, hosts: { address: "127.0.0.1", allowed: [] } })
  const port = Number(new URL(server.url).port)
  const ask = (path: string, method: string, host: string, headers: Record<string, string> = {}) =>
    new Promise<[number, string]>((resolve, reject) => {
      const asked = request(
        { host: "127.0.0.1", port, path, method, headers: { host, ...headers } },
        (answer) => {
          let text = ""
          answer.on("data", (piece) => (text += piece))
          answer.on("end", () => resolve([answer.statusCode!, text]))
        },
      )
      asked.on("error", reject)
      asked.end()
    })
  for (const [path, method] of [
    ...[
      ["/", "GET"],
      ["/metrics", "GET"],
      ["/v1/models", "GET"],
      ["/none", "GET"],
      ["/v1/slo/requests", "GET"],
    ],
    ...[
      ["/v1/completions", "POST"],
      ["/v1/completions", "OPTIONS"],
    ],
  ] as [string, string][]) {
    const [status, text] = await ask(path, method, `evil.example:${port}`)
    expect([path, status]).toEqual([path, 403])
    expect(JSON.parse(text).error).toMatchObject({ code: "host_not_allowed", type: "invalid_request_error" })
  }
  const upgrade = { connection: "upgrade", upgrade: UPGRADE_PROTOCOL }
  expect((await ask(UPGRADE_PATH, "GET", "evil.example", upgrade))[0]).toBe(403)
  expect((await ask("/v1/models", "GET", `localhost:${port}`))[0]).toBe(200)
})
