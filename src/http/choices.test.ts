/** Several answers to one request, and answers held to a form, as the official OpenAI client sees them. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Effect } from "../core/protocol.ts"
import { openLlama } from "../engine/llama/engine.ts"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { failingAfter } from "../replica/testing.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
const user = (content: string) => [{ role: "user" as const, content }]
const clientOf = (server: Server) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
const CALLS = ["a", "b"].map((name) => `<tool_call>\n{"name": "${name}", "arguments": {}}\n</tool_call>`)
/** What the fake model answers: two tool calls, four words, or its usual text. */
const script = (_: number, prompt: string) =>
  prompt.includes("TWO") ? CALLS.join("\n") : prompt.includes("COUNT") ? "one two three four" : undefined
interface Told {
  metrics: { cached_tokens: number; ignored?: string[]; slo: { attained: boolean | null } }
}

describe("on the fake engine", () => {
  let server: Server
  let client: OpenAI
  beforeAll(async () => {
    server = await testServer({ listen: true, fake: { script } })
    client = clientOf(server)
  })
  afterAll(() => server.close())

  const long = `${"Tell me a story about it. ".repeat(8)}`

  it("n answers share the prompt's KV, are counted once, and are judged one by one", async () => {
    const answer = await client.chat.completions.create({
      ...{ model: "fake", messages: user(long), n: 3, seed: 7 },
      // No time of this machine is too long.
      ...{ slo: { ttft_ms: 600_000, tpot_ms: 600_000 } },
    })
    expect(answer.choices.map((choice) => choice.index)).toEqual([0, 1, 2])
    expect(new Set(answer.choices.map((choice) => choice.message.content)).size).toBe(3)
    expect(answer.choices.map((choice) => choice.finish_reason)).toEqual(["stop", "stop", "stop"])
    const prompt = answer.usage!.prompt_tokens
    expect(answer.usage!.completion_tokens).toBe(60)
    expect(answer.usage!.total_tokens).toBe(prompt + 60)
    const told = answer.choices as unknown as Told[]
    const blocks = Math.floor((prompt - 1) / 16) * 16
    expect(told.map((choice) => choice.metrics.cached_tokens).slice(1)).toEqual([blocks, blocks])
    expect(told.every((choice) => choice.metrics.slo.attained)).toBe(true)
    expect(answer).not.toHaveProperty("metrics")
    // The same seed gives the same answers.
    const again = await client.chat.completions.create({ model: "fake", messages: user(long), n: 3, seed: 7 })
    const texts = (a: typeof answer) => a.choices.map((choice) => choice.message.content)
    expect(texts(again)).toEqual(texts(answer))
  })

  it("streams n answers, each with its own end, and one usage", async () => {
    const stream = await client.chat.completions.create({
      model: "fake",
      messages: user(long),
      n: 2,
      seed: 7,
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = await collect(stream)
    const whole = await client.chat.completions.create({ model: "fake", messages: user(long), n: 2, seed: 7 })
    for (const index of [0, 1]) {
      const own = chunks.flatMap((chunk) => chunk.choices.filter((choice) => choice.index === index))
      expect(own[0]!.delta).toEqual({ role: "assistant", content: "" })
      expect(own.map((choice) => choice.delta.content ?? "").join("")).toBe(
        whole.choices[index]!.message.content,
      )
      expect(own.filter((choice) => choice.finish_reason !== null)).toHaveLength(1)
      expect(own.at(-1)).toHaveProperty("metrics.slo.attained")
    }
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 40 } })
  })

  it("answers several prompts, n times each, echoing them", async () => {
    const body = { model: "fake", prompt: ["COUNT", "COUNT up"], n: 2, max_tokens: 7, echo: true }
    const answer = await client.completions.create(body)
    const [a, b] = ["COUNTone two", "COUNT upone two"]
    expect(answer.choices.map((choice) => choice.text)).toEqual([a, a, b, b])
    expect(answer.usage).toMatchObject({ prompt_tokens: 5 + 8, completion_tokens: 28 })
    const chunks = await collect(await client.completions.create({ ...body, stream: true }))
    const told = ["", "", "", ""]
    for (const { choices } of chunks) for (const { index, text } of choices) told[index] += text
    expect(told).toEqual([a, a, b, b])
    const tokens = [...new TextEncoder().encode("COUNT")]
    const echoed = await client.completions.create({ ...body, prompt: tokens, n: 1 })
    expect(echoed.choices[0]!.text).toBe(a)
  })

  it("a client that goes away cancels every answer, those that wait included", async () => {
    // Slow enough that no answer is at its end before the client is missed.
    const cost = { pieces: [{ step: 10_000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
    const server = await testServer({ listen: true, fake: { script, cost } })
    const client = clientOf(server)
    const ended: string[] = []
    server.driver.observe((effect: Effect) => effect.type === "finished" && ended.push(effect.reason))
    const abort = new AbortController()
    const answer = client.chat.completions.create(
      { model: "fake", messages: user(long), n: 4, max_tokens: 500, ...{ ignore_eos: true } },
      { signal: abort.signal },
    )
    const rejected = expect(answer).rejects.toThrow()
    await expect.poll(() => server.driver.snapshot()).toMatchObject({ running: 4 })
    abort.abort()
    await rejected
    await expect.poll(() => server.driver.snapshot()).toMatchObject({ running: 0, waiting: 0 })
    await server.driver.drain()
    expect(new Set(ended)).toEqual(new Set(["cancelled"]))
    server.driver.replica.check()
    await server.close()
  })
})

it("a shutdown lets all answers of an accepted request end", async () => {
  const server = await testServer({ listen: true })
  const begun = new Promise<void>((resolve) => {
    server.driver.observe(({ type }) => type === "run" && resolve())
  })
  const answer = clientOf(server).chat.completions.create({
    model: "fake",
    messages: user("a prompt of more than one block of KV, I hope"),
    n: 3,
  })
  await begun
  await server.host.drain()
  expect((await answer).choices.map((choice) => choice.finish_reason)).toEqual(["stop", "stop", "stop"])
  await server.close()
})

it("one prompt that the queue refuses refuses them all, and frees what had begun", async () => {
  const server = await testServer({ listen: true, maxQueue: 2 })
  const answer = clientOf(server).completions.create({
    model: "fake",
    prompt: ["a", "b", "c"],
    max_tokens: 5,
  })
  await expect(answer).rejects.toBeInstanceOf(OpenAI.RateLimitError)
  await expect(answer).rejects.toMatchObject({ code: "queue_too_small", param: "n" })
  expect(server.driver.snapshot()).toMatchObject({ running: 0, waiting: 0 })
  await server.close()
})

it("every answer counts against the queue's bound, before any of them is accepted", async () => {
  const server = await testServer({ listen: true, maxQueue: 8 })
  const ask = async (n: number): Promise<number> => {
    const body = { model: "fake", messages: user("a prompt of more than one block of KV, I hope"), n }
    const answer = await clientOf(server)
      .chat.completions.create(body)
      .catch((error: unknown) => error)
    if (answer instanceof OpenAI.APIError) {
      expect(answer.status).toBe(429)
      expect(answer.headers!.get("x-should-retry")).toBe(n > 8 ? "false" : null)
      const why = n > 8 ? /asks for 128 answers.*takes 8 in all.*--max-queue/ : /takes 8 requests.*asks for 3/
      expect(answer.message).toMatch(why)
      return 0
    }
    expect(answer).toHaveProperty(["choices", n - 1, "finish_reason"], "stop")
    return n
  }
  let most = 0
  server.driver.observe(() => {
    const { running, waiting } = server.driver.snapshot()
    most = Math.max(most, running + waiting)
  })
  expect(await Promise.all([3, 128, 3, 3, 3, 128].map(ask))).toEqual([3, 0, 3, 0, 0, 0])
  expect(most).toBeLessThanOrEqual(8)
  expect(most).toBeGreaterThan(4)
  await server.close()
})

it("in a stream, an answer that comes to nothing ends them all with an error", async () => {
  const server = await testServer({ listen: true, wrap: (engine) => failingAfter(5, engine) })
  const prompt = "a prompt of more than one block of KV, I hope"
  const body = { model: "fake", messages: user(prompt), n: 4, stream: true as const }
  const client = clientOf(server)
  const told: unknown[] = []
  const failed = (async () => {
    for await (const chunk of await client.chat.completions.create(body)) told.push(chunk)
  })()
  await expect(failed).rejects.toThrow(/could not compute/)
  expect(told.length).toBeGreaterThan(0)
  await expect.poll(() => server.driver.snapshot()).toMatchObject({ running: 0, waiting: 0 })
  await server.close()
})

describe("fields", () => {
  let server: Server
  let client: OpenAI
  beforeAll(async () => {
    server = await testServer({ listen: true, fake: { script } })
    client = clientOf(server)
  })
  afterAll(() => server.close())
  const extra = (fields: object) => ({ model: "fake", messages: user("COUNT"), ...fields })

  it("min_tokens keeps end tokens and stop strings away", async () => {
    const ask = async (fields: object) =>
      (await client.chat.completions.create(extra({ max_tokens: 60, ...fields }))) as OpenAI.ChatCompletion
    expect((await ask({})).usage!.completion_tokens).toBe(19)
    expect((await ask({ min_tokens: 30 })).usage!.completion_tokens).toBe(31)
    const stopped = await ask({ min_tokens: 6, stop: ["o", "r"] })
    expect(stopped.choices[0]!.message.content).toBe("one tw")
    const later = await ask({ min_tokens: 7, stop: ["o", "r"] })
    expect(later.choices[0]!.message.content).toBe("one two th")
  })

  it("parallel_tool_calls: false ends the answer with its first call", async () => {
    const tools = ["a", "b"].map((name) => ({ type: "function" as const, function: { name } }))
    const body = { model: "fake", messages: user("TWO"), tools }
    const both = await client.chat.completions.create({ ...body, parallel_tool_calls: true })
    expect(both.choices[0]!.message.tool_calls).toHaveLength(2)
    const one = await client.chat.completions.create({ ...body, parallel_tool_calls: false })
    expect(one.choices[0]).toMatchObject({ finish_reason: "tool_calls" })
    expect(one.choices[0]!.message.tool_calls).toHaveLength(1)
    expect(one.usage!.completion_tokens).toBeLessThan(both.usage!.completion_tokens)
  })

  it("a format holds for the answer of a model that may think, not for its thoughts", async () => {
    const submit = server.driver.submit.bind(server.driver)
    const grammars: (string | null)[] = []
    server.driver.submit = (job, places) => {
      grammars.push(job.sampling.grammar)
      return submit(job, places)
    }
    const response_format = { type: "json_object" as const }
    for (const fields of [
      { slo: { class: "reasoning" } },
      { reasoning: false, slo: { class: "reasoning" } },
      {},
    ])
      await client.chat.completions.create(extra({ response_format, ...fields }))
    server.driver.submit = submit
    expect(grammars.map((grammar) => /^root ::= (.*)$/m.exec(grammar!)![1])).toEqual([
      '("<think>" thoughts)? answer',
      "object",
      "object",
    ])
  })

  it("says that a priority changes nothing", async () => {
    const { metrics } = (await client.chat.completions.create(extra({ priority: 5 }))) as unknown as Told
    expect(metrics.ignored).toEqual(["priority"])
    const plain = (await client.chat.completions.create(extra({ priority: 0 }))) as unknown as Told
    expect(plain.metrics).not.toHaveProperty("ignored")
  })
})

describe("on the real engine, a model of random weights still", () => {
  let folder: string
  let server: Server
  let client: OpenAI
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "slos-choices-"))
    const modelPath = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny-f32")
    // The generated vocabulary is small: to be told of tools takes 800 tokens.
    const sizes = { threads: 1, maxSequences: 8, contextTokens: 2048, maxBatchTokens: 256 }
    server = await testServer({
      listen: true,
      engine: await openLlama({ modelPath, ...sizes, library: "cpu" }),
    })
    client = clientOf(server)
  })
  afterAll(async () => {
    await server.close()
    await rm(folder, { recursive: true, force: true })
  })

  const schema = {
    type: "object",
    properties: {
      kind: { enum: ["tree", "bush"] },
      height: { type: "integer", minimum: 0, maximum: 99 },
      parts: {
        type: "array",
        items: {
          type: "object",
          properties: { id: { type: "string", maxLength: 4 } },
          required: ["id"],
          additionalProperties: false,
        },
        minItems: 1,
        maxItems: 2,
      },
    },
    required: ["kind", "height", "parts"],
    additionalProperties: false,
  }
  const expectPlant = (text: string) => {
    const plant = JSON.parse(text)
    expect(Object.keys(plant)).toEqual(["kind", "height", "parts"])
    expect(["tree", "bush"]).toContain(plant.kind)
    expect(plant.height).toBeGreaterThanOrEqual(0)
    expect(plant.height).toBeLessThanOrEqual(99)
    for (const part of plant.parts) expect(part).toEqual({ id: expect.any(String) })
  }

  it("speaks JSON after a schema, streaming and not, several times", async () => {
    const body = {
      model: server.engine.model.name,
      messages: user("A plant, please"),
      max_tokens: 300,
      temperature: 1,
      seed: 3,
      n: 2,
      response_format: { type: "json_schema" as const, json_schema: { name: "plant", strict: true, schema } },
    }
    const { choices } = await client.chat.completions.create(body)
    expect(choices.map((choice) => choice.finish_reason)).toEqual(["stop", "stop"])
    for (const choice of choices) expectPlant(choice.message.content!)
    const chunks = await collect(await client.chat.completions.create({ ...body, stream: true }))
    const told = ["", ""]
    for (const chunk of chunks)
      for (const choice of chunk.choices) told[choice.index] += choice.delta.content ?? ""
    for (const text of told) expectPlant(text)
    const completion = await client.completions.create({
      ...{ model: body.model, prompt: "A plant:", max_tokens: 300, temperature: 1, seed: 1 },
      ...{ response_format: body.response_format },
    })
    expectPlant(completion.choices[0]!.text)
  })

  it("calls the tool it must call, with arguments after its schema", async () => {
    const tools = [
      { type: "function" as const, function: { name: "plant", parameters: schema } },
      {
        type: "function" as const,
        function: {
          name: "water",
          parameters: { type: "object", properties: {}, additionalProperties: false },
        },
      },
    ]
    const body = { model: server.engine.model.name, messages: user("hi"), tools, max_tokens: 300, seed: 1 }
    const forced = await client.chat.completions.create({
      ...body,
      tool_choice: { type: "function", function: { name: "plant" } },
    })
    const [call, ...more] = forced.choices[0]!.message
      .tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[]
    expect(more).toEqual([])
    expect(call!.function.name).toBe("plant")
    expectPlant(call!.function.arguments)
    expect(forced.choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: null } })
    const required = await client.chat.completions.create({
      ...body,
      tool_choice: "required",
      parallel_tool_calls: false,
    })
    const calls = required.choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[]
    expect(calls).toHaveLength(1)
    expect(["plant", "water"]).toContain(calls[0]!.function.name)
  })

  it("does not end before min_tokens", async () => {
    const ends = Object.fromEntries(
      Array.from({ length: server.engine.model.vocabSize }, (_, token) => token)
        .filter((token) => server.engine.tokenizer.isEnd(token))
        .map((token) => [token, 100]),
    )
    const body = { model: server.engine.model.name, messages: user("hi"), max_tokens: 20, logit_bias: ends }
    expect((await client.chat.completions.create(body)).usage!.completion_tokens).toBe(1)
    const later = await client.chat.completions.create({ ...body, ...{ min_tokens: 9 } })
    expect(later.usage!.completion_tokens).toBe(10)
  })
})
