/** The picker over a real gRPC socket, with a client that plays Envoy's part: every mode, every refusal, hostile streams. */
import { connect } from "node:http2"
import { describe, expect, it } from "vitest"
import { bodyMessage, type EnvoyStream, headerMap, headersMessage } from "./envoy-part.ts"
import { LeastLoaded } from "./least-loaded.ts"
import {
  A,
  B,
  bodyIn,
  CHAT,
  chat,
  FLOW,
  headersIn,
  metadataIn,
  PROMPT,
  pickersOfTests,
  refusal,
  subset,
} from "./testing.ts"
import { BODY_MODE } from "./wire.ts"

const picker = pickersOfTests()

describe("a request", () => {
  it("in full duplex is answered once its whole body is here: headers, metadata, pieces", async () => {
    const stream = (await picker()).open()
    stream.say(headersMessage(CHAT, { mode: BODY_MODE.fullDuplex }))
    stream.say(bodyMessage(PROMPT.slice(0, 10), false)).say(bodyMessage(PROMPT.slice(10), false))
    stream.say({ requestBody: { endOfStream: true } })
    const first = await stream.next()
    expect(first?.requestHeaders?.response.clearRouteCache).toBe(true)
    expect([A, B]).toContain(metadataIn(first))
    expect(headersIn(first)).toEqual({
      "x-gateway-destination-endpoint": metadataIn(first),
      "content-length": String(PROMPT.length),
    })
    expect(bodyIn(await stream.next())).toEqual({ body: PROMPT, endOfStream: true })
  })

  it("without a word of the mode is taken as full duplex", async () => {
    const stream = (await picker()).open()
    expect((await chat(stream)).endpoint).toBeDefined()
    expect(bodyIn(await stream.next()).body).toBe(PROMPT)
  })

  it("with trailers ends with them, in order", async () => {
    const stream = (await picker()).open()
    stream.say(headersMessage(CHAT)).say(bodyMessage(PROMPT, false)).say({ requestTrailers: {} })
    expect(metadataIn(await stream.next())).toBeDefined()
    expect(bodyIn(await stream.next())).toEqual({ body: PROMPT, endOfStream: false })
    expect((await stream.next())?.requestTrailers).toBeDefined()
  })

  it("of a large body gets it back in pieces that a data plane takes", async () => {
    const stream = (await picker()).open()
    const body = JSON.stringify({ prompt: "x".repeat(200_000) })
    await chat(stream, { ":path": "/v1/completions" }, body)
    let back = ""
    for (let ended = false; !ended; ) {
      const piece = bodyIn(await stream.next())
      expect(piece.body.length).toBeLessThanOrEqual(62_000)
      back += piece.body
      ended = piece.endOfStream
    }
    expect(back).toBe(body)
  })

  it("in buffered mode is let on, and placed with its body", async () => {
    const stream = (await picker({ rewrite: { priority: "low-first", sloArguments: false } })).open()
    stream.say(headersMessage(CHAT, { mode: BODY_MODE.buffered }))
    expect((await stream.next())?.requestHeaders?.response.headerMutation).toBeUndefined()
    stream.say(bodyMessage(PROMPT))
    const placed = await stream.next()
    const { body } = bodyIn(placed)
    expect(JSON.parse(body)).toMatchObject({ model: "m", priority: expect.any(Number) })
    expect(headersIn(placed)["content-length"]).toBe(String(body.length))
    expect(headersIn(placed)["x-gateway-destination-endpoint"]).toBe(metadataIn(placed))
  })

  it.each([
    ["no body", BODY_MODE.none],
    ["a streamed body", BODY_MODE.streamed],
    ["a body that may be cut", BODY_MODE.bufferedPartial],
  ])("with %s is placed by its headers, and every piece is answered", async (_what, mode) => {
    const stream = (await picker()).open()
    stream.say(headersMessage({ ...CHAT, "x-llm-d-slo-ttft-ms": "500" }, { mode }))
    expect([A, B]).toContain(metadataIn(await stream.next()))
    if (mode === BODY_MODE.none) return
    stream.say(bodyMessage("not JSON at all", false))
    expect((await stream.next())?.requestBody?.response.bodyMutation).toBeUndefined()
  })

  it("that asks for no tokens goes on at once, and its body piece by piece", async () => {
    const stream = (await picker({ flow: { ...FLOW, mostHeld: 0 }, chooser: new LeastLoaded(1) })).open()
    stream.say(headersMessage({ ":method": "POST", ":path": "/v1/audio/transcriptions" }))
    expect([A, B]).toContain(metadataIn(await stream.next()))
    stream.say(bodyMessage("\u0000binary", false)).say(bodyMessage("", true))
    expect(bodyIn(await stream.next())).toEqual({ body: "\u0000binary", endOfStream: false })
    expect(bodyIn(await stream.next())).toEqual({ body: "", endOfStream: true })
  })

  it("without a body goes to each endpoint in turn", async () => {
    const started = await picker()
    const seen = new Set<string | undefined>()
    for (let i = 0; i < 2; i++) {
      const stream = started.open()
      stream.say(headersMessage({ ":method": "GET", ":path": "/v1/models" }, { endOfStream: true }))
      seen.add(metadataIn(await stream.next()))
    }
    expect([...seen].sort()).toEqual([A, B])
  })

  it("goes to the endpoint with less to do, and names the next for retries", async () => {
    const started = await picker({ named: 2 })
    const first = await chat(started.open())
    expect(first.endpoint!.split(",").sort()).toEqual([A, B])
    const second = await chat(started.open())
    expect(second.endpoint!.split(",")).toEqual(first.endpoint!.split(",").reverse())
  })

  it("only goes where the gateway lets it", async () => {
    const started = await picker()
    for (let i = 0; i < 3; i++) {
      const stream = started.open()
      stream.say(headersMessage(CHAT, subset(B, "10.9.9.9:1"))).say(bodyMessage(PROMPT))
      expect(metadataIn(await stream.next())).toBe(B)
    }
  })

  it("takes the gateway's word for the endpoints where there are no others", async () => {
    const started = await picker({ endpoints: [] })
    const stream = started
      .open()
      .say(headersMessage(CHAT, subset("10.1.1.1:80")))
      .say(bodyMessage(PROMPT))
    expect(metadataIn(await stream.next())).toBe("10.1.1.1:80")
    const without = started.open().say(headersMessage(CHAT, subset())).say(bodyMessage(PROMPT))
    expect(await refusal(without)).toMatchObject({ status: 503 })
  })
})

