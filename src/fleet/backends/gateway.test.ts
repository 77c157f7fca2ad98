/** A whole gateway over HTTP, before engines of others. */
import type OpenAI from "openai"
import { afterEach, describe, expect, test } from "vitest"
import { freePort } from "../../free-port.ts"
import { until } from "../../serve/until-testing.ts"
import { openTestGateway } from "./gateway-testing.ts"
import { FakeBackend, type FakeOptions } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function fake(options: FakeOptions = {}): Promise<FakeBackend> {
  const backend = await FakeBackend.open(options)
  opened.push(backend)
  return backend
}

async function gateway(backends: readonly FakeBackend[], more = "") {
  const made = await openTestGateway(backends.map(({ url }) => url + more))
  opened.push(made)
  return made
}

const hi = [{ role: "user" as const, content: "hi" }]

describe("answers as the engine does", () => {
  test("whole, streamed, with usage, several at a time", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    const whole = await openai.chat.completions.create({ model: "ours", messages: hi, n: 2 })
    expect(whole.choices.map(({ message }) => message.content)).toEqual([
      "one two three four",
      "one two three four",
    ])
    expect(whole.model).toBe("ours")
    expect(whole.usage).toMatchObject({ prompt_tokens: 12, completion_tokens: 8 })
    const stream = await openai.chat.completions.create({
      ...{ model: "ours", messages: hi, stream: true, stream_options: { include_usage: true } },
    })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe("one two three four")
    expect(chunks.at(-1)!.usage).toMatchObject({ prompt_tokens: 12, completion_tokens: 4 })
    const text = await openai.completions.create({ model: "ours", prompt: "Count", max_tokens: 50 })
    expect(text.choices[0]!.text).toBe("one two three four")
  })

  test("hands on what this server does not know", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    const body = { model: "ours", messages: hi, spaces_between_special_tokens: false, temperature: 0.5 }
    await openai.chat.completions.create(body as never)
    expect(backend.asked[0]!.body).toMatchObject({
      ...{ spaces_between_special_tokens: false, temperature: 0.5, model: "m-1" },
    })
  })

  test("asks for a form in the engine's words, and refuses what it cannot be held to", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    await openai.chat.completions.create({ model: "ours", messages: hi, guided_regex: "a+" } as never)
    expect(backend.asked[0]!.body).toMatchObject({ structured_outputs: { regex: "a+" } })
    expect(backend.asked[0]!.body).not.toHaveProperty("guided_regex")

    const other = await fake({ kind: "openai" })
    const { openai: plain } = await gateway([other])
    const wrong = plain.chat.completions.create({ model: "ours", messages: hi, guided_regex: "a+" } as never)
    await expect(wrong).rejects.toMatchObject({ status: 400, param: "guided_regex" })
    const schema = { type: "object" }
    await plain.chat.completions.create({ model: "ours", messages: hi, guided_json: schema } as never)
    expect(other.asked.at(-1)!.body.response_format).toEqual({
      ...{ type: "json_schema", json_schema: { name: "answer", schema } },
    })
  })

  test("hands bad words on to a vLLM, and refuses them for engines that ignore them", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    await openai.chat.completions.create({ model: "ours", messages: hi, bad_words: ["darn"] } as never)
    expect(backend.asked[0]!.body.bad_words).toEqual(["darn"])
    for (const kind of ["openai", "sglang", "llama-server"] as const) {
      const other = await fake({ kind })
      const { openai: plain } = await gateway([other])
      const asked = { model: "ours", messages: hi, bad_words: ["darn"] }
      await expect(plain.chat.completions.create(asked as never)).rejects.toMatchObject({
        ...{ status: 400, param: "bad_words" },
      })
      await plain.chat.completions.create({ model: "ours", messages: hi, bad_words: [] } as never)
      expect(other.asked).toHaveLength(1)
    }
  })

  test("errors of the client in the engine's words; a wrong model is not asked for", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    backend.misbehave = (_asked, response) => {
      response.writeHead(400, { "content-type": "application/json" })
      response.end(
        JSON.stringify({ error: { message: "no such parser", type: "BadRequestError", code: 400 } }),
      )
      return true
    }
    await expect(openai.chat.completions.create({ model: "ours", messages: hi })).rejects.toThrow(
      "no such parser",
    )
    const before = backend.asked.length
    await expect(openai.chat.completions.create({ model: "theirs", messages: hi })).rejects.toMatchObject({
      status: 404,
    })
    expect(backend.asked).toHaveLength(before)
  })

  test("a client that goes takes its request from the engine", async () => {
    const backend = await fake({ words: 8, wordMs: 50 })
    const { openai } = await gateway([backend])
    const stream = await openai.chat.completions.create({ model: "ours", messages: hi, stream: true })
    for await (const _ of stream) break
    await until(() => expect(backend.aborted).toBe(1))
  })
})

