/** The Responses API as the official client sees it, and its events one by one. */
import OpenAI from "openai"
import { zodTextFormat } from "openai/helpers/zod"
import type { ResponseStreamEvent } from "openai/resources/responses/responses"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { z } from "zod"
import { until } from "../../serve/until-testing.ts"
import { testServer } from "../testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
let client: OpenAI
let prompt = ""
const CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "Oslo"}}\n</tool_call>'
const SCRIPTS: Record<string, string> = {
  THINK: "<think>\nWell, well.\n</think>\n\nYes.",
  CALL: `Let me look.\n${CALL}`,
  TWO: `\n${CALL}\n${CALL}`,
  BOTH: `<think>Hm.</think>${CALL}`,
}
beforeAll(async () => {
  server = await testServer({
    listen: true,
    limits: { contextTokens: 4096 },
    fake: {
      script: (_, given) => {
        prompt = given
        const asked = Object.keys(SCRIPTS).find((name) => given.includes(`${name}.`))
        return asked === undefined ? undefined : SCRIPTS[asked]
      },
    },
  })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
})
afterAll(() => server.close())

const model = "fake"
const look = {
  type: "function" as const,
  name: "look",
  description: "Looks.",
  strict: true,
  parameters: {
    type: "object",
    properties: { at: { type: "string", enum: ["Oslo", "Rome"] } },
    required: ["at"],
    additionalProperties: false,
  },
}
async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
const post = (payload: object, headers = {}) =>
  server.app.inject({ method: "POST", url: "/v1/responses", payload, headers })

describe("what comes back", () => {
  it("is a response: text, usage, fields as asked, and how its SLO went", async () => {
    const response = await client.responses.create({
      ...{ model, input: "hi", instructions: "Be brief.", max_output_tokens: 100, metadata: { a: "b" } },
    })
    expect(response).toMatchObject({
      object: "response",
      status: "completed",
      ...{ model, instructions: "Be brief.", max_output_tokens: 100, metadata: { a: "b" }, store: true },
      ...{ tools: [], tool_choice: "auto", text: { format: { type: "text" } } },
    })
    expect(response.id).toMatch(/^resp_/)
    expect(response.output).toHaveLength(1)
    expect(response.output_text.length).toBeGreaterThan(10)
    const { input_tokens, output_tokens, total_tokens } = response.usage!
    expect(total_tokens).toBe(input_tokens + output_tokens)
    expect(output_tokens).toBe(20)
    expect(response).toHaveProperty("metrics.slo.stages")
    expect(prompt).toContain("system\nBe brief.\nuser\nhi\n")
  })

  it("is incomplete where the tokens were not enough", async () => {
    const response = await client.responses.create({ model, input: "hi", max_output_tokens: 3 })
    expect(response.status).toBe("incomplete")
    expect(response.incomplete_details).toEqual({ reason: "max_output_tokens" })
    expect(response.output[0]).toMatchObject({ type: "message", status: "incomplete" })
  })

  it("has thoughts apart, as they are, as a summary, or sealed for the way back", async () => {
    const input = "THINK."
    const plain = await client.responses.create({ model, input })
    expect(plain.output.map(({ type }) => type)).toEqual(["reasoning", "message"])
    expect(plain.output[0]).toMatchObject({ content: [{ type: "reasoning_text", text: "Well, well.\n" }] })
    expect(plain.output_text).toBe("Yes.")
    expect(plain.usage!.output_tokens_details.reasoning_tokens).toBeGreaterThan(0)
    const summary = await client.responses.create({
      ...{ model, input, reasoning: { summary: "auto", effort: "high" } },
      include: ["reasoning.encrypted_content"],
    })
    const [thought] = summary.output
    expect(thought).toMatchObject({ summary: [{ type: "summary_text", text: "Well, well.\n" }] })
    // Clients keep the summary and what is sealed, and hand them back.
    expect(thought).toMatchObject({
      encrypted_content: Buffer.from("Well, well.\n").toString("base64"),
    })
  })

  it("has calls, and text before them, but no white space", async () => {
    const tools = [look]
    const one = await client.responses.create({ model, tools, input: "CALL." })
    expect(one.output).toMatchObject([
      { type: "message", content: [{ text: "Let me look.\n" }] },
      { type: "function_call", name: "look", arguments: '{"at": "Oslo"}', status: "completed" },
    ])
    const two = await client.responses.create({ model, tools, input: "TWO." })
    expect(two.output.map(({ type }) => type)).toEqual(["function_call", "function_call"])
    const ids = two.output.map((item) => (item as OpenAI.Responses.ResponseFunctionToolCall).call_id)
    expect(new Set(ids).size).toBe(2)
    const single = await client.responses.create({ model, tools, input: "TWO.", parallel_tool_calls: false })
    expect(single.output).toHaveLength(1)
  })

  it("has log-probabilities where they are asked for", async () => {
    const include = ["message.output_text.logprobs" as const]
    const response = await client.responses.create({ model, input: "hi", include, top_logprobs: 2 })
    const [message] = response.output as OpenAI.Responses.ResponseOutputMessage[]
    const { logprobs } = message!.content[0] as OpenAI.Responses.ResponseOutputText
    expect(logprobs!.length).toBe(response.usage!.output_tokens)
    expect(logprobs![0]!.top_logprobs).toHaveLength(2)
    const events = await collect(
      await client.responses.create({ ...{ model, input: "hi", include, top_logprobs: 2, stream: true } }),
    )
    const told = events.flatMap((event) =>
      event.type === "response.output_text.delta" ? event.logprobs : [],
    )
    const done = events.find((event) => event.type === "response.output_text.done")
    expect(told.length).toBeGreaterThan(5)
    expect(done!.logprobs!.slice(0, told.length)).toEqual(told)
  })
})

