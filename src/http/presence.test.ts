/** Clients on raw sockets: those that close their sending side get their answers, those that leave free their place. */
import { connect, type Socket } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Effect } from "../core/protocol.ts"
import { testServer } from "./testing.ts"

/** A step takes 20 ms: an answer of 100 tokens takes longer than the server waits before it asks. */
const cost = { pieces: [{ step: 20_000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
const finished: string[] = []
let server: Awaited<ReturnType<typeof testServer>>

beforeAll(async () => {
  server = await testServer({ listen: true, fake: { cost } })
  server.driver.observe((effect: Effect) => effect.type === "finished" && finished.push(effect.reason))
})
afterAll(() => server.close())

interface Asked {
  socket: Socket
  /** All that came, once the connection is over. */
  all: Promise<string>
  /** Resolves when something has come. */
  begun: Promise<void>
}

function ask(fields: object, version = "1.1"): Asked {
  const body = JSON.stringify({ prompt: "hi", max_tokens: 100, ignore_eos: true, ...fields })
  const socket = connect({ port: Number(new URL(server.url).port), allowHalfOpen: true })
  socket.write(
    `POST /v1/completions HTTP/${version}\r\nhost: a\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  let text = ""
  const all = new Promise<string>((resolve) => {
    socket.on("data", (data) => (text += data))
    socket.on("end", () => socket.end())
    socket.on("error", () => {})
    socket.on("close", () => resolve(text))
  })
  return { socket, all, begun: new Promise((resolve) => socket.once("data", () => resolve())) }
}

const idle = () => expect.poll(() => server.driver.snapshot()).toMatchObject({ running: 0, waiting: 0 })

describe.concurrent("a client that closes its sending side after its request", () => {
  it("gets a short answer, and nothing before it", async () => {
    const { socket, all } = ask({ max_tokens: 3 })
    socket.end()
    expect(await all).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*"completion_tokens":3/)
  })

  it("gets a long one, after interim responses", async () => {
    const { socket, all } = ask({})
    socket.end()
    const text = await all
    expect(
      text
        .split("HTTP/1.1 ")
        .slice(1)
        .map((part) => part.slice(0, 3)),
    ).toEqual(["100", "200"])
    expect(text).toMatch(/"completion_tokens":100/)
  })

  it("gets it over HTTP/1.0 without them", async () => {
    const { socket, all } = ask({}, "1.0")
    socket.end()
    expect(await all).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*"completion_tokens":100/)
  })

  it("gets its stream to the end", async () => {
    const { socket, all, begun } = ask({ stream: true })
    await begun
    socket.end()
    const text = await all
    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*"finish_reason":"length"[\s\S]*data: \[DONE\]\n\n/)
    expect(text).toMatch(/^: waiting$/m)
  })

  it("gets an error too", async () => {
    const { socket, all } = ask({ max_tokens: -2 })
    socket.end()
    expect(await all).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  })

  it("is refused when that was in the middle of its request", async () => {
    const socket = connect({ port: Number(new URL(server.url).port), allowHalfOpen: true })
    socket.end(
      "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    )
    let text = ""
    socket.on("data", (data) => (text += data))
    await new Promise((resolve) => socket.once("close", resolve))
    expect(text).toMatch(/^(HTTP\/1\.1 400 |$)/)
  })
})

describe("a client that leaves is noticed", () => {
  const away: [string, (socket: Socket) => void][] = [
    ["by closing", (socket) => socket.destroy()],
    ["with a reset", (socket) => socket.resetAndDestroy()],
  ]
  it.each([
    ...away.map((way) => [...way, {}] as const),
    ...away.map((way) => [...way, { stream: true }] as const),
  ])("%s, at once and later: %#", async (_, leave, fields) => {
    finished.length = 0
    const long = { max_tokens: 900, ...fields }
    for (const afterMs of [0, 100]) {
      const { socket } = ask(long)
      await new Promise((resolve) => socket.once("connect", resolve))
      if (afterMs > 0) await expect.poll(() => server.driver.snapshot().running).toBe(1)
      leave(socket)
    }
    await idle()
    expect(new Set(finished)).toEqual(new Set(["cancelled"]))
  })

  it("after it had closed its sending side", async () => {
    finished.length = 0
    const { socket } = ask({ max_tokens: 900, stream: true })
    socket.end()
    await expect.poll(() => server.driver.snapshot().running).toBe(1)
    socket.destroy()
    await idle()
    expect(finished).toEqual(["cancelled"])
  })
})
