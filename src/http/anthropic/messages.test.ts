/** The Messages API as Anthropic's own client sees it, and its events one by one. */
import Anthropic from "@anthropic-ai/sdk"
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { z } from "zod"
import { testServer } from "../testing.ts"
import { messagesSchema } from "./schema.ts"
import { chatOf } from "./to-chat.ts"

let server: Awaited<ReturnType<typeof testServer>>
let client: Anthropic
let prompt = ""
const CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "Oslo"}}\n</tool_call>'
const SCRIPTS: Record<string, string> = {
  THINK: "<think>\nWell, well.\n</think>\n\nYes.",
  CALL: `Let me look.\n${CALL}`,
  TWO: `\n${CALL}\n${CALL}`,
  COUNT: "one two three four",
}
beforeAll(async () => {
  server = await testServer({
    listen: true,
    limits: { contextTokens: 4096 },
    tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-alice"] }] },
    fake: {
      script: (_, given) => {
        prompt = given
        const asked = Object.keys(SCRIPTS).find((name) => given.includes(`${name}.`))
        return asked === undefined ? undefined : SCRIPTS[asked]
      },
    },
  })
  client = new Anthropic({ baseURL: server.url, apiKey: "sk-alice", maxRetries: 0 })
})
afterAll(() => server.close())

const ask = { model: "fake", max_tokens: 400 }
const user = (content: string) => [{ role: "user" as const, content }]
const look = {
  name: "look",
  description: "Looks.",
  input_schema: {
    type: "object" as const,
    properties: { at: { type: "string", enum: ["Oslo", "Rome"] } },
    required: ["at"],
    additionalProperties: false,
  },
}
const KEY = { "x-api-key": "sk-alice" }
const post = (payload: object, headers: Record<string, string> = KEY, path = "") =>
  server.app.inject({ method: "POST", url: `/v1/messages${path}`, payload, headers })

describe("what comes back", () => {
  it("is a message: text, usage, and how its SLO went", async () => {
    const { _request_id: id, ...message } = await client.messages.create({
      ...{ ...ask, messages: user("hi"), system: "Be brief." },
    })
    expect(message).toMatchObject({
      ...{ type: "message", role: "assistant", model: "fake", stop_reason: "end_turn", stop_sequence: null },
      ...{ content: [{ type: "text" }], usage: { output_tokens: 20, cache_creation_input_tokens: 0 } },
    })
    expect(message.id).toBe(`msg_${id}`)
    expect(message).toHaveProperty("metrics.slo.class")
    expect(prompt).toBe("system\nBe brief.\nuser\nhi\nassistant\n")
  })

  it("says why it ended", async () => {
    const cut = await client.messages.create({ ...ask, messages: user("hi"), max_tokens: 3 })
    expect(cut.stop_reason).toBe("max_tokens")
    const stopped = await client.messages.create({
      ...{ ...ask, messages: user("COUNT."), stop_sequences: ["three", "four"] },
    })
    expect(stopped).toMatchObject({
      ...{ stop_reason: "stop_sequence", stop_sequence: "three", content: [{ text: "one two " }] },
    })
  })

  it("counts what came of the cache apart", async () => {
    const messages = user("Once more. ".repeat(30))
    const first = await client.messages.create({ ...ask, messages })
    const second = await client.messages.create({ ...ask, messages })
    const { input_tokens, cache_read_input_tokens } = second.usage
    expect(cache_read_input_tokens).toBeGreaterThan(100)
    expect(input_tokens + cache_read_input_tokens!).toBe(
      first.usage.input_tokens + first.usage.cache_read_input_tokens!,
    )
  })

  it("has thoughts apart", async () => {
    const thinking = { type: "enabled" as const, budget_tokens: 50 }
    const message = await client.messages.create({ ...ask, messages: user("THINK."), thinking })
    expect(message.content).toMatchObject([
      { type: "thinking", thinking: "Well, well.\n" },
      { type: "text", text: "Yes." },
    ])
    expect(message).toHaveProperty("metrics.ignored", ["thinking.budget_tokens"])
  })

  it("has calls, and text before them, but no white space", async () => {
    const tools = [look]
    const one = await client.messages.create({ ...ask, tools, messages: user("CALL.") })
    expect(one.stop_reason).toBe("tool_use")
    expect(one.content).toMatchObject([
      { type: "text", text: "Let me look.\n" },
      { type: "tool_use", name: "look", input: { at: "Oslo" } },
    ])
    const two = await client.messages.create({ ...ask, tools, messages: user("TWO.") })
    expect(two.content.map(({ type }) => type)).toEqual(["tool_use", "tool_use"])
    const tool_choice = { type: "auto" as const, disable_parallel_tool_use: true }
    const single = await client.messages.create({ ...ask, tools, messages: user("TWO."), tool_choice })
    expect(single.content).toHaveLength(1)
  })

  it("makes calls that are asked for, and fits a schema", async () => {
    const called = async (tool_choice: Anthropic.ToolChoice) => {
      const tools = [look, { ...look, name: "go" }]
      const { content } = await client.messages.create({ ...ask, tools, messages: user("hi"), tool_choice })
      return content
    }
    for (const block of await called({ type: "any" }))
      expect(["Oslo", "Rome"]).toContain(((block as Anthropic.ToolUseBlock).input as { at: string }).at)
    expect(await called({ type: "tool", name: "go" })).toMatchObject([{ type: "tool_use", name: "go" }])
    expect((await called({ type: "none" })).map(({ type }) => type)).toEqual(["text"])
    const plant = z.object({ name: z.enum(["oak", "elm"]), tall: z.boolean() })
    const parsed = await client.messages.parse({
      ...{ ...ask, messages: user("hi"), output_config: { format: zodOutputFormat(plant) } },
    })
    expect(plant.parse(parsed.parsed_output)).toEqual(parsed.parsed_output)
  })
})