describe("a response", () => {
  it("passes piece by piece, each answered in its mode", async () => {
    const started = await picker()
    for (const responseMode of [BODY_MODE.fullDuplex, BODY_MODE.streamed]) {
      const stream = started.open()
      stream.say(headersMessage(CHAT, { mode: BODY_MODE.fullDuplex, responseMode })).say(bodyMessage(PROMPT))
      await stream.next()
      await stream.next()
      stream.say({
        responseHeaders: { headers: headerMap({ ":status": "200", "content-type": "text/event-stream" }) },
      })
      expect((await stream.next())?.responseHeaders).toBeDefined()
      stream.say({ responseBody: { body: Buffer.from("data: {}\n\n") } })
      const passed = bodyIn(await stream.next())
      expect(passed.body).toBe(responseMode === BODY_MODE.fullDuplex ? "data: {}\n\n" : "")
      stream.say({ responseBody: { endOfStream: true } })
      expect(bodyIn(await stream.next()).endOfStream).toBe(responseMode === BODY_MODE.fullDuplex)
      stream.say({ responseTrailers: {} })
      expect((await stream.next())?.responseTrailers).toBeDefined()
    }
  })

  it("frees its endpoint at the stream's end, where no body is sent here", async () => {
    const started = await picker({
      endpoints: [{ host: "127.0.0.1", port: 8001 }],
      chooser: new LeastLoaded(1),
    })
    const stream = started.open()
    await chat(stream)
    stream.say({ responseHeaders: { headers: headerMap({ ":status": "200" }) } })
    const next = started.open().say(headersMessage(CHAT)).say(bodyMessage(PROMPT))
    await expect.poll(() => started.gauge("held")).toBe(1)
    stream.call.end()
    expect(metadataIn(await next.next())).toBe(A)
  })

  it("of another endpoint of those named counts there", async () => {
    const started = await picker({ chooser: new LeastLoaded(1), named: 2 })
    const stream = started.open()
    const { endpoint } = await chat(stream)
    const [picked, other] = endpoint!.split(",")
    const served = { "x-gateway-destination-endpoint-served": { stringValue: other } }
    stream.say({
      responseHeaders: { headers: headerMap({ ":status": "200" }) },
      metadataContext: { filterMetadata: { "envoy.lb": { fields: served } } },
    })
    for (let i = 0; i < 2; i++) await stream.next()
    expect((await chat(started.open())).endpoint).toBe(picked)
  })
})