describe("several backends", () => {
  test("one that is not there at first is waited for; 503 only when none is left", async () => {
    const [there, missing] = [await fake(), await fake({ port: await freePort() })]
    await missing.close()
    const { openai, said, front } = await gateway([missing, there])
    await until(() => expect(said.some((one) => one.includes("is not there"))).toBe(true))
    for (let i = 0; i < 4; i++) await openai.chat.completions.create({ model: "ours", messages: hi })
    expect(there.asked).toHaveLength(4)
    await there.close()
    await until(() => expect(front.watch.state).toBe("failing"))
    await expect(openai.chat.completions.create({ model: "ours", messages: hi })).rejects.toMatchObject({
      ...{ status: 503, message: expect.stringContaining("nothing listens there") },
    })
    await missing.listen()
    await until(async () => void (await openai.chat.completions.create({ model: "ours", messages: hi })))
    expect(missing.asked.length).toBeGreaterThan(0)
  })

  test("a stream whose engine dies goes on at the other: the client sees one", async () => {
    const backends = [await fake({ words: 8 }), await fake({ words: 8 })]
    const goOn = backends.map((backend) => backend.hold())
    const { openai } = await gateway(backends)
    const stream = await openai.chat.completions.create({
      ...{ model: "ours", messages: hi, stream: true, stream_options: { include_usage: true } },
    })
    let text = ""
    let completion = 0
    let isClosed = false
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ""
      completion = chunk.usage?.completion_tokens ?? completion
      if (text === "" || isClosed) continue
      isClosed = true
      await backends.find(({ live }) => live > 0)!.close()
      for (const next of goOn) next()
    }
    expect(text).toBe("one two three four five six seven eight")
    expect(completion).toBe(8)
    expect(backends.map(({ asked }) => asked.length)).toEqual([1, 1])
  })

  test("a malformed chunk: that request goes on elsewhere, no other notices", async () => {
    const backends = [await fake({ words: 8, wordMs: 10 }), await fake({ words: 8, wordMs: 10 })]
    const { openai } = await gateway(backends)
    let struck = 0
    for (const backend of backends)
      backend.misbehave = (_asked, response, word) => {
        if (word !== 3 || struck++ > 0) return false
        response.end("data: {oops\n\n")
        return true
      }
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => openai.chat.completions.create({ model: "ours", messages: hi })),
    )
    expect(struck).toBeGreaterThan(0)
    for (const { choices } of answers)
      expect(choices[0]!.message.content).toBe("one two three four five six seven eight")
  })

  test("two gateways before them; one goes, the other serves on", async () => {
    const backends = [await fake({ words: 8, wordMs: 10 }), await fake({ words: 8, wordMs: 10 })]
    const [first, second] = [await gateway(backends), await gateway(backends)]
    const ask = (openai: OpenAI) => openai.chat.completions.create({ model: "ours", messages: hi })
    const before = await Promise.all([ask(first.openai), ask(second.openai), ask(second.openai)])
    expect(before.every(({ choices }) => choices[0]!.finish_reason === "stop")).toBe(true)
    const lost = ask(first.openai).catch((error: unknown) => error)
    await until(() => expect(backends.some(({ live }) => live > 0)).toBe(true))
    await first.front.close()
    await lost
    for (let i = 0; i < 4; i++)
      expect((await ask(second.openai)).choices[0]!.message.content).toContain("eight")
  })
})

