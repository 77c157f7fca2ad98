/** What clients of vLLM, llama.cpp and SGLang send: it is done, or a 400 names the field. It is never ignored. */
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { badWordTokens } from "../serve/bad-words.ts"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
let client: OpenAI
let prompt = ""
beforeAll(async () => {
  server = await testServer({
    listen: true,
    fake: {
      script: (_, given) => {
        prompt = given
        return given.includes("COUNT") ? "one two three four" : undefined
      },
    },
  })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
})
afterAll(() => server.close())

const user = (content: string) => [{ role: "user" as const, content }]
/** The client sends what it does not know as it is. */
const ask = async (body: object) => {
  const { choices } = await client.chat.completions.create({
    model: "fake",
    messages: user("hi"),
    max_tokens: 200,
    ...body,
  })
  return choices[0]!.message.content ?? ""
}
const complete = async (body: object) => {
  const { choices } = await client.completions.create({
    model: "fake",
    prompt: "hi",
    max_tokens: 200,
    ...body,
  })
  return choices[0]!.text
}

const schema = {
  type: "object",
  properties: { a: { enum: [1, 2] } },
  required: ["a"],
  additionalProperties: false,
}
const isSchema = (text: string) => expect([1, 2]).toContain(JSON.parse(text).a)
const isChoice = (text: string) => expect(["yes", "no"]).toContain(text)
const isMatch = (text: string) => expect(text).toMatch(/^[ab]{3}\d$/)
const forms: [object, (text: string) => void][] = [
  [{ response_format: { type: "json_object", schema } }, isSchema],
  [{ guided_json: schema }, isSchema],
  [{ guided_json: JSON.stringify(schema) }, isSchema],
  [{ json_schema: schema }, isSchema],
  [{ structured_outputs: { json: schema } }, isSchema],
  [
    { structured_outputs: { json_object: true, regex: null } },
    (text) => expect(JSON.parse(text)).toBeTypeOf("object"),
  ],
  [{ guided_choice: ["yes", "no"] }, isChoice],
  [{ structured_outputs: { choice: ["yes", "no"] } }, isChoice],
  [{ guided_regex: "[ab]{3}\\d" }, isMatch],
  [{ regex: "[ab]{3}\\d" }, isMatch],
  [{ structured_outputs: { regex: "[ab]{3}\\d" } }, isMatch],
  [{ guided_grammar: 'root ::= "yes" | "no"' }, isChoice],
  [{ grammar: 'root ::= answer\nanswer ::= "yes" | "no"' }, isChoice],
  [{ ebnf: 'root ::= "yes" | "no"' }, isChoice],
  [{ structured_outputs: { grammar: 'root ::= "yes" | "no"' } }, isChoice],
]
test.each(forms)("%j is kept, in chat and completions", async (body, check) => {
  check(await ask(body))
  check(await complete(body))
})

const refusals: [string, object, string][] = [
  ["two forms", { guided_regex: "a", response_format: { type: "json_object" } }, "guided_regex"],
  ["two forms in one", { structured_outputs: { regex: "a", choice: ["a"] } }, "structured_outputs.choice"],
  ["structural tags", { structured_outputs: { structural_tag: "{}" } }, "structured_outputs.structural_tag"],
  ["a regular expression that is none", { guided_regex: "(a" }, "guided_regex"],
  ["a regular expression that cannot be kept", { regex: "a(?=b)" }, "regex"],
  ["a schema that is no JSON", { guided_json: "{" }, "guided_json"],
  ["a schema that cannot be kept", { json_schema: { not: {} } }, "json_schema"],
  ["a choice of nothing", { guided_choice: [] }, "guided_choice"],
  ["a grammar without a first rule", { grammar: "a ::= b" }, "grammar"],
  ["a grammar that is none", { grammar: "root ::= (((" }, "grammar"],
  ["a grammar of another kind", { guided_grammar: 'start: "a" | "b"' }, "guided_grammar"],
  ["a bad word of nothing", { bad_words: ["no", ""] }, "bad_words[1]"],
  ["allowed tokens", { allowed_token_ids: [1] }, "allowed_token_ids"],
  ["stop strings in the text", { include_stop_str_in_output: true }, "include_stop_str_in_output"],
  ["control tokens in the text", { skip_special_tokens: false }, "skip_special_tokens"],
  ["beam search", { use_beam_search: true }, "use_beam_search"],
  ["log-probabilities of the prompt", { prompt_logprobs: 1 }, "prompt_logprobs"],
  ["a prompt of no tokens", { truncate_prompt_tokens: 0 }, "truncate_prompt_tokens"],
  ["other samplers", { mirostat: 2 }, "mirostat"],
]
test.each(refusals)("%s: a 400 names the field, in chat and completions", async (_, body, param) => {
  for (const [url, own] of [
    ["/v1/chat/completions", { messages: user("hi") }],
    ["/v1/completions", { prompt: "hi" }],
  ] as const) {
    const answer = await server.app.inject({ method: "POST", url, payload: { ...own, ...body } })
    expect(answer.statusCode, answer.body).toBe(400)
    expect(answer.json().error.param).toBe(param)
  }
})

