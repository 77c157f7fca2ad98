/** Streams to slow and dead readers: fewer chunks, the same text, bounded memory. */
import type { ServerResponse } from "node:http"
import { connect } from "node:net"
import { Writable } from "node:stream"
import { describe, expect, it } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import type { Outcome } from "../core/protocol.ts"
import { resolveSlo } from "../serve/slo-resolve.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { ChatFormat } from "./format.ts"
import { SseStream } from "./sse.ts"
import { testServer } from "./testing.ts"

const slo = resolveSlo(defaultSloClasses(), { headers: {}, modelClass: null })
const outcome: Outcome = {
  app: 0,
  arrivalUs: 0,
  startedUs: 1,
  firstTokenUs: 2,
  finishedUs: 3,
  promptTokens: 1,
  cachedTokens: 0,
  outputTokens: 2,
  maxGapUs: 0,
  ttftUs: 5,
  tier: "slo",
  servedTier: "slo",
  preemptions: 0,
  attained: true,
  attainedEvery10: true,
  stages: [],
}
const end = {
  kind: "finished" as const,
  reason: "stop" as const,
  usage: {
    promptTokens: 1,
    cachedTokens: 0,
    completionTokens: 2,
    reasoningTokens: 0,
    drafts: 0,
    draftedTokens: 0,
    acceptedTokens: 0,
  },
  outcome,
}
const delta = (content: string, completionTokens: number): AnswerDelta => ({
  content,
  reasoning: "",
  toolCalls: [],
  logprobs: [],
  promptTokens: 1,
  completionTokens,
})

/** A response whose reader takes one write at a time, when told to. */
class SlowResponse extends Writable {
  readonly chunks: string[] = []
  #take: (() => void) | null = null
  writeHead(): this {
    return this
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.chunks.push(chunk.toString())
    this.#take = done
  }
  take(): boolean {
    const take = this.#take
    this.#take = null
    take?.()
    return take !== null
  }
}

describe("SSE", () => {
  it("merges what a slow reader has not taken; the text is the same", async () => {
    const raw = new SlowResponse({ highWaterMark: 512 })
    const format = new ChatFormat({ id: "1", model: "m", slo, includeUsage: false })
    const sink = new SseStream(raw as unknown as ServerResponse, format, {
      begin: () => {},
      headers: {},
      bufferLimit: 2048,
    })
    let most = 0
    for (let i = 1; i <= 500; i++) {
      sink.sinks[0]!.delta(delta(`word${i} `, i))
      await new Promise(setImmediate)
      most = Math.max(most, raw.writableLength)
    }
    sink.sinks[0]!.end(end)
    let closed = false
    raw.once("finish", () => {
      closed = true
    })
    while (!closed) {
      raw.take()
      await new Promise(setImmediate)
    }
    const events = raw.chunks
      .join("")
      .split("\n\n")
      .filter((e) => e.startsWith("data: {"))
    const text = events.map((e) => JSON.parse(e.slice(6)).choices[0].delta.content ?? "").join("")
    expect(text).toBe(Array.from({ length: 500 }, (_, i) => `word${i + 1} `).join(""))
    expect(events.length).toBeGreaterThan(3)
    expect(events.length).toBeLessThan(40)
    expect(most).toBeLessThan(4096)
    expect(raw.chunks.at(-1)).toMatch(/data: \[DONE\]\n\n$/)
  })

  it("drops a reader that takes nothing", async () => {
    const raw = new SlowResponse({ highWaterMark: 16 })
    const format = new ChatFormat({ id: "1", model: "m", slo, includeUsage: false })
    const sink = new SseStream(raw as unknown as ServerResponse, format, {
      begin: () => {},
      headers: {},
      bufferLimit: 100,
      stallMs: 30,
    })
    const closed = new Promise((resolve) => raw.once("close", resolve))
    sink.sinks[0]!.delta(delta("a", 1))
    sink.sinks[0]!.delta(delta("b", 2))
    await closed
    expect(raw.destroyed).toBe(true)
  })

  it("begins with a comment when the first token is long in coming", async () => {
    const raw = new SlowResponse()
    const format = new ChatFormat({ id: "1", model: "m", slo, includeUsage: false })
    const sink = new SseStream(raw as unknown as ServerResponse, format, {
      begin: () => {},
      headers: {},
      heartbeatMs: 10,
    })
    expect(await sink.begun).toBeNull()
    while (raw.chunks.length < 2) {
      raw.take()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(raw.chunks.join("")).toContain(": waiting\n\n")
    raw.destroy()
  })

  it("a client that vanishes frees its request", async () => {
    const server = await testServer({ listen: true, fake: { outputTokens: 900 } })
    const body = JSON.stringify({
      messages: [{ role: "user", content: "hi" }],
      stream: true,
      max_tokens: 900,
    })
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1")
    socket.write(
      "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" +
        `content-length: ${body.length}\r\n\r\n${body}`,
    )
    const reason = new Promise((resolve) =>
      server.driver.observe((effect) => effect.type === "finished" && resolve(effect.reason)),
    )
    await new Promise((resolve) => socket.once("data", resolve))
    socket.resetAndDestroy()
    expect(await reason).toBe("cancelled")
    await server.close()
  })
})
