/** Tools as the official OpenAI client sees them: on models whose templates write calls in other ways, and on one whose template
 * knows nothing of tools. */
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { FORMATS, formatOf } from "../text/tools/formats.ts"
import { MESSAGES, TEMPLATES } from "../text/tools/templates-testing.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
type Call = OpenAI.ChatCompletionMessageFunctionToolCall
const user = (content: string) => [{ role: "user" as const, content }]
const tools = ["look", "go"].map((name) => ({
  type: "function" as const,
  function: { name, parameters: { type: "object", properties: { at: { type: "string" } } } },
}))
async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

const AT = "</tool_call> STOP [TOOL_CALLS] <|call|> ```"
const GIVEN = [
  { name: "look", arguments: { at: AT } },
  { name: "go", arguments: {} },
]
it("has a template for every way of writing calls", () => {
  expect(Object.keys(TEMPLATES).sort()).toEqual(FORMATS.map(({ name }) => name).sort())
  for (const [name, template] of Object.entries(TEMPLATES)) expect(formatOf(template).name).toBe(name)
})

describe.each(Object.entries(TEMPLATES))("a model that writes calls as %s", (name, template) => {
  const format = formatOf(template)
  const script = (_: number, prompt: string) => {
    if (prompt.includes("CUT")) return format.write(GIVEN.slice(0, 1)).slice(0, -4)
    return prompt.includes("ONE") ? format.write(GIVEN.slice(0, 1)) : format.write(GIVEN)
  }
  let server: Server
  let client: OpenAI
  let prompt = ""
  beforeAll(async () => {
    server = await testServer({
      listen: true,
      limits: { contextTokens: 4096 },
      fake: {
        script: (id, given) => {
          prompt = given
          return script(id, given)
        },
      },
      wrap: (engine) =>
        Object.assign(engine, { model: { ...engine.model, chatTemplate: template + MESSAGES } }),
    })
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
  })
  afterAll(() => server.close())

  it("calls its tools: with anything in their arguments, and stop strings in them", async () => {
    const body = { model: "fake", messages: user("hi"), tools, max_tokens: 1000, stop: ["STOP", "\n"] }
    const { choices } = await client.chat.completions.create(body)
    expect(choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: null } })
    const calls = choices[0]!.message.tool_calls as Call[]
    expect(
      calls.map((call) => ({ name: call.function.name, arguments: JSON.parse(call.function.arguments) })),
    ).toEqual(GIVEN)
  })

  it("streams them: id and name first, then arguments as they are written, ids all different", async () => {
    const body = { model: "fake", messages: user("hi"), tools, max_tokens: 1000, n: 2 }
    const chunks = await collect(await client.chat.completions.create({ ...body, stream: true }))
    const ids: string[] = []
    for (const index of [0, 1]) {
      const deltas = chunks
        .flatMap(({ choices }) => choices.filter((choice) => choice.index === index))
        .flatMap(({ delta }) => delta.tool_calls ?? [])
      const look = deltas.filter((delta) => delta.index === 0)
      expect(look[0]).toMatchObject({ type: "function", function: { name: "look" } })
      expect(look.slice(1).every(({ id, function: f }) => id === undefined && f?.name === undefined)).toBe(
        true,
      )
      expect(look.length).toBeGreaterThan(5)
      expect(JSON.parse(look.map((delta) => delta.function?.arguments).join(""))).toEqual({ at: AT })
      ids.push(...deltas.flatMap(({ id }) => id ?? []))
    }
    expect(ids).toHaveLength(4)
    expect(new Set(ids).size).toBe(4)
  })

  it("leaves no marks in the content where a call is cut off", async () => {
    const all = server.engine.tokenizer
    const whole = await all.encode(format.write(GIVEN.slice(0, 1)), { special: false, addBos: false })
    for (let most = 1; most < whole.length; most += 29) {
      const body = { model: "fake", messages: user("ONE"), tools, max_tokens: most }
      const { choices } = await client.chat.completions.create(body)
      expect(choices[0]!.finish_reason).toBe("length")
      expect(choices[0]!.message.content ?? "").toMatch(name === "llama" ? /^(\{("[a-z]*)?)?$/ : /^.?$/)
    }
    const { choices } = await client.chat.completions.create({
      model: "fake",
      messages: user("CUT"),
      tools,
      max_tokens: 1000,
    })
    expect(choices[0]!.message.content).toBeNull()
  })

  it("is told of tools, calls and results that its template does not show", async () => {
    const call = (id: string, at: string) => ({
      ...{ id, type: "function" as const },
      function: { name: "look", arguments: JSON.stringify({ at }) },
    })
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      ...user("Where?"),
      { role: "assistant", content: null, tool_calls: [call("a", "Oslo"), call("b", "Rome")] },
      ...[
        { role: "tool" as const, tool_call_id: "a", content: "cold" },
        { role: "tool" as const, tool_call_id: "b", content: "hot" },
      ],
    ]
    await client.chat.completions.create({ model: "fake", messages, tools, max_tokens: 5 })
    for (const word of ["Oslo", "Rome", "cold", "hot", '"parameters":{"type":"object"', "function-name"])
      expect(prompt).toContain(word)
  })
})

it("may be held to some of its tools alone", async () => {
  const server = await testServer({ listen: true })
  try {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
    const named = (name: string) => ({ type: "function" as const, function: { name } })
    const ask = (names: string[], mode: "auto" | "required" = "required") =>
      client.chat.completions.create({
        ...{ model: "fake", messages: user("hi"), max_tokens: 200 },
        tools: ["one", "two", "three"].map(named),
        tool_choice: { type: "allowed_tools", allowed_tools: { mode, tools: names.map(named) } },
      })
    for (const name of ["one", "three"]) {
      const { choices } = await ask([name])
      expect((choices[0]!.message.tool_calls as Call[])[0]!.function.name).toBe(name)
    }
    expect((await ask(["two"], "auto")).choices[0]!.message.tool_calls).toBeUndefined()
    await expect(ask(["four"])).rejects.toThrow(/no tool named "four"/)
  } finally {
    await server.close()
  }
})
