/** What this server reads and engines refuse, or do not know: they are asked for the same in words of theirs. */
import { Agent } from "undici"
import { afterEach, describe, expect, test } from "vitest"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { askOf } from "./ask.ts"
import { BACKEND_KINDS, type OwnBatchingKind } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { FakeBackend } from "./testing.ts"

const user = { role: "user", content: "hi" }
const tool = (name: string) => ({ type: "function", function: { name, parameters: { type: "object" } } })
const ALL = ["vllm", "sglang", "llama-server", "openai"] as const

function asked(kind: OwnBatchingKind, fields: object, generation: Parameters<typeof jobOf>[0] = {}) {
  const api = "prompt" in fields ? "completions" : "chat"
  const body = api === "chat" ? { messages: [user], ...fields } : { ...fields }
  const job = { ...jobOf(generation), body: body as Record<string, unknown>, api } as const
  const options = { kind: BACKEND_KINDS[kind], model: "m", priorityMs: null, sloArgs: null, begun: null }
  const before = structuredClone(body)
  const told = askOf(job, job.choices[0]!, { ...options, contextTokens: 1024 }).body
  expect(body, "the client's own body is left as it is").toEqual(before)
  return told
}

describe.each(ALL)("%s", (kind) => {
  test("gets no stop strings that are none, and no choice among no tools", () => {
    for (const stop of ["", [], [""]]) expect(asked(kind, { stop })).not.toHaveProperty("stop")
    expect(asked(kind, { stop: ["", "x"] }).stop).toEqual(["x"])
    expect(asked(kind, { stop: "x" }).stop).toBe("x")
    const none = asked(kind, { tools: [], tool_choice: "auto", parallel_tool_calls: false })
    for (const field of ["tools", "tool_choice", "parallel_tool_calls"])
      expect(none).not.toHaveProperty(field)
    const some = { tools: [tool("f")], tool_choice: "required", parallel_tool_calls: false }
    expect(asked(kind, some)).toMatchObject(some)
  })

  test("gets no priority of the client's: it orders nothing here either", () => {
    expect(asked(kind, { priority: 5 })).not.toHaveProperty("priority")
  })

  test("gets seeds of 64 bits, signed", () => {
    expect(JSON.stringify(asked(kind, { seed: 2 ** 63 }).seed)).toBe("-9223372036854775808")
    expect(asked(kind, { seed: -1 }).seed).toBe(-1)
    expect(asked(kind, { seed: 7 }).seed).toBe(7)
  })

  test("gets messages without nulls, and calls with all that they have", () => {
    const messages = [
      { role: "system", content: null },
      { ...user, name: null },
      {
        ...{ role: "assistant", content: null, tool_call_id: null },
        tool_calls: [
          { id: "a", type: "function", function: { name: "f", arguments: '{"x": 1}' } },
          { id: null, function: { name: "f", arguments: { x: 1 } } },
          { type: null, function: { name: "f", arguments: null } },
        ],
      },
      { role: "assistant", content: "yes", tool_calls: [], refusal: null },
    ]
    expect(asked(kind, { messages }).messages).toEqual([
      { role: "system", content: "" },
      user,
      {
        ...{ role: "assistant", content: null },
        tool_calls: [
          { id: "a", type: "function", function: { name: "f", arguments: '{"x": 1}' } },
          { id: "call_0", type: "function", function: { name: "f", arguments: '{"x":1}' } },
          { id: "call_1", type: "function", function: { name: "f", arguments: "{}" } },
        ],
      },
      { role: "assistant", content: "yes" },
    ])
  })

  test("is asked for no more tokens at least than at most, and for what counts of prompts that it can hold", () => {
    expect(asked(kind, { prompt: "hi", min_tokens: 50 }).min_tokens).toBe(16)
    expect(asked(kind, { prompt: "hi", min_tokens: 50, max_tokens: 80 }).min_tokens).toBe(50)
    expect(asked(kind, { prompt: "hi", min_tokens: 50, max_tokens: -1 }).min_tokens).toBe(50)
    expect(asked(kind, { truncate_prompt_tokens: 5000 })).not.toHaveProperty("truncate_prompt_tokens")
    expect(asked(kind, { truncate_prompt_tokens: 500 }).truncate_prompt_tokens).toBe(500)
    expect(asked(kind, { truncate_prompt_tokens: -1 }).truncate_prompt_tokens).toBe(-1)
  })
})

