/** What browsers and proxies count on: cross-origin requests, `Allow`, compressed bodies. */
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { parseOrigin } from "../config/origins.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
const body = { messages: [{ role: "user", content: "hi" }], max_tokens: 3 }
const APP = "https://app.example.com"

describe("pages of other origins", () => {
  let open: Server
  let shut: Server
  beforeAll(async () => {
    open = await testServer({ listen: true, corsOrigins: [APP, "http://localhost:3000"] })
    shut = await testServer({ listen: true })
  })
  afterAll(async () => {
    await open.close()
    await shut.close()
  })

  const preflight = (server: Server, origin: string) =>
    fetch(`${server.url}/v1/chat/completions`, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-lang",
      },
    })

  it("are asked in, with the headers that clients send, also where keys are wanted", async () => {
    const keyed = await testServer({
      listen: true,
      corsOrigins: [APP],
      tenancy: { tenants: [{ name: "a", weight: 1, keys: ["k"] }] },
    })
    for (const server of [open, keyed]) {
      const answer = await preflight(server, APP)
      expect(answer.status).toBe(204)
      expect(answer.headers.get("access-control-allow-origin")).toBe(APP)
      expect(answer.headers.get("access-control-allow-headers")).toContain("x-stainless-lang")
      expect(answer.headers.get("access-control-allow-methods")).toContain("POST")
      expect(answer.headers.get("vary")).toMatch(/origin/i)
    }
    const refused = await fetch(`${keyed.url}/v1/models`, { headers: { origin: APP } })
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, APP])
    await keyed.close()
  })

  it("read answers, streams, errors and their headers", async () => {
    for (const [extra, status] of [
      [{}, 200],
      [{ stream: true }, 200],
      [{ max_tokens: -5 }, 400],
    ] as const) {
      const answer = await fetch(`${open.url}/v1/chat/completions`, {
        method: "POST",
        headers: { origin: APP, "content-type": "application/json" },
        body: JSON.stringify({ ...body, ...extra }),
      })
      expect(answer.status).toBe(status)
      expect(answer.headers.get("access-control-allow-origin")).toBe(APP)
      expect(answer.headers.get("access-control-expose-headers")).toContain("retry-after-ms")
      expect(answer.headers.get("x-request-id")).not.toBeNull()
      await answer.text()
    }
  })

  it("that are not named get no leave, nor any where none are", async () => {
    const other = await preflight(open, "https://evil.example.com")
    expect(other.headers.get("access-control-allow-origin")).toBeNull()
    const none = await preflight(shut, APP)
    expect([none.status, none.headers.get("access-control-allow-origin")]).toEqual([405, null])
    expect((await fetch(`${shut.url}/health`, { headers: { origin: APP } })).headers.get("vary")).toBeNull()
  })

  it("may be all", async () => {
    const server = await testServer({ listen: true, corsOrigins: ["*"] })
    const answer = await fetch(`${server.url}/health`, { headers: { origin: "https://any.example.com" } })
    expect(answer.headers.get("access-control-allow-origin")).toBe("*")
    await server.close()
  })
})

test.each([
  ["https://app.example.com", "https://app.example.com"],
  ["https://app.example.com/", "https://app.example.com"],
  ["http://localhost:3000", "http://localhost:3000"],
  ["*", "*"],
  ["null", "null"],
])("%s is an origin", (text, origin) => expect(parseOrigin(text)).toBe(origin))

test.each(["app.example.com", "https://app.example.com/path", "", "file:///x", "https://"])(
  "%j is none",
  (text) => expect(() => parseOrigin(text)).toThrow(/is no origin; write scheme/),
)

describe("a server", () => {
  let server: Server
  beforeAll(async () => {
    server = await testServer({ listen: true, bodyLimit: 200_000 })
  })
  afterAll(() => server.close())

  it.each([
    ["DELETE", "/v1/models", "GET, HEAD"],
    ["GET", "/v1/chat/completions", "POST"],
    ["PUT", "/health", "GET, HEAD"],
  ])("says what is allowed instead of %s on %s", async (method, url, allow) => {
    const answer = await fetch(server.url + url, { method })
    expect([answer.status, answer.headers.get("allow")]).toEqual([405, allow])
  })

  const send = async (encoding: string, bytes: Uint8Array<ArrayBuffer>) => {
    const answer = await fetch(`${server.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "content-encoding": encoding },
      body: bytes,
    })
    const told = (await answer.json()) as { error?: { code: string; message: string } }
    return { status: answer.status, headers: answer.headers, error: told.error }
  }
  const ENCODERS = { gzip: gzipSync, br: brotliCompressSync, deflate: deflateSync, zstd: zstdCompressSync }
  const coders = Object.entries(ENCODERS).filter(([, encode]) => typeof encode === "function")

  it.each(coders)("takes a body in %s", async (encoding, encode) => {
    const padded = JSON.stringify({ ...body, user: "u".repeat(100_000) })
    expect((await send(encoding, encode(padded) as never)).status).toBe(200)
    expect((await send(encoding.toUpperCase(), encode(padded) as never)).status).toBe(200)
  })

  it("takes one as it is by that name", async () => {
    expect((await send("identity", Buffer.from(JSON.stringify(body)))).status).toBe(200)
  })

  it.each(coders)("refuses what %s swells to too much", async (encoding, encode) => {
    const bomb = encode(Buffer.alloc(50_000_000, " ")) as never as Uint8Array<ArrayBuffer>
    expect(bomb.length).toBeLessThan(100_000)
    const { status, error } = await send(encoding, bomb)
    expect([status, error?.code]).toEqual([413, "body_too_large"])
    const many = encode(`{"messages":[${Array(5000).fill("{}").join()}]}`) as never
    const part = await send(encoding, many)
    expect([part.status, part.error?.message]).toEqual([400, expect.stringContaining("'messages'")])
  })

  it.each(coders)("refuses what is no %s, or only a part of it", async (encoding, encode) => {
    const whole = encode(JSON.stringify(body)) as never as Uint8Array<ArrayBuffer>
    for (const bytes of [Buffer.from(JSON.stringify(body)), whole.slice(0, -4)]) {
      const { status, error } = await send(encoding, bytes)
      expect([status, error?.code]).toEqual([400, "invalid_content_encoding"])
    }
  })

  it.each(["compress", "gzip, br", "__proto__"])(
    "names the encodings that it knows instead of %s",
    async (encoding) => {
      const { status, error, headers } = await send(encoding, Buffer.from("{}"))
      expect([status, error?.code]).toEqual([415, "unsupported_content_encoding"])
      expect(error?.message).toContain("gzip, br, deflate, zstd, identity")
      expect(headers.get("accept-encoding")).toBe("gzip, br, deflate, zstd")
    },
  )
})
