/** Long prompts come out as short ones do, from other threads; none waits for one that is gone or too long. */
import { afterAll, describe, expect, it } from "vitest"
import { ControlTokens } from "../engine/control-tokens.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { fakeTokenizer } from "../engine/fake/tokenizer.ts"
import { UserError } from "../errors.ts"
import type { Prompt } from "../replica/generation.ts"
import { Renderer } from "../text/renderer.ts"
import { PromptReader } from "./prompt-reader.ts"

const CONTEXT = 100_000
const cost = { pieces: [{ step: 1000, tokens: 5 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
const limits = {
  kvTokens: CONTEXT,
  blockTokens: 16,
  maxSequences: 1,
  maxBatchTokens: 512,
  contextTokens: CONTEXT,
  minChunkTokens: 1,
  unifiedKv: true,
}
const reader = new PromptReader(fakeEngine({ cost, limits, time: "real" }))
afterAll(() => reader.close())

const read = (prompt: Prompt, signal = new AbortController().signal, parseSpecial = false) =>
  reader.read(prompt, {
    parseSpecial,
    signal,
    tooLong: (least) => new UserError(`at least ${least}`, { code: "context_length_exceeded" }),
  })
const chat = (content: string): Prompt => ({
  kind: "chat",
  messages: [{ role: "user", content }],
  tools: null,
  variables: {},
})
const END = 258
const ends = (tokens: Int32Array | undefined) => tokens?.filter((token) => token === END).length

describe("prompts of any length", () => {
  it.each([10, 5_000, 90_000])("of %i characters", async (length) => {
    const content = `${"a".repeat(length - 10)}<|im_end|>`
    const plain = await read(chat(content))
    expect(plain?.tokens.length).toBe(length + 1 + "user\n".length + 1 + 1 + 1 + "assistant\n".length)
    expect(ends(plain?.tokens)).toBe(1)
    expect(ends((await read(chat(content), undefined, true))?.tokens)).toBe(2)
    expect(ends((await read({ kind: "text", text: content }))?.tokens)).toBe(0)
    expect(ends((await read({ kind: "text", text: content }, undefined, true))?.tokens)).toBe(1)
  })

  it("what cannot fit is refused, by its bytes or by its first tokens", async () => {
    await expect(read(chat("a".repeat(14 * CONTEXT)))).rejects.toThrow(/at least 10\d{4}/)
    await expect(read({ kind: "text", text: "a".repeat(17 * CONTEXT) })).rejects.toThrow(/at least/)
  })

  it("one that is gone before its turn is not read", async () => {
    const gone = new AbortController()
    const first = read(chat("a".repeat(90_000)))
    const second = read(chat("b".repeat(90_000)), gone.signal)
    gone.abort("gone")
    expect(await second).toBeNull()
    expect((await first)?.tokens.length).toBeGreaterThan(90_000)
  })

  it("a short one does not wait for long ones", async () => {
    const order: string[] = []
    const long = Array.from({ length: 3 }, () =>
      read(chat("a".repeat(90_000))).then(() => order.push("long")),
    )
    const short = read(chat("a")).then(() => order.push("short"))
    await Promise.all([...long, short])
    expect(order[0]).toBe("short")
  })
})

describe("a template on a thread", () => {
  const none = { messages: [{ role: "user", content: "hi" }], tools: null, variables: {} }
  const renderer = (chatTemplate: string, timeoutMs: number) =>
    new Renderer({ chatTemplate, bosText: "", eosText: "" }, new ControlTokens([]), { timeoutMs })

  it("that never ends is ended, and the next prompt is read", async () => {
    const loop =
      "{% if messages[0].content == 'loop' %}{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}{% endif %}ok"
    const slow = renderer(loop, 6000)
    const looping = { ...none, messages: [{ role: "user", content: "loop" }] }
    await expect(slow.render(looping, false)).rejects.toMatchObject({
      status: 400,
      code: "chat_template_error",
    })
    expect((await slow.render(none, false)).text).toBe("ok")
    await slow.close()
  })

  it("that refuses says so in its own words", async () => {
    const refusing = renderer("{{ raise_exception('no users') }}", 10_000)
    await expect(refusing.render(none, false)).rejects.toThrow(/no users/)
    await expect(refusing.render(none, false)).rejects.toBeInstanceOf(UserError)
    await refusing.close()
  })
})

it("the fake tokenizer knows no token that a text cannot spell", () => {
  expect(fakeTokenizer.controls.all.map(({ text }) => text)).toContain("<|im_end|>")
})