test.each([
  ["vllm", { repetition_penalty: 1.2 }],
  ["sglang", { repetition_penalty: 1.2 }],
  ["llama-server", { repeat_penalty: 1.2 }],
] as const)("%s has its own name of the penalty on repetition", (kind, told) => {
  for (const given of ["repeat_penalty", "repetition_penalty"]) {
    const body = asked(kind, { [given]: 1.2 })
    const { repeat_penalty, repetition_penalty } = body
    expect({ repeat_penalty, repetition_penalty }).toEqual(told)
  }
})

test("whether to think is told by the template's variables where there are some, the field before them", () => {
  const chat_template_kwargs = { enable_thinking: true, depth: 2 }
  const body = asked("vllm", { reasoning: false, chat_template_kwargs })
  expect(body).toMatchObject({ chat_template_kwargs: { enable_thinking: false, depth: 2 } })
  expect(body).not.toHaveProperty("reasoning")
  expect(asked("openai", { reasoning: false })).not.toHaveProperty("chat_template_kwargs")
})

test("a message is gone on with: no other one is opened", () => {
  const messages = [user, { role: "assistant", content: "a" }]
  const body = asked("vllm", { messages, continue_final_message: true })
  expect(body).toMatchObject({ continue_final_message: true, add_generation_prompt: false })
  expect(asked("vllm", {})).not.toHaveProperty("add_generation_prompt")
})

test("tools that are allowed are those that there are, but where the engine knows that word", () => {
  const fields = {
    tools: [tool("f"), tool("g")],
    tool_choice: { type: "allowed_tools", allowed_tools: { mode: "required", tools: [tool("g")] } },
  }
  expect(asked("vllm", fields)).toMatchObject({ tools: [tool("g")], tool_choice: "required" })
  expect(asked("openai", fields)).toMatchObject(fields)
})

describe("an answer that shall be no longer than fits", () => {
  const opened: { close(): Promise<unknown> }[] = []
  afterEach(async () => {
    for (const one of opened.splice(0).reverse()) await one.close()
  })

  test("has no limit where the context is shorter", () => {
    const fits = { toContextEnd: true, maxTokens: 64_000 }
    expect(asked("vllm", { max_tokens: 64_000 }, fits)).not.toHaveProperty("max_tokens")
    expect(asked("vllm", { max_tokens: 1000 }, fits).max_tokens).toBe(1000)
    expect(asked("vllm", { max_tokens: 64_000 }).max_tokens, "to be told that it is too long").toBe(64_000)
    expect(asked("llama-server", { max_tokens: 64_000 }, fits).max_tokens, "ends there anyway").toBe(64_000)
  })

  async function open() {
    const backend = await FakeBackend.open({ kind: "vllm" })
    const dispatcher = new Agent()
    const host = new RemoteHost({
      ...{ name: "far", url: backend.url, kind: BACKEND_KINDS.vllm, apps: 20, dispatcher, probeMs: 20 },
      timeouts: { connectMs: 1000, firstByteMs: 5000, silenceMs: 5000 },
    })
    opened.push(backend, dispatcher, host)
    await until(() => expect(host.state).toBe("ready"))
    backend.misbehave = ({ body }, response) => {
      if (typeof body.max_tokens !== "number" || body.max_tokens < 4000) return false
      response.writeHead(400).end(JSON.stringify({ error: { message: "max_tokens is too large" } }))
      return true
    }
    return { backend, host }
  }

  test("is asked for again without one where the prompt leaves less", async () => {
    const { backend, host } = await open()
    const job = jobOf({ toContextEnd: true, maxTokens: 4090 })
    const sink = new Kept()
    host.submit({ ...job, body: { messages: [user], max_tokens: 4090 }, api: "chat" }, sink)
    expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
    expect(backend.asked.map(({ body }) => body.max_tokens)).toEqual([4090, undefined])
    expect(host.twin.inFlight).toBe(0)
  })

  test("another request's client is told", async () => {
    const { backend, host } = await open()
    const sink = new Kept()
    host.submit({ ...jobOf(), body: { messages: [user], max_tokens: 4090 }, api: "chat" }, sink)
    expect((await sink.over())[0]).toMatchObject({ kind: "failed", error: { status: 400 } })
    expect(backend.asked).toHaveLength(1)
  })
})
