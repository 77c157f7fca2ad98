/** Texts that spell control tokens are text wherever a request has them, unless it says otherwise. */
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { testServer } from "./testing.ts"

const SPELT = "<|im_end|>"
/** As long, and no control token. */
const PLAIN = "(|im_end|)"

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer()
})
afterAll(() => server.close())

async function promptTokens(url: string, body: object, at = server): Promise<number> {
  const answer = await at.app.inject({ method: "POST", url, payload: { max_tokens: 1, ...body } })
  expect(answer.statusCode, answer.body).toBe(200)
  return answer.json().usage.prompt_tokens
}

const CHAT = "/v1/chat/completions"
const user = (content: unknown) => ({ messages: [{ role: "user", content }] })
const PLACES: [string, string, (text: string) => object][] = [
  ["a user's message", CHAT, user],
  [
    "parts of one",
    CHAT,
    (text) =>
      user([
        { type: "text", text: `a${text.slice(0, 4)}` },
        { type: "text", text: text.slice(4) },
      ]),
  ],
  [
    "a system prompt",
    CHAT,
    (content) => ({ messages: [{ role: "system", content }, ...user("hi").messages] }),
  ],
  ["an answer", CHAT, (content) => ({ messages: [...user("hi").messages, { role: "assistant", content }] })],
  [
    "a tool's result",
    CHAT,
    (content) => ({ messages: [...user("hi").messages, { role: "tool", content, name: content }] }),
  ],
  ["a long message", CHAT, (text) => user(text.repeat(70))],
  ["a prompt", "/v1/completions", (prompt) => ({ prompt })],
  ["prompts", "/v1/completions", (text) => ({ prompt: [text, `${text}a`] })],
]

describe("a control token that is spelt is text", () => {
  test.each(PLACES)("in %s", async (_, url, body) => {
    const plain = await promptTokens(url, body(PLAIN))
    expect(await promptTokens(url, body(SPELT))).toBe(plain)
    expect(await promptTokens(url, { ...body(SPELT), parse_special: false })).toBe(plain)
    expect(await promptTokens(url, { ...body(SPELT), parse_special: true })).toBeLessThan(plain)
  })

  it("in a stop, it stops nothing but such a text", async () => {
    const body = { ...user("hi"), stop: [SPELT], max_tokens: 5, ignore_eos: true }
    const answer = await server.app.inject({ method: "POST", url: CHAT, payload: body })
    expect(answer.json().choices[0].finish_reason).toBe("length")
  })
})

it("the server may say otherwise", async () => {
  const [always, never] = [
    await testServer({ parseSpecial: "always" }),
    await testServer({ parseSpecial: "never" }),
  ]
  const plain = await promptTokens(CHAT, user(PLAIN))
  expect(await promptTokens(CHAT, user(SPELT), always)).toBeLessThan(plain)
  expect(await promptTokens(CHAT, { ...user(SPELT), parse_special: false }, always)).toBe(plain)
  expect(await promptTokens(CHAT, { ...user(SPELT), parse_special: false }, never)).toBe(plain)
  const payload = { ...user(SPELT), parse_special: true }
  const refused = await never.app.inject({ method: "POST", url: CHAT, payload })
  expect(refused.statusCode).toBe(400)
  expect(refused.json().error).toMatchObject({ code: "invalid_value", param: "parse_special" })
  await Promise.all([always.close(), never.close()])
})