describe("a stream", () => {
  test.each(["hi", "THINK.", "CALL.", "TWO."])("of %s tells the same as the whole", async (content) => {
    const body = { ...ask, tools: [look], messages: user(content), temperature: 0 }
    // The client sends what it does not know as it is.
    Object.assign(body, { seed: 7 })
    const stream = client.messages.stream(body)
    let text = ""
    stream.on("text", (delta) => (text += delta))
    const message = await stream.finalMessage()
    const whole = await client.messages.create(body)
    const plain = (blocks: unknown) => JSON.parse(JSON.stringify(blocks).replace(/"toolu_\w+"/g, '"toolu"'))
    expect(plain(message.content)).toEqual(plain(whole.content))
    expect(text).toBe(whole.content.map((block) => (block.type === "text" ? block.text : "")).join(""))
    expect(message.stop_reason).toBe(whole.stop_reason)
    expect(message.usage.output_tokens).toBe(whole.usage.output_tokens)
  })

  it("has its events in their order", async () => {
    const answer = await fetch(`${server.url}/v1/messages`, {
      method: "POST",
      headers: { ...KEY, "content-type": "application/json" },
      body: JSON.stringify({ ...ask, messages: user("CALL."), tools: [look], stream: true }),
    })
    expect(answer.headers.get("content-type")).toMatch(/^text\/event-stream/)
    const events = (await answer.text())
      .trim()
      .split("\n\n")
      .map((event) => {
        const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(event)!
        expect(JSON.parse(data!).type).toBe(name)
        return JSON.parse(data!)
      })
    const types = events.map(({ type }) => type)
    expect(types.filter((type, i) => type !== types[i - 1])).toEqual([
      ...["message_start", "ping"],
      ...["content_block_start", "content_block_delta", "content_block_stop"],
      ...["content_block_start", "content_block_delta", "content_block_stop"],
      ...["message_delta", "message_stop"],
    ])
    expect(events[0].message).toMatchObject({ content: [], stop_reason: null, usage: { output_tokens: 0 } })
    const deltas = events.filter(({ index, type }) => index === 1 && type === "content_block_delta")
    expect(deltas.length).toBeGreaterThan(3)
    expect(JSON.parse(deltas.map(({ delta }) => delta.partial_json).join(""))).toEqual({ at: "Oslo" })
    expect(events.at(-2)).toMatchObject({ delta: { stop_reason: "tool_use" }, metrics: {} })
  })
})