/** Every event's order and numbers, and that deltas come to what their ends say. */
function checkEvents(events: readonly ResponseStreamEvent[]): void {
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual([...events.keys()])
  expect(events.slice(0, 2).map(({ type }) => type)).toEqual(["response.created", "response.in_progress"])
  const last = events.at(-1)!
  if (last.type !== "response.completed" && last.type !== "response.incomplete") throw new Error(last.type)
  const { output } = last.response
  for (const [index, item] of output.entries()) {
    const own = events.filter((event) => "output_index" in event && event.output_index === index)
    expect(own[0]).toMatchObject({
      type: "response.output_item.added",
      item: { id: item.id, type: item.type },
    })
    expect(own.at(-1)).toEqual({
      ...{ type: "response.output_item.done", output_index: index, item },
      sequence_number: own.at(-1)!.sequence_number,
    })
    const deltas = own.map((event) => ("delta" in event ? event.delta : "")).join("")
    const done = own.find((event) => /(text|arguments)\.done$/.test(event.type))! as {
      text?: string
      arguments?: string
    }
    expect(done.text ?? done.arguments).toBe(deltas)
    for (const event of own) if ("item_id" in event) expect(event.item_id).toBe(item.id)
  }
}

describe("a stream", () => {
  test.each(["hi", "THINK.", "CALL.", "TWO.", "BOTH."])(
    "of %s tells the same as the whole",
    async (input) => {
      const body = { model, input, tools: [look], temperature: 0, seed: 7 }
      const events = await collect(await client.responses.create({ ...body, stream: true }))
      checkEvents(events)
      const last = events.at(-1)! as OpenAI.Responses.ResponseCompletedEvent
      const whole = await client.responses.create(body)
      const plain = (output: readonly unknown[]) =>
        JSON.parse(JSON.stringify(output).replace(/"(rs|msg|fc|call)_\w+"/g, '"$1"'))
      expect(plain(last.response.output)).toEqual(plain(whole.output))
      expect(last.response.usage!.output_tokens).toBe(whole.usage!.output_tokens)
      const summary = await collect(
        await client.responses.create({ ...body, stream: true, reasoning: { summary: "auto" } }),
      )
      checkEvents(summary)
    },
  )

  it("has text, thoughts and arguments as they are written", async () => {
    const types = async (body: object) => {
      const events = await collect(
        await client.responses.create({ ...{ model, input: "BOTH.", tools: [look], stream: true }, ...body }),
      )
      return events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1])
    }
    const begin = ["response.created", "response.in_progress"]
    const call = [
      ...["response.output_item.added", "response.function_call_arguments.delta"],
      ...["response.function_call_arguments.done", "response.output_item.done"],
    ]
    const part = (delta: string, added: string, done: string) => [
      ...["response.output_item.added", `${added}.added`, `${delta}.delta`, `${delta}.done`],
      ...[`${done}.done`, "response.output_item.done"],
    ]
    const thought = part("response.reasoning_text", "response.content_part", "response.content_part")
    expect(await types({})).toEqual([...begin, ...thought, ...call, "response.completed"])
    const summary = part(
      "response.reasoning_summary_text",
      "response.reasoning_summary_part",
      "response.reasoning_summary_part",
    )
    expect(await types({ reasoning: { summary: "detailed" } })).toEqual([
      ...[...begin, ...summary, ...call, "response.completed"],
    ])
    const text = part("response.output_text", "response.content_part", "response.content_part")
    expect(await types({ input: "hi", max_output_tokens: 5 })).toEqual([
      ...begin,
      ...text,
      "response.incomplete",
    ])
  })

  it("is read by the client's helper", async () => {
    const stream = client.responses.stream({ model, input: "CALL.", tools: [look] })
    let text = ""
    let given = ""
    stream.on("response.output_text.delta", ({ delta }) => (text += delta))
    stream.on("response.function_call_arguments.delta", ({ delta }) => (given += delta))
    const response = await stream.finalResponse()
    expect(text).toBe(response.output_text)
    expect(response.output[1]).toMatchObject({ type: "function_call", arguments: given })
  })
})

