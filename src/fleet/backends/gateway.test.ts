/** A whole gateway over HTTP, before engines of others. */
import type OpenAI from "openai"
import { afterEach, describe, expect, test } from "vitest"
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
    const body = { model: "ours", messages: hi, guided_regex: "a+", temperature: 0.5 }
    await openai.chat.completions.create(body)
    expect(backend.asked[0]!.body).toMatchObject({ guided_regex: "a+", temperature: 0.5, model: "m-1" })
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
    const [there, missing] = [await fake(), await fake()]
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
    await until(async () => void (await openai.chat.completions.create({ model: "ours", messages: hi })), {
      timeout: 15_000,
    })
    expect(missing.asked.length).toBeGreaterThan(0)
  })

  test("a stream whose engine dies goes on at the other: the client sees one", async () => {
    const backends = [await fake({ words: 8, wordMs: 30 }), await fake({ words: 8, wordMs: 30 })]
    const { openai } = await gateway(backends)
    const stream = await openai.chat.completions.create({
      ...{ model: "ours", messages: hi, stream: true, stream_options: { include_usage: true } },
    })
    let text = ""
    let completion = 0
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ""
      completion = chunk.usage?.completion_tokens ?? completion
      const at = backends.find(({ live }) => live > 0)
      if (text === "one two three" && at !== undefined) await at.close()
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
