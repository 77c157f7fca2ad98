/** What public reports say goes wrong with tools elsewhere, on models that write calls in each of the ways: what is streamed is
 * what comes whole, whatever is in a call, before it and behind it, and wherever it is cut off. */
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import type { ToolFormat, WrittenCall } from "../text/tools/format.ts"
import { formatOf } from "../text/tools/formats.ts"
import { MESSAGES, TEMPLATES } from "../text/tools/templates-testing.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>
type Json = Record<string, unknown>
interface Answer {
  content: string | null
  reasoning: string | undefined
  calls: { id: string; name: string; arguments: string }[]
  finish: string
  logprobs: number
  completionTokens: number
}

const tool = (name: string, parameters?: unknown, more: Json = {}) => ({
  type: "function",
  function: { name, ...(parameters !== undefined && { parameters }), ...more },
})
const RICH = {
  type: "object",
  properties: {
    text: { type: "string" },
    number: { type: "string" },
    none: { type: ["string", "null"] },
    empty: { type: "string" },
    list: { type: "array", items: { type: "object", properties: { a: { type: "string" } } } },
    yes: { type: "boolean" },
    big: { type: "integer" },
  },
}
const TOOLS = [tool("rich", RICH), tool("now"), tool("fs.read-file_2", { type: "object", properties: {} })]
const ARGUMENTS = {
  text: 'He said "a\\n": \'x\'\n\t\\u0041 \u2028 é🙂 {"name": "now"} <b>&amp;</b>',
  number: "42",
  none: null,
  empty: "",
  list: [{ a: '"' }, { a: "}" }],
  yes: false,
  big: 9007199254740991,
}

const rich: WrittenCall = { name: "rich", arguments: ARGUMENTS }
const now: WrittenCall = { name: "now", arguments: {} }
const thoughts = ({ name }: ToolFormat, text: string) =>
  name === "harmony"
    ? `<|channel|>analysis<|message|>${text}<|end|><|start|>assistant`
    : `<think>\n${text}\n</think>\n\n`
const said = ({ name }: ToolFormat, text: string) =>
  name === "harmony" ? `<|channel|>commentary<|message|>${text}<|end|><|start|>assistant` : text

/** What a model says, by what its prompt has. */
const SCRIPTS: Record<string, (format: ToolFormat, prompt: string) => string | undefined> = {
  // The fake engine thinks for ever in free text: it is led to where the arguments begin.
  FORCED: (format, prompt) => {
    const [, name] = /FORCED (\S+)/.exec(prompt)!
    return format.name === "harmony"
      ? format.write([{ name: name!, arguments: {} }]).split("{")[0]
      : undefined
  },
  RICH: (format) => format.write([rich]),
  TWICE: (format) => format.write([now, now, { name: "fs.read-file_2", arguments: {} }]),
  SAID: (format) => said(format, "Let me see: ") + format.write([rich]),
  THOUGHT: (format) => thoughts(format, "I look at <tool> and {it}.") + format.write([now]),
  BEHIND: (format) => `${format.write([now])} That is all.`,
}