describe("forms", () => {
  const plant = z.object({ name: z.enum(["oak", "elm"]), height: z.int().min(0).max(9) })

  it("keeps a schema of zod", async () => {
    const text = { format: zodTextFormat(plant, "plant") }
    const response = await client.responses.parse({ model, input: "hi", text })
    expect(plant.parse(response.output_parsed)).toEqual(JSON.parse(response.output_text))
    const streamed = await client.responses.stream({ model, input: "hi", text }).finalResponse()
    expect(plant.parse(streamed.output_parsed)).toBeDefined()
  })

  it("keeps JSON, and our other forms", async () => {
    const json = { format: { type: "json_object" as const } }
    const { output_text } = await client.responses.create({ ...{ model, input: "hi", text: json } })
    expect(typeof JSON.parse(output_text)).toBe("object")
    const { output } = (await post({ input: "hi", guided_regex: "[ab]{3}" })).json()
    expect(output[0].content[0].text).toMatch(/^[ab]{3}$/)
  })

  it("makes calls that are asked for, of the tools that are allowed", async () => {
    const go = { ...look, name: "go" }
    const called = async (tool_choice: OpenAI.Responses.ResponseCreateParams["tool_choice"]) => {
      const { output } = await client.responses.create({
        ...{ model, input: "hi", tools: [look, go], tool_choice: tool_choice! },
      })
      return output.map((item) => (item.type === "function_call" ? item : null))
    }
    for (const call of await called("required"))
      expect(["Oslo", "Rome"]).toContain(JSON.parse(call!.arguments).at)
    expect((await called({ type: "function", name: "go" })).map((call) => call?.name)).toEqual(["go"])
    const tools = [{ type: "function", name: "look" }]
    for (const call of await called({ type: "allowed_tools", mode: "required", tools }))
      expect(call!.name).toBe("look")
    expect(prompt).not.toContain('"go"')
    expect(await called("none")).toEqual([null])
  })
})

describe("items", () => {
  it("become the messages of a chat: one system message, calls with their thoughts, results", async () => {
    await client.responses.create({
      model,
      instructions: "One.",
      tools: [look],
      input: [
        { role: "developer", content: "Two." },
        {
          role: "user",
          content: [
            { type: "input_text", text: "Where " },
            { type: "input_text", text: "to?" },
          ],
        },
        { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "Hm." }] },
        { type: "function_call", call_id: "c1", name: "look", arguments: '{"at":"Oslo"}' },
        { type: "function_call", call_id: "c2", name: "look", arguments: '{"at":"Rome"}' },
        { type: "function_call_output", call_id: "c1", output: "cold" },
        { type: "function_call_output", call_id: "c2", output: [{ type: "input_text", text: "hot" }] },
        { type: "message", id: "msg_1", role: "assistant", status: "completed", content: [] },
        { role: "user", content: "And?" },
      ],
    })
    expect(prompt).toMatch(/^system\nOne\.\n\nTwo\./)
    expect(prompt).toContain("user\nWhere to?\n")
    expect(prompt.indexOf("Oslo")).toBeLessThan(prompt.indexOf("cold"))
    expect(prompt.indexOf("cold")).toBeLessThan(prompt.indexOf("hot"))
    expect(prompt.endsWith("user\nAnd?\nassistant\n")).toBe(true)
  })
})