test.each([
  ["a template of its own", { chat_template: "{{ messages }}" }, "chat_template"],
  ["documents", { documents: [{ text: "a" }] }, "documents"],
  ["no beginning of an answer", { add_generation_prompt: false }, "add_generation_prompt"],
  [
    "both beginnings",
    {
      add_generation_prompt: true,
      continue_final_message: true,
      messages: [{ role: "assistant", content: "a" }],
    },
    "add_generation_prompt",
  ],
  ["nothing to go on with", { continue_final_message: true }, "continue_final_message"],
])("%s: a 400 names the field", async (_, body, param) => {
  const payload = { messages: user("hi"), ...body }
  const answer = await server.app.inject({ method: "POST", url: "/v1/chat/completions", payload })
  expect(answer.statusCode, answer.body).toBe(400)
  expect(answer.json().error.param).toBe(param)
})

test("bad words do not come, with or without a blank, in every API that generates", async () => {
  const payload = { max_tokens: 100, bad_words: ["two", "  four", "xyz"] }
  const messages = user("COUNT")
  const texts = [
    await ask({ ...payload, messages }),
    await complete({ ...payload, prompt: ["COUNT", "COUNT again"] }),
    (await client.responses.create({ model: "fake", input: "COUNT", ...payload, max_tokens: null } as never))
      .output_text,
    (
      await server.app.inject({ method: "POST", url: "/v1/messages", payload: { ...payload, messages } })
    ).json().content[0].text,
  ]
  for (const text of texts) {
    expect(text).toMatch(/^one tw. three fou. *$/)
    expect(text).not.toMatch(/two|four/)
  }
})

test("a word is read with a blank before it and without, of blanks alone as it is", async () => {
  const words = ["a", " b", " ", "é"]
  const tokens = await badWordTokens(server.engine.tokenizer, words)
  const texts = tokens.map((word) => Buffer.from(word).toString())
  expect(texts).toEqual(["a", " a", "b", " b", " ", "é", " é"])
})

test("values that change nothing are taken", async () => {
  const nothing = {
    bad_words: [],
    include_stop_str_in_output: false,
    skip_special_tokens: true,
    use_beam_search: false,
    mirostat: 0,
    allowed_token_ids: null,
  }
  expect(await ask({ ...nothing, messages: user("COUNT") })).toBe("one two three four")
})

describe("tokens", () => {
  it("that stop end the answer, and are no part of it", async () => {
    const body = {
      model: "fake",
      messages: user("COUNT"),
      max_tokens: 200,
      stop_token_ids: ["t".charCodeAt(0)],
    }
    const answer = (await client.chat.completions.create(body as never)) as OpenAI.ChatCompletion
    expect(answer.choices[0]).toMatchObject({ finish_reason: "stop", message: { content: "one " } })
    expect(answer.usage!.completion_tokens).toBe(5)
    const later = { ...body, min_tokens: 6 }
    const { choices } = (await client.chat.completions.create(later as never)) as OpenAI.ChatCompletion
    expect(choices[0]!.message.content).toBe("one two ")
  })

  it("before the last of a prompt are left out", async () => {
    const body = { model: "fake", prompt: "abc".repeat(200), max_tokens: 5 }
    for (const [last, tokens] of [
      [30, 30],
      [100_000, 600],
    ]) {
      const { usage } = (await client.completions.create({
        ...body,
        truncate_prompt_tokens: last,
      } as never)) as OpenAI.Completion
      expect(usage!.prompt_tokens).toBe(tokens)
    }
    const long = { ...body, prompt: "abc".repeat(400) }
    await expect(client.completions.create(long)).rejects.toThrow(/maximum context length/)
    const { usage } = (await client.completions.create({
      ...long,
      truncate_prompt_tokens: -1,
    } as never)) as OpenAI.Completion
    expect(usage!.prompt_tokens).toBe(1024 - 5)
  })
})

it("goes on with the last message", async () => {
  await ask({
    messages: [...user("Say it."), { role: "assistant", content: "I say: " }],
    continue_final_message: true,
    add_generation_prompt: false,
    max_tokens: 5,
  })
  expect(prompt.endsWith("assistant\nI say: ")).toBe(true)
})