describe("blocks", () => {
  it("become the messages of a chat: results right after their calls", async () => {
    await client.messages.create({
      ...ask,
      tools: [look],
      system: [{ type: "text", text: "One.", cache_control: { type: "ephemeral" } }],
      messages: [
        ...user("Where to?"),
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "Hm.", signature: "" },
            { type: "text", text: "Look." },
            { type: "tool_use", id: "t1", name: "look", input: { at: "Oslo" } },
            { type: "tool_use", id: "t2", name: "look", input: { at: "Rome" } },
          ],
        },
        {
          role: "user",
          content: [
            { type: "text", text: "And?" },
            { type: "tool_result", tool_use_id: "t1", content: "cold" },
            {
              type: "tool_result",
              tool_use_id: "t2",
              is_error: true,
              content: [{ type: "text", text: "gone" }],
            },
          ],
        },
      ],
    })
    const places = ["One.", "Where to?", "Look.", "Oslo", "Rome", "cold", "Error: gone", "And?"].map((text) =>
      prompt.lastIndexOf(text),
    )
    expect(Math.min(...places)).toBeGreaterThan(0)
    expect([...places].sort((a, b) => a - b)).toEqual(places)
  })

  it("of thoughts are left out where the client wants them cleared, and those that only Anthropic reads", async () => {
    const thought = (thinking: string) => [
      { type: "thinking", thinking, signature: "s" },
      { type: "redacted_thinking", data: "x" },
    ]
    const call = { type: "tool_use", id: "t", name: "look", input: { at: "Oslo" } }
    const messages = [
      ...user("a"),
      { role: "assistant", content: [...thought("First."), { type: "text", text: "b" }] },
      ...user("c"),
      { role: "assistant", content: [...thought("Second."), call] },
      { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: "cold" }] },
      { role: "assistant", content: [...thought("Third."), { type: "text", text: "d" }] },
      ...user("e"),
    ]
    const kept = async (keep?: unknown) => {
      const chat = chatOf(
        messagesSchema.parse({
          ...{ ...ask, messages, mcp_servers: [] },
          context_management: {
            edits: [{ type: "clear_thinking_20251015", keep }, { type: "clear_tool_uses_20250919" }],
          },
        }),
        {},
      )
      return chat.body.messages.flatMap(({ reasoning_content: thoughts }) => thoughts ?? [])
    }
    expect(await kept("all")).toEqual(["First.", "Second.", "Third."])
    expect(await kept()).toEqual(["Second.", "Third."])
    expect(await kept({ type: "thinking_turns", value: 2 })).toEqual(["First.", "Second.", "Third."])
    const edits = { edits: [{ type: "clear_thinking_20251015", keep: "all" }, { type: "compact_20260112" }] }
    const answer = await post({ ...ask, messages, mcp_servers: [], context_management: edits })
    expect(answer.statusCode, answer.body).toBe(200)
  })

  it("go on with a last message of the assistant", async () => {
    await client.messages.create({
      ...ask,
      messages: [...user("hi"), { role: "assistant", content: "Well," }],
    })
    expect(prompt).toBe("user\nhi\nassistant\nWell,")
  })
})

describe("count_tokens", () => {
  it("is what a message's usage says", async () => {
    const body = { system: "One.", messages: user("Where to?"), tools: [look] }
    const { input_tokens } = await client.messages.countTokens({ model: "fake", ...body })
    const { usage } = await client.messages.create({ ...ask, ...body })
    expect(input_tokens).toBe(usage.input_tokens + usage.cache_read_input_tokens!)
    expect((await post({ model: "fake", messages: [] }, KEY, "/count_tokens")).statusCode).toBe(400)
  })
})

describe("max_tokens", () => {
  const long = { ...ask, messages: user("x ".repeat(1900)), ignore_eos: true }

  it("may be more than fits: then the answer ends where the context does", async () => {
    const { stop_reason, usage } = (await post({ ...long, max_tokens: 64_000 })).json()
    expect(stop_reason).toBe("model_context_window_exceeded")
    expect(usage.input_tokens + usage.cache_read_input_tokens + usage.output_tokens).toBe(4096)
    const whole = (await post({ ...long, max_tokens: 50 })).json()
    expect([whole.stop_reason, whole.usage.output_tokens]).toEqual(["max_tokens", 50])
  })
})

