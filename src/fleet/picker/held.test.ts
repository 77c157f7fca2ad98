/** What the picker holds, over a real gRPC socket: by deadline, within bounds, until there is room or it is refused. */
import { describe, expect, it } from "vitest"
import { bodyMessage, type EnvoyStream, headerMap, headersMessage } from "./envoy-part.ts"
import { LeastLoaded } from "./least-loaded.ts"
import type { PickerOptions } from "./run.ts"
import { A, CHAT, chat, FLOW, headersIn, metadataIn, PROMPT, pickersOfTests, refusal } from "./testing.ts"
import { BODY_MODE } from "./wire.ts"

const picker = pickersOfTests()

describe("what is held", () => {
  /** A picker with one endpoint that is full, and the stream that fills it. */
  async function filled(changes: Partial<PickerOptions> = {}) {
    const endpoints = [{ host: "127.0.0.1", port: 8001 }]
    const started = await picker({ endpoints, chooser: new LeastLoaded(1), ...changes })
    const busy = started.open()
    await chat(busy)
    return { started, busy }
  }

  const finish = (stream: EnvoyStream) =>
    stream
      .say({ responseHeaders: { headers: headerMap({ ":status": "200" }) } })
      .say({ responseBody: { endOfStream: true } })

  it("is sent when there is room, the earliest deadline first", async () => {
    const { started, busy } = await filled()
    const late = started.open()
    late.say(headersMessage({ ...CHAT, "x-llm-d-slo-ttft-ms": "60000" })).say(bodyMessage(PROMPT))
    const early = started.open()
    early.say(headersMessage({ ...CHAT, "x-slo-ttft-ms": "30000" })).say(bodyMessage(PROMPT))
    await expect.poll(() => started.gauge("held")).toBe(2)
    finish(busy)
    const placed = await early.next()
    expect(metadataIn(placed)).toBe(A)
    // The engine is told what is left of its TTFT.
    expect(Number(headersIn(placed)["x-llm-d-slo-ttft-ms"])).toBeLessThan(30_000)
    expect(late.pending).toBe(0)
    finish(early)
    expect(metadataIn(await late.next())).toBe(A)
  })

  it("is told in buffered mode that Envoy must wait for longer", async () => {
    const { started, busy } = await filled()
    const stream = started.open().say(headersMessage(CHAT, { mode: BODY_MODE.buffered }))
    await stream.next()
    stream.say(bodyMessage(PROMPT))
    expect((await stream.next())?.overrideMessageTimeout?.seconds).toBeGreaterThan(0)
    finish(busy)
    expect(metadataIn(await stream.next())).toBe(A)
  })

  it("gives its place up when its client leaves", async () => {
    const { started, busy } = await filled()
    const gone = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    await expect.poll(() => started.gauge("held")).toBe(1)
    gone.call.cancel()
    await expect.poll(() => started.gauge("held")).toBe(0)
    const next = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    finish(busy)
    expect(metadataIn(await next.next())).toBe(A)
    expect(await started.metrics()).toMatch(/slos_serve_picker_gone_total 1/)
  })

  it("is given up where Envoy has answered by itself", async () => {
    const { started } = await filled()
    const stream = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    await expect.poll(() => started.gauge("held")).toBe(1)
    stream.say({ responseHeaders: { headers: headerMap({ ":status": "504" }) } })
    expect((await stream.next())?.responseHeaders).toBeDefined()
    expect(await started.gauge("held")).toBe(0)
  })

  it("is bounded: the one that can wait longest gets 429, the reason and when to come back", async () => {
    const { started } = await filled({ flow: { ...FLOW, mostHeld: 1 } })
    const held = (ttftMs: number) =>
      started
        .open()
        .say(headersMessage({ ...CHAT, "x-llm-d-slo-ttft-ms": String(ttftMs) }))
        .say(bodyMessage(PROMPT))
    const first = held(50_000)
    await expect.poll(() => started.gauge("held")).toBe(1)
    const { status, error, headers, over } = await refusal(held(60_000))
    expect(status).toBe(429)
    expect(error).toMatchObject({ type: "rate_limit_error", code: "rejected_saturated" })
    expect(headers["x-llm-d-request-dropped-reason"]).toBe("rejected-saturated")
    expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(1)
    expect(over).toBe(true)
    held(40_000)
    expect(await refusal(first)).toMatchObject({ status: 429 })
  })

  it("counts bodies that are still coming: there is no memory for all that begin", async () => {
    const started = await picker({ flow: { ...FLOW, mostHeldBytes: 100_000 } })
    const begun = started
      .open()
      .say(headersMessage(CHAT))
      .say(bodyMessage(`{"a":"${"x".repeat(60_000)}`, false))
    // It has been read when what came after it is answered.
    await chat(started.open())
    const more = started
      .open()
      .say(headersMessage(CHAT))
      .say(bodyMessage(`{"a":"${"x".repeat(60_000)}`, false))
    expect(await refusal(more)).toMatchObject({
      status: 429,
      headers: { "x-llm-d-request-dropped-reason": "rejected-saturated" },
    })
    begun.call.cancel()
    await expect.poll(() => started.gauge("gone_total")).toBe(1)
    expect((await chat(started.open(), {}, `{"a":"${"x".repeat(60_000)}"}`)).endpoint).toBeDefined()
  })

  it("is refused when it waited too long", async () => {
    const { started } = await filled({ flow: { ...FLOW, longestHoldUs: 1 } })
    const stream = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    const { status, headers } = await refusal(stream)
    expect([status, headers["x-llm-d-request-dropped-reason"]]).toEqual([429, "rejected-ttl-expired"])
  })

  it("is refused when the picker ends, and so is what comes then", async () => {
    const { started } = await filled()
    const held = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    await expect.poll(() => started.gauge("held")).toBe(1)
    const stopped = started.picker.stop(20)
    expect(await refusal(held)).toMatchObject({
      status: 503,
      headers: { "x-llm-d-request-dropped-reason": "rejected-shutting-down" },
    })
    await stopped
  })
})