describe.each(Object.entries(TEMPLATES))("calls written as %s", (name, template) => {
  const format = formatOf(template)
  let server: Server
  beforeAll(async () => {
    const script = (_: number, prompt: string) =>
      Object.entries(SCRIPTS).find(([word]) => prompt.includes(word))?.[1](format, prompt)
    server = await testServer({
      listen: true,
      limits: { contextTokens: 65_536, kvTokens: 131_072 },
      fake: {
        script,
        cost: { pieces: [{ step: 50 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true },
      },
      wrap: (engine) =>
        Object.assign(engine, { model: { ...engine.model, chatTemplate: template + MESSAGES } }),
    })
  })
  afterAll(() => server.close())

  async function post(word: string, more: Json): Promise<{ status: number; body: string }> {
    const messages = [{ role: "user", content: word }]
    const answer = await fetch(`${server.url}/v1/chat/completions`, {
      ...{ method: "POST", headers: { "content-type": "application/json" } },
      body: JSON.stringify({ messages, tools: TOOLS, max_tokens: 1500, seed: 1, ...more }),
    })
    return { status: answer.status, body: await answer.text() }
  }

  async function whole(word: string, more: Json): Promise<Answer> {
    const { status, body } = await post(word, more)
    expect(status, body).toBe(200)
    const { choices, usage } = JSON.parse(body)
    const { message, finish_reason: finish, logprobs } = choices[0]
    return {
      content: message.content,
      reasoning: message.reasoning_content,
      calls: (message.tool_calls ?? []).map((call: { id: string; function: object }) => ({
        id: call.id,
        ...call.function,
      })),
      ...{ finish, logprobs: logprobs?.content.length ?? 0, completionTokens: usage.completion_tokens },
    }
  }

  /** As a client puts it together; a client knows nothing but the index of a call. */
  async function streamed(word: string, more: Json): Promise<Answer> {
    const { body } = await post(word, { ...more, stream: true, stream_options: { include_usage: true } })
    const events = body.split("\n\n").filter((line) => line.startsWith("data: "))
    expect(events.pop()).toBe("data: [DONE]")
    const chunks = events.map((line) => JSON.parse(line.slice(6)))
    const usage = chunks.pop()
    expect(usage.choices).toEqual([])
    const all: Answer = {
      ...{ content: null, reasoning: undefined, calls: [], finish: "", logprobs: 0 },
      completionTokens: usage.usage.completion_tokens,
    }
    for (const { choices } of chunks) {
      const [{ delta, finish_reason: finish, logprobs }] = choices
      if (delta.content) all.content = (all.content ?? "") + delta.content
      if (delta.reasoning_content) all.reasoning = (all.reasoning ?? "") + delta.reasoning_content
      for (const { index, id, function: given } of delta.tool_calls ?? []) {
        if (id) {
          expect(index).toBe(all.calls.length)
          all.calls.push({ id, name: given.name, arguments: "" })
        }
        all.calls[index]!.arguments += given.arguments
      }
      all.logprobs += logprobs?.content.length ?? 0
      expect(all.finish, "nothing follows the end").toBe("")
      all.finish = finish ?? ""
    }
    return all
  }

  /** Both, which say the same. */
  async function answer(word: string, more: Json = {}): Promise<Answer> {
    const [one, other] = [await whole(word, more), await streamed(word, more)]
    const told = ({ content, calls, ...rest }: Answer) => ({
      ...{ ...rest, content: content?.trim() || null },
      calls: calls.map(({ id: _, ...call }) => call),
    })
    expect(told(other)).toEqual(told(one))
    const ids = [...one.calls, ...other.calls].map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    return one
  }
  const given = ({ calls }: Answer) => calls.map((call) => JSON.parse(call.arguments))

  it("with quotes, escapes, line ends, numbers in strings, null and nothing in their arguments", async () => {
    const found = await answer("RICH")
    expect(found).toMatchObject({ content: null, finish: "tool_calls" })
    expect(given(found)).toEqual([ARGUMENTS])
  })

  it("the same tool twice, and without arguments", async () => {
    const found = await answer("TWICE")
    expect(found.calls.map(({ name }) => name)).toEqual(["now", "now", "fs.read-file_2"])
    expect(found.calls.map((call) => call.arguments)).toEqual(["{}", "{}", "{}"])
  })

  it("one alone where parallel calls are not wanted", async () => {
    const found = await answer("TWICE", { parallel_tool_calls: false })
    expect(found).toMatchObject({ finish: "tool_calls", calls: [{ name: "now", arguments: "{}" }] })
  })

  it.skipIf(name === "llama")("behind a text, which stays", async () => {
    const found = await answer("SAID")
    expect(found.content?.trim()).toBe("Let me see:")
    expect(given(found)).toEqual([ARGUMENTS])
  })

  it("behind thoughts, which are apart", async () => {
    const found = await answer("THOUGHT", { reasoning: true })
    expect(found).toMatchObject({ content: null, finish: "tool_calls", calls: [{ name: "now" }] })
    expect(found.reasoning?.trim()).toBe("I look at <tool> and {it}.")
  })

  it("before a text: the calls are calls all the same, and no mark is text", async () => {
    const found = await answer("BEHIND")
    expect(found.finish).toBe("tool_calls")
    expect(found.calls[0]).toMatchObject({ name: "now", arguments: "{}" })
    // Where calls alone may follow calls the model is led to another.
    expect(found.calls.length).toBe(name === "llama" ? 2 : 1)
    expect(found.content ?? "").toMatch(/^( ?That is all\.)?$/)
  })

  it("cut off by the limit: arguments are a beginning, and the reason is the length", async () => {
    const all = await whole("RICH", {})
    for (const most of [5, 40, 80]) {
      const found = await answer("RICH", { max_tokens: most })
      expect(found.finish).toBe("length")
      expect(found.completionTokens).toBe(most)
      for (const call of found.calls) expect(all.calls[0]!.arguments.startsWith(call.arguments)).toBe(true)
    }
  })

  it("with log-probabilities: one for each token, whole or streamed", async () => {
    const found = await answer("SAID".slice(0, name === "llama" ? 0 : 4) || "RICH", { logprobs: true })
    expect(found.calls).toHaveLength(1)
    expect(found.completionTokens - found.logprobs).toBeLessThanOrEqual(1)
  })

  it("ended by no stop string within them", async () => {
    expect(given(await answer("RICH", { stop: ['"', "\n", "}", "42"] }))).toEqual([ARGUMENTS])
  })

  const forced: [string, Json, (given: Json) => boolean][] = [
    [
      "references and definitions",
      {
        type: "object",
        properties: { at: { $ref: "#/$defs/place" } },
        required: ["at"],
        $defs: { place: { type: "object", properties: { n: { const: 7 } }, required: ["n"] } },
      },
      ({ at }) => (at as Json).n === 7,
    ],
    [
      "a choice at its top",
      {
        anyOf: [
          { type: "object", properties: { a: { const: "x" } }, required: ["a"] },
          { type: "object", properties: { b: { type: "integer" } }, required: ["b"] },
        ],
      },
      (one) => one.a === "x" || Number.isInteger(one.b),
    ],
    ["null for an object", { type: ["object", "null"] }, () => true],
    ["nothing", {}, () => true],
    [
      "names that are none of programs",
      { type: "object", properties: { "a b-c.d/é": { type: "boolean" } }, required: ["a b-c.d/é"] },
      (one) => typeof one["a b-c.d/é"] === "boolean",
    ],
  ]
  test.each(forced)("forced, by a schema with %s: an object that fits", async (_, parameters, fits) => {
    for (const strict of [undefined, true]) {
      const tools = [tool("go", parameters, strict === undefined ? {} : { strict }), tool("now")]
      const body = { tools, tool_choice: { type: "function", function: { name: "go" } }, reasoning: false }
      const found = await answer("FORCED go ", body)
      expect(found).toMatchObject({ content: null, finish: "tool_calls", calls: [{ name: "go" }] })
      for (const one of given(found)) expect([one, fits(one)]).toEqual([one, true])
    }
  })

  it("of one of a hundred tools, with names of 64 characters", async () => {
    const names = Array.from({ length: 100 }, (_, i) => `${"mcp__server-a.b_".repeat(4).slice(0, 61)}_${i}`)
    const tools = names.map((one) => tool(one, RICH, { description: `Does ${one}.` }))
    const body = { tools, tool_choice: { type: "function", function: { name: names[77] } } }
    expect((await answer(`FORCED ${names[77]} `, body)).calls.map((call) => call.name)).toEqual([names[77]])
    const all = { tools: [...tools, tool("now")], parallel_tool_calls: false }
    expect((await answer("BEHIND", all)).calls.map((call) => call.name)).toEqual(["now"])
  })

  it("none where none may be: the text is what the model says", async () => {
    const found = await answer("BEHIND", { tool_choice: "none" })
    expect(found.calls).toEqual([])
    expect(found.content).toContain("That is all.")
  })
})