describe("errors are in Anthropic's form", () => {
  const part = (type: string) => [{ role: "user", content: [{ type, source: {} }] }]
  const result = (content: object[]) => ({ type: "tool_result", tool_use_id: "t", content })
  const due = (type: string, value: number) => ({
    context_management: {
      edits: [
        { type: "clear_thinking_20251015" },
        { type: "clear_tool_uses_20250919", trigger: { type, value } },
      ],
    },
  })
  const cases: [object, string][] = [
    [{ max_tokens: undefined }, "max_tokens"],
    [{ messages: [] }, "messages"],
    [{ messages: part("image") }, "messages[0].content[0].type"],
    [{ messages: part("document") }, "messages[0].content[0].type"],
    [{ messages: [{ role: "tool", content: "a" }] }, "messages[0].role"],
    [
      {
        messages: [
          ...user("a"),
          { role: "assistant", content: [{ type: "tool_use", id: "a", name: "b", input: {} }] },
        ],
      },
      "messages[1]",
    ],
    [{ system: [{ type: "image" }] }, "system[0].type"],
    [{ tools: [{ type: "web_search_20250305", name: "web_search" }] }, "tools[0].type"],
    [{ tools: [{ name: "a" }] }, "tools[0].input_schema"],
    [{ tools: [look], tool_choice: { type: "tool", name: "go" } }, "tool_choice"],
    [{ tools: [look], tool_choice: { type: "most" } }, "tool_choice.type"],
    [{ thinking: { type: "enabled", budget_tokens: 400 } }, "thinking.budget_tokens"],
    [{ mcp_servers: [{}] }, "mcp_servers[0]"],
    [{ context_management: { edits: [{ type: "clear_all" }] } }, "context_management.edits[0].type"],
    [due("input_tokens", 4000), "context_management.edits[1].trigger"],
    [due("tool_uses", 9000), "context_management.edits[1].trigger"],
    [
      { messages: [...user("a"), { role: "user", content: [result([{ type: "image", source: {} }])] }] },
      "messages[1].content[0].content[0].type",
    ],
    [{ container: "c" }, "container"],
    [{ thread: { type: "create" } }, "thread"],
    [{ stop: ["a"] }, "stop"],
    [{ stop_sequences: ["a".repeat(2000)] }, "stop_sequences[0]"],
    [{ output_config: { format: { type: "json_schema", schema: { not: {} } } } }, "output_config.format"],
    [{ top_k: -5 }, "top_k"],
    [{ n: 2 }, "n"],
    [{ slo: { ttft_ms: -1 } }, "slo.ttft_ms"],
    [{ messages: user("x ".repeat(9000)) }, "messages"],
  ]
  test.each(cases)("%j", async (body, param) => {
    const answer = await post({ ...ask, messages: user("hi"), ...body })
    expect(answer.json()).toMatchObject({ type: "error", error: { type: "invalid_request_error", param } })
    expect(answer.statusCode).toBe(400)
    expect(answer.json().request_id).toBe(answer.headers["request-id"])
  })

  test("of keys, models, versions, bodies", async () => {
    const body = { ...ask, messages: user("hi") }
    const told = async (...given: Parameters<typeof post>) => {
      const answer = await post(...given)
      return [answer.statusCode, answer.json().error.type]
    }
    expect(await told(body, {})).toEqual([401, "authentication_error"])
    expect(await told(body, { "x-api-key": "sk-eve" })).toEqual([401, "authentication_error"])
    expect(await told({ ...body, model: "claude" })).toEqual([404, "not_found_error"])
    expect(await told(body, { ...KEY, "anthropic-version": "2022-01-01" })).toEqual([
      400,
      "invalid_request_error",
    ])
    const other = await server.app.inject({
      ...{
        method: "POST",
        url: "/v1/messages",
        payload: "{",
        headers: { ...KEY, "content-type": "application/json" },
      },
    })
    expect(other.json()).toMatchObject({ type: "error", error: { details: { error_code: "invalid_json" } } })
    await expect(client.messages.create({ ...body, model: "claude" })).rejects.toThrow(
      Anthropic.NotFoundError,
    )
  })

  test("a full queue says when to come back", async () => {
    const small = await testServer({ maxQueue: 1, fake: { outputTokens: 400 } })
    const ask = (content: string) =>
      small.app.inject({
        ...{ method: "POST", url: "/v1/messages" },
        payload: { max_tokens: 400, messages: user(content), service_tier: "flex" },
      })
    const answers = await Promise.all(["a", "b", "c", "d"].map(ask))
    const refused = answers.find(({ statusCode }) => statusCode === 429)!
    expect(refused.json().error.type).toBe("rate_limit_error")
    expect(refused.headers).toHaveProperty("retry-after")
    await small.close()
  })
})