describe("bad input", () => {
  it.each([
    ["cut JSON", "{", 400, "invalid_json"],
    ["an array", "[1]", 400, "invalid_json"],
    ["null", "null", 400, "invalid_json"],
    ["nothing", "", 400, "invalid_json"],
    ["an slo that is none", '{"slo":5}', 400, "invalid_value"],
    ["a TTFT that is none", '{"slo":{"ttft_ms":"soon"}}', 400, "invalid_slo"],
    ["a class that is none", '{"slo":{"class":"unheard"}}', 400, "slo_class_not_found"],
    ["too much", `{"a":"${"x".repeat(1 << 20)}"}`, 413, "body_too_large"],
  ])("a body of %s gets its error at once", async (_what, body, status, code) => {
    const stream = (await picker()).open().say(headersMessage(CHAT))
    for (let at = 0; at < body.length; at += 60_000)
      stream.say(bodyMessage(body.slice(at, at + 60_000), false))
    stream.say(bodyMessage(""))
    const answer = await refusal(stream)
    expect([answer.status, answer.error.code, answer.over]).toEqual([status, code, true])
    expect(answer.headers["content-type"]).toContain("application/json")
  })

  it("in a header names it", async () => {
    const stream = (await picker()).open()
    stream.say(headersMessage({ ...CHAT, "x-llm-d-slo-tpot-ms": "fast" })).say(bodyMessage(PROMPT))
    expect((await refusal(stream)).error).toMatchObject({
      code: "invalid_slo",
      message: expect.stringContaining("x-llm-d-slo-tpot-ms"),
    })
  })

  it("no body where one is needed gets 400", async () => {
    const stream = (await picker()).open().say(headersMessage(CHAT, { endOfStream: true }))
    expect(await refusal(stream)).toMatchObject({ status: 400 })
  })

  it("an objective that names no class is served as without", async () => {
    const started = await picker()
    for (const name of ["x-llm-d-inference-objective", "x-gateway-inference-objective"])
      expect((await chat(started.open(), { [name]: "sheddable" })).endpoint).toBeDefined()
  })

  it("no endpoint of those allowed gets 503", async () => {
    const started = await picker()
    for (const message of [headersMessage(CHAT, subset("9.9.9.9:1")), headersMessage(CHAT, subset())]) {
      const stream = started.open().say(message).say(bodyMessage(PROMPT))
      const { status, headers } = await refusal(stream)
      expect([status, headers["x-llm-d-request-dropped-reason"]]).toEqual([503, "rejected-no-endpoints"])
    }
  })

  it.each<[string, (stream: EnvoyStream) => void]>([
    ["a body before its headers", (s) => s.say(bodyMessage("x"))],
    ["headers twice", (s) => s.say(headersMessage(CHAT)).say(headersMessage(CHAT))],
    ["nothing", (s) => s.say({})],
    ["a mode it does not know", (s) => s.say(headersMessage(CHAT, { mode: BODY_MODE.grpc }))],
    [
      "a body after its end",
      (s) => s.say(headersMessage(CHAT)).say(bodyMessage("[", true)).say(bodyMessage("x")),
    ],
  ])("a stream with %s is ended, and others go on", async (_what, send) => {
    const started = await picker()
    const stream = started.open()
    send(stream)
    let last: unknown = "none"
    for (let message = await stream.next(); message !== null; message = await stream.next()) last = message
    expect(last).toHaveProperty("immediateResponse")
    expect((await chat(started.open())).endpoint).toBeDefined()
  })

  it("bytes that are no message end their stream alone", async () => {
    const started = await picker()
    const good = started.open()
    const session = connect(`http://127.0.0.1:${started.port}`)
    const raw = session.request(PROCESS)
    raw.write(Buffer.from([0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]))
    const status = await new Promise((resolve) => {
      raw.on("trailers", (trailers) => resolve(trailers["grpc-status"]))
      raw.on("response", (headers) => headers["grpc-status"] !== undefined && resolve(headers["grpc-status"]))
      raw.resume()
    })
    expect(status).not.toBe("0")
    session.destroy()
    expect((await chat(good)).endpoint).toBeDefined()
  })

  it("gateways reset each stream when they are done with it: thousands of resets end no connection", async () => {
    const started = await picker()
    for (let batch = 0; batch < 30; batch++) {
      const streams = Array.from({ length: 50 }, () => started.open())
      const picked = await Promise.all(streams.map((stream) => chat(stream)))
      expect(picked.filter(({ endpoint }) => endpoint === undefined)).toEqual([])
      for (const stream of streams) stream.call.cancel()
    }
  })

  it("messages of an observer are read and not answered", async () => {
    const started = await picker()
    const stream = started.open().say(headersMessage(CHAT, { observabilityMode: true }))
    stream.call.end()
    expect(await stream.next()).toBeNull()
  })
})

const PROCESS = {
  ":method": "POST",
  ":path": "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
  "content-type": "application/grpc",
  te: "trailers",
}
