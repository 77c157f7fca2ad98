/** Conversations with tools as clients and other models leave them: each is answered, whatever a model once wrote into a call. */
import { afterAll, beforeAll, expect, it, test } from "vitest"
import { plainMessage } from "./chat-generation.ts"
import { chatSchema } from "./schemas.ts"
import { testServer } from "./testing.ts"

type Message = Record<string, unknown>
const calling = (given: unknown, more: Message = {}): Message => ({
  ...{ role: "assistant", content: null },
  tool_calls: [{ id: "c1", type: "function", function: { name: "fs.read", arguments: given }, ...more }],
})
const result = (content: unknown, more: Message = {}): Message => ({
  ...{ role: "tool", tool_call_id: "c1", content },
  ...more,
})
const bare = { function: { name: "a", arguments: "{}" } }
const tool = (name: string, about: Message = {}) => ({ type: "function", function: { name, ...about } })

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer({ limits: { contextTokens: 4096 }, fake: { script: () => "ok" } })
})
afterAll(() => server.close())

const ask = async (messages: Message[], more: Message = {}) => {
  const payload = { messages: [{ role: "user", content: "hi" }, ...messages], max_tokens: 4, ...more }
  return (await server.app.inject({ method: "POST", url: "/v1/chat/completions", payload })).statusCode
}

test.each<[string, Message[]]>([
  ["arguments that are empty", [calling("")]],
  ["arguments that are null", [calling("null")]],
  ["arguments that are not there", [calling(null)]],
  ["arguments that are broken JSON", [calling('{"a": "He said "x""}')]],
  ["arguments that are a list", [calling("[1]")]],
  ["arguments that are an object", [calling({ a: 1 })]],
  ["a result in parts", [calling("{}"), result([{ type: "text", text: "a" }])]],
  ["a result of nothing", [calling("{}"), result(null)]],
  ["a result that repeats the name", [calling("{}", { index: 0 }), result("x", { name: "fs.read" })]],
  [
    "no ids",
    [
      { role: "assistant", tool_calls: [bare] },
      { role: "tool", content: "x" },
    ],
  ],
  ["an empty list of calls", [{ role: "assistant", content: "hi", tool_calls: [] }]],
  ["a user between call and result", [calling("{}"), { role: "user", content: "wait" }, result("x")]],
  ["thoughts before a call", [{ ...calling("{}"), reasoning_content: "hm" }, result("x")]],
  [
    "results in another order than calls",
    [
      { role: "assistant", content: "", tool_calls: ["1", "2"].map((id) => ({ ...bare, id })) },
      ...["2", "1"].map((id) => result(id, { tool_call_id: id })),
    ],
  ],
])("%s", async (_, messages) => {
  for (const tools of [null, [tool("fs.read")]])
    expect(await ask([...messages, { role: "user", content: "go on" }], { tools })).toBe(200)
})

test.each<[string, unknown[]]>([
  ["names with dots and slashes", [tool("mcp.fs-read:x/y")]],
  ["names with quotes", [tool('a"b\\é')]],
  ["parameters that are null", [tool("a", { parameters: null })]],
  [
    "properties that may be anything",
    [tool("a", { parameters: { type: "object", properties: { x: true } } })],
  ],
  ["schemas that no grammar keeps", [tool("a", { parameters: { type: "object", not: {} } })]],
  ["the same tool twice", [tool("a"), tool("a")]],
  ["no tools", []],
])("tools: %s", async (_, tools) => {
  expect(await ask([], { tools })).toBe(200)
})

test.each(["reasoning_content", "reasoning"])("thoughts as %s reach the template", (field) => {
  const message = chatSchema.shape.messages.parse([{ ...calling("{}"), [field]: "hm" }])[0]!
  expect(plainMessage(message).reasoning_content).toBe("hm")
  expect(plainMessage({ ...message, reasoning_content: null, reasoning: null })).not.toHaveProperty(
    "reasoning_content",
  )
})

it("refuses a strict tool that cannot be kept", async () => {
  expect(
    await ask([], { tools: [tool("a", { strict: true, parameters: { type: "object", not: {} } })] }),
  ).toBe(400)
})