describe("what is not supported is a 400 that names the field", () => {
  const cases: [object, string][] = [
    [{ input: undefined }, "input"],
    [{ input: [] }, "input"],
    [{ input: 5 }, "input"],
    [
      { input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] },
      "input[0].content[0].type",
    ],
    [
      {
        input: [
          { role: "user", content: "a" },
          { type: "web_search_call", id: "x" },
        ],
      },
      "input[1].type",
    ],
    [{ input: [{ role: "tool", content: "a" }] }, "input[0].role"],
    [{ input: [{ type: "function_call", name: "a", arguments: "{}" }] }, "input[0].call_id"],
    [{ tools: [{ type: "web_search" }] }, "tools[0].type"],
    [{ tools: [{ type: "custom", name: "a" }] }, "tools[0].type"],
    [{ tools: [look], tool_choice: { type: "file_search" } }, "tool_choice"],
    [{ tools: [look], tool_choice: { type: "function", name: "go" } }, "tool_choice"],
    [{ tool_choice: "required" }, "tool_choice"],
    [
      {
        tools: [look],
        tool_choice: { type: "allowed_tools", mode: "auto", tools: [{ type: "function", name: "x" }] },
      },
      "tool_choice.tools[0].name",
    ],
    [{ background: true }, "background"],
    [{ conversation: "conv_1" }, "conversation"],
    [{ prompt: { id: "pmpt_1" } }, "prompt"],
    [{ include: ["file_search_call.results"] }, "include[0]"],
    [{ text: { verbosity: "low" } }, "text.verbosity"],
    [{ text: { format: { type: "grammar" } } }, "text.format.type"],
    [{ text: { format: { type: "json_schema", name: "a", schema: { not: {} } } } }, "text.format"],
    [{ text: { format: { type: "json_object" } }, regex: "a" }, "regex"],
    [{ reasoning: { summary: "concise" } }, "reasoning.summary"],
    [{ reasoning: { effort: "most" } }, "reasoning.effort"],
    [{ max_tokens: 5 }, "max_tokens"],
    [{ max_output_tokens: 0 }, "max_output_tokens"],
    [{ response_format: { type: "text" } }, "response_format"],
    [{ top_logprobs: 3 }, "top_logprobs"],
    [{ truncation: "middle" }, "truncation"],
    [{ stream_options: { include_obfuscation: true } }, "stream_options.include_obfuscation"],
    [{ metadata: { a: 1 } }, "metadata.a"],
    [{ n: 2 }, "n"],
    [{ bad_words: [""] }, "bad_words[0]"],
    [{ slo: { ttft_ms: -1 } }, "slo.ttft_ms"],
    [{ min_tokens: 5, max_output_tokens: 2 }, "min_tokens"],
    [{ input: "x ".repeat(9000) }, "input"],
    [{ model: "gpt-none" }, "model"],
  ]
  test.each(cases)("%j", async (body, param) => {
    const answer = await post({ input: "hi", ...body })
    expect(answer.json()).toMatchObject({ error: { param } })
    expect(answer.statusCode).toBe(param === "model" ? 404 : 400)
    const { message } = answer.json().error
    if (param !== "model" && param !== "input") expect(message).toContain(param)
  })
})

it("cuts what is too long where it is told to", async () => {
  const { status } = await client.responses.create({
    ...{ model, input: "x ".repeat(3000), truncation: "auto", max_output_tokens: 10 },
  })
  expect(status).toBe("incomplete")
})

it("takes SLOs and tiers as chats do", async () => {
  const { metrics, service_tier } = (await post({ input: "hi", service_tier: "flex" })).json()
  expect(service_tier).toBe("flex")
  expect(metrics.slo).toMatchObject({ tier: "best_effort" })
  const headed = (await post({ input: "hi" }, { "x-slo-ttft-ms": "700" })).json()
  expect(headed.metrics.slo.ttft_ms).toBe(700)
  const own = (await post({ input: "hi", slo: { ttft_ms: 900, tpot_ms: 50 } })).json()
  expect(own.metrics.slo).toMatchObject({ ttft_ms: 900, tpot_ms: 50 })
  // It is remembered when its client has been answered.
  await until(async () =>
    expect((await server.app.inject(`/v1/slo/requests/${own.id}`)).json().answers).toHaveLength(1),
  )
})