describe("other APIs, before engines of others", () => {
  const post = async (url: string, path: string, body: object, headers: Record<string, string> = {}) => {
    const sent = { "content-type": "application/json", ...headers }
    const answer = await fetch(`${url}${path}`, { method: "POST", headers: sent, body: JSON.stringify(body) })
    return { status: answer.status, body: await answer.text(), headers: answer.headers }
  }
  const TEXT = "one two three four"

  test("a response is a chat to the engine: whole, streamed, gone on with", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    const first = await openai.responses.create({
      ...{ model: "ours", input: "hi", instructions: "Be brief.", max_output_tokens: 50 },
    })
    expect(first).toMatchObject({ status: "completed", model: "ours", output_text: TEXT })
    expect(first.usage).toMatchObject({ input_tokens: 12, output_tokens: 4 })
    expect(first).toHaveProperty("metrics.slo.class")
    const [asked] = backend.asked
    expect(asked!.path).toBe("/v1/chat/completions")
    expect(asked!.body).toMatchObject({
      model: "m-1",
      max_tokens: 50,
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "hi" },
      ],
    })
    for (const field of ["input", "instructions", "max_output_tokens"])
      expect(asked!.body).not.toHaveProperty(field)

    const stream = await openai.responses.create({
      ...{ model: "ours", input: "and?", previous_response_id: first.id, stream: true },
    })
    const events = []
    for await (const event of stream) events.push(event)
    expect(events[0]!.type).toBe("response.created")
    expect(events.at(-1)).toMatchObject({ type: "response.completed", response: { output: [{}] } })
    expect(backend.asked[1]!.body.messages).toMatchObject([
      { role: "user", content: "hi" },
      { role: "assistant", content: TEXT },
      { role: "user", content: "and?" },
    ])
  })

  test("a response's form is asked for in the engine's words", async () => {
    const backend = await fake()
    const { openai } = await gateway([backend])
    const schema = { type: "object", properties: { a: { type: "string" } } }
    const format = { type: "json_schema" as const, name: "thing", schema }
    await openai.responses.create({ model: "ours", input: "hi", text: { format } })
    expect(backend.asked[0]!.body.response_format).toMatchObject({
      type: "json_schema",
      json_schema: { name: "thing", schema },
    })
    expect(backend.asked[0]!.body).not.toHaveProperty("text")
  })

  test("a message is one as well: whole and streamed", async () => {
    const backend = await fake()
    const { url } = await gateway([backend])
    const ask = { messages: hi, max_tokens: 50, system: "Be brief.", stop_sequences: ["!"] }
    const whole = await post(url, "/v1/messages", ask)
    expect(whole.status, whole.body).toBe(200)
    expect(JSON.parse(whole.body)).toMatchObject({
      type: "message",
      content: [{ type: "text", text: TEXT }],
      stop_reason: "end_turn",
      usage: { input_tokens: 8, cache_read_input_tokens: 4, output_tokens: 4 },
    })
    expect(backend.asked[0]!.body).toMatchObject({
      model: "m-1",
      max_tokens: 50,
      stop: ["!"],
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "hi" },
      ],
    })
    const streamed = await post(url, "/v1/messages", { ...ask, stream: true })
    const types = [...streamed.body.matchAll(/^event: (\S+)$/gm)].map((match) => match[1])
    expect(types[0]).toBe("message_start")
    expect(types.at(-1)).toBe("message_stop")
    const texts = [...streamed.body.matchAll(/"text_delta","text":("[^"]*")/g)].map((match) =>
      JSON.parse(match[1]!),
    )
    expect(texts.join("")).toBe(TEXT)
  })

  test("what needs tokens or embeddings is said not to be here, and is not in the API's description", async () => {
    const backend = await fake()
    const { url } = await gateway([backend])
    for (const [path, body] of [
      ["/v1/embeddings", { input: "hi" }],
      ["/v1/messages/count_tokens", { messages: hi }],
      ["/tokenize", { prompt: "hi" }],
      ["/detokenize", { tokens: [1] }],
    ] as const) {
      const answer = await post(url, path, body)
      expect(answer.status, path).toBe(501)
      expect(answer.body).toContain("not_supported_here")
    }
    expect(backend.asked).toEqual([])
    const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as { paths: object }
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining(["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/slo/status"]),
    )
    for (const path of ["/v1/embeddings", "/v1/messages/count_tokens", "/tokenize", "/detokenize"])
      expect(Object.keys(paths)).not.toContain(path)
  })

  test("the trace of a request goes on at the engine; what is none is not handed on", async () => {
    const backend = await fake()
    const { url } = await gateway([backend])
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    const ask = { messages: hi, max_tokens: 5 }
    await post(url, "/v1/chat/completions", ask, { traceparent, tracestate: "a=b" })
    await post(url, "/v1/messages", ask, { traceparent })
    await post(url, "/v1/chat/completions", ask, { traceparent: "nonsense", tracestate: "a=b" })
    await post(url, "/v1/chat/completions", ask)
    const traces = backend.asked.map(({ headers }) => [headers.traceparent, headers.tracestate])
    expect(traces).toEqual([
      [traceparent, "a=b"],
      [traceparent, undefined],
      [undefined, undefined],
      [undefined, undefined],
    ])
  })
})
