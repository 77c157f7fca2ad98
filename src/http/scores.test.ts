/** What evaluation harnesses ask for: log-probabilities of prompts, and where each token stands in the text. */
import fc from "fast-check"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { CostModel } from "../core/cost.ts"
import type { Pooling } from "../engine/port.ts"
import type { ObservedStep } from "../replica/observed.ts"
import type { TextLogprob } from "../text/answer.ts"
import { ColumnWriter, promptColumns } from "./logprob-columns.ts"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer({ listen: true, fake: { outputTokens: 6 } })
})
afterAll(() => server.close())

const complete = async (payload: object) => {
  const answer = await server.app.inject({ method: "POST", url: "/v1/completions", payload })
  return { status: answer.statusCode, body: answer.body, json: () => answer.json() }
}

describe("echo with logprobs", () => {
  it("tells a prompt alone with max_tokens 0, the first token without any", async () => {
    const { status, json } = await complete({ prompt: "Où?", max_tokens: 0, echo: true, logprobs: 1 })
    expect(status).toBe(200)
    const { choices, usage } = json()
    const [{ text, logprobs, finish_reason }] = choices
    expect({ text, finish_reason }).toEqual({ text: "Où?", finish_reason: "length" })
    expect(usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 0, total_tokens: 4 })
    expect(logprobs.tokens).toEqual(["O", "bytes:\\xc3", "bytes:\\xb9", "?"])
    expect(logprobs.text_offset).toEqual([0, 1, 1, 2])
    expect(logprobs.token_logprobs[0]).toBeNull()
    expect(logprobs.top_logprobs[0]).toBeNull()
    for (const [i, token] of logprobs.tokens.entries()) {
      if (i === 0) continue
      expect(logprobs.token_logprobs[i]).toBeLessThan(0)
      expect(logprobs.top_logprobs[i][token]).toBe(logprobs.token_logprobs[i])
    }
  })

  it("has room for as many tokens as the context has, where no answer is wanted", async () => {
    const small = await testServer({ limits: { contextTokens: 128, kvTokens: 128, maxSequences: 2 } })
    try {
      const ask = (url: string, payload: object) => small.app.inject({ method: "POST", url, payload })
      const full = { prompt: "x".repeat(128), max_tokens: 0, echo: true, logprobs: 0 }
      const answer = await ask("/v1/completions", full)
      expect(answer.statusCode, answer.body).toBe(200)
      expect(answer.json().choices[0].logprobs.tokens).toHaveLength(128)
      expect((await ask("/v1/completions", { ...full, slo: { ttft_ms: 5000 } })).statusCode).toBe(200)
      expect((await ask("/v1/embeddings", { input: "x".repeat(128) })).statusCode).toBe(200)
      const one = await ask("/v1/completions", { ...full, max_tokens: 1 })
      expect(one.json().error.code).toBe("context_length_exceeded")
      const long = await ask("/v1/completions", { ...full, prompt: "x".repeat(129) })
      expect(long.json().error.message).toContain("you requested 129 tokens (129 in the messages, 0 in")
    } finally {
      await small.close()
    }
  })

  it("goes on with the answer's, for several prompts in tokens", async () => {
    const prompt = [
      [72, 105],
      [72, 111, 33],
    ]
    const { json } = await complete({ prompt, max_tokens: 1, echo: true, logprobs: 2, temperature: 0 })
    const { choices } = json()
    for (const [i, { text, logprobs }] of choices.entries()) {
      expect(text).toHaveLength(prompt[i]!.length + 1)
      expect(logprobs.tokens.join("")).toBe(text)
      expect(logprobs.text_offset).toEqual([...text].map((_: string, at: number) => at))
      expect(logprobs.token_logprobs).toHaveLength(prompt[i]!.length + 1)
    }
  })

  it("streams the same", async () => {
    const asked = { prompt: "hey", max_tokens: 5, echo: true, logprobs: 1, temperature: 0 }
    const whole = (await complete(asked)).json().choices[0]
    const headers = { "content-type": "application/json" }
    const sent = { method: "POST", headers, body: JSON.stringify({ ...asked, stream: true }) }
    const body = await (await fetch(`${server.url}/v1/completions`, sent)).text()
    const chunks = body.split("\n\n").filter((line) => line.startsWith("data: {"))
    const parts = chunks.map((line) => JSON.parse(line.slice(6)).choices[0])
    expect(parts.map(({ text }) => text).join("")).toBe(whole.text)
    for (const column of ["tokens", "token_logprobs", "top_logprobs", "text_offset"])
      expect(parts.flatMap(({ logprobs }) => logprobs?.[column] ?? [])).toEqual(whole.logprobs[column])
  })

  it("computes a prompt that is cached", async () => {
    const prompt = "x".repeat(200)
    await complete({ prompt, max_tokens: 1 })
    const { usage, choices } = (await complete({ prompt, max_tokens: 0, echo: true, logprobs: 0 })).json()
    expect(usage.prompt_tokens_details.cached_tokens).toBe(0)
    expect(choices[0].logprobs.tokens).toHaveLength(200)
    const again = (await complete({ prompt, max_tokens: 1 })).json()
    expect(again.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(100)
  })
})

describe("a step's predicted time", () => {
  const cost: CostModel = {
    pieces: [{ step: 1000, tokens: 5, outputs: 400 }],
    ...{ residualSigma: 0, fastPassTokens: 1, unifiedKv: true },
  }
  /** Of the steps of a request: what was predicted, and what the engine took, ms. */
  async function stepsOf(url: string, payload: object, pooling: Pooling = "last") {
    const own = await testServer({
      fake: { outputTokens: 6, cost },
      policyOptions: { margin: 0 },
      wrap: (engine) => Object.assign(engine, { model: { ...engine.model, pooling } }),
    })
    try {
      const steps: ObservedStep[] = []
      own.service.front.onObserved((observed) => steps.push(...observed.steps))
      const answer = await own.app.inject({ method: "POST", url, payload })
      expect(answer.statusCode, answer.body).toBe(200)
      return steps.filter(({ tokens }) => tokens > 1)
    } finally {
      await own.close()
    }
  }
  const total = (steps: readonly ObservedStep[]) =>
    steps.reduce((sum, { predictedUs }) => sum + predictedUs, 0)
  const prompt = "x".repeat(200)

  it("has a row for each token of a prompt with log-probabilities, and one for another", async () => {
    const scored = await stepsOf("/v1/completions", { prompt, max_tokens: 1, echo: true, logprobs: 1 })
    expect(total(scored)).toBeGreaterThan(200 * 405)
    expect(total(await stepsOf("/v1/completions", { prompt, max_tokens: 1, logprobs: 1 }))).toBeLessThan(9000)
  })

  it("has a row for each token of a mean, and one for the last token's state", async () => {
    expect(total(await stepsOf("/v1/embeddings", { input: prompt }, "mean"))).toBeGreaterThan(200 * 405)
    expect(total(await stepsOf("/v1/embeddings", { input: prompt }))).toBeLessThan(9000)
  })
})

describe("where tokens stand", () => {
  const entry = (bytes: Uint8Array, control?: string): TextLogprob => ({
    ...{ bytes, logprob: -1, top: [] },
    ...(control !== undefined && { control }),
  })

  it("is the same however a text is cut into tokens", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 12 })
    const lengths = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 9 })
    fc.assert(
      fc.property(text, text, lengths, (echo, answer, cuts) => {
        let next = 0
        const cut = (bytes: Uint8Array) => {
          const tokens: Uint8Array[] = []
          for (let at = 0; at < bytes.length; )
            tokens.push(bytes.slice(at, (at += cuts[next++ % cuts.length]!)))
          return tokens
        }
        const [before, after] = [cut(Buffer.from(echo)), cut(Buffer.from(answer))]
        const writer = new ColumnWriter(echo)
        const scored = before.map((bytes) => entry(bytes))
        const offsets = [
          ...(scored.length > 0 ? promptColumns(echo, scored).text_offset : []),
          ...after.flatMap((bytes) => writer.answer([entry(bytes)]).text_offset),
        ]
        const all = Buffer.from(echo + answer)
        let at = 0
        for (const [i, token] of [...before, ...after].entries()) {
          // Whole characters before the byte that it begins with.
          const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
          const whole = decoder.decode(all.subarray(0, at), { stream: true })
          expect(offsets[i]).toBe([...whole].length)
          at += token.length
        }
      }),
    )
  })

  it("skips control tokens that no text has, and a blank that the tokenizer set", () => {
    const bos = entry(new Uint8Array(), "<s>")
    const tokens = [bos, entry(Buffer.from(" Hello")), entry(Buffer.from(" you"))]
    expect(promptColumns("Hello you", tokens).text_offset).toEqual([0, 0, 5])
    expect(promptColumns("Hello you", tokens).tokens).toEqual(["<s>", " Hello", " you"])
    expect(promptColumns("<s>Hello", [bos, entry(Buffer.from("Hello"))]).text_offset).toEqual([0, 3])
  })
})

describe("lengths and seeds", () => {
  it("goes on to the end of the context with max_tokens -1", async () => {
    const asked = { prompt: "x".repeat(990), max_tokens: -1, ignore_eos: true }
    expect((await complete(asked)).json().usage.completion_tokens).toBe(34)
    const chat = { messages: [{ role: "user", content: "hi" }], max_tokens: -1 }
    const answer = await server.app.inject({ method: "POST", url: "/v1/chat/completions", payload: chat })
    expect(answer.json().choices[0].finish_reason).toBe("stop")
  })

  it("computes a prompt alone", async () => {
    const { choices, usage } = (await complete({ prompt: "hi", max_tokens: 0 })).json()
    expect(choices[0]).toMatchObject({ text: "", finish_reason: "length", logprobs: null })
    expect(usage.completion_tokens).toBe(0)
  })

  it("takes an empty model name for the model there is", async () => {
    for (const model of ["", null]) expect((await complete({ model, prompt: "a" })).json().model).toBe("fake")
  })

  it("counts every bit of a seed", async () => {
    const text = async (seed: string) => {
      const payload = `{"prompt": "hi", "max_tokens": 5, "temperature": 1, "ignore_eos": true, "seed": ${seed}}`
      const headers = { "content-type": "application/json" }
      const answer = await server.app.inject({ method: "POST", url: "/v1/completions", payload, headers })
      return answer.statusCode === 200 ? (answer.json().choices[0].text as string) : answer.json().error.param
    }
    const seeds = ["9223372036854775807", "9223372036854775806", "5", "4294967301", "-5"]
    const texts = await Promise.all(seeds.map(text))
    expect(new Set(texts).size).toBe(seeds.length)
    expect(await text(seeds[0]!)).toBe(texts[0])
    expect(await text("1.5")).toBe("seed")
    expect(await text("36893488147419103232")).toBe("seed")
  })
})

describe("tokens", () => {
  const post = async (url: string, payload: object) => {
    const answer = await server.app.inject({ method: "POST", url, payload })
    return { status: answer.statusCode, ...answer.json() }
  }

  it("are those of a text, and back", async () => {
    const told = await post("/tokenize", { prompt: "aé<|im_end|>", return_token_strs: true })
    expect(told).toMatchObject({ status: 200, count: 13, max_model_len: 1024 })
    expect(told.tokens.slice(0, 3)).toEqual([97, 0xc3, 0xa9])
    expect(told.token_strs.slice(0, 3)).toEqual(["a", "bytes:\\xc3", "bytes:\\xa9"])
    const asked = { prompt: "a<|im_end|>", parse_special: true, return_token_strs: true }
    const special = await post("/tokenize", asked)
    expect(special).toMatchObject({ tokens: [97, 258], token_strs: ["a", "<|im_end|>"] })
    const text = { prompt: "a<|im_end|>", content: "a<|im_end|>" }
    expect(await post("/detokenize", { tokens: special.tokens })).toMatchObject(text)
    expect((await post("/tokenize", { prompt: "a" })).token_strs).toBeNull()
  })

  it("are those that a chat has", async () => {
    const messages = [{ role: "user", content: "hi" }]
    const { count, tokens } = await post("/tokenize", { messages })
    const { usage } = await post("/v1/chat/completions", { messages, max_tokens: 1 })
    expect(count).toBe(usage.prompt_tokens)
    expect((await post("/detokenize", { tokens })).prompt).toMatch(/<\|im_start\|>user\nhi<\|im_end\|>\n/)
  })

  it("have control tokens that harnesses ask for", async () => {
    const told = (await server.app.inject("/tokenizer_info")).json()
    expect(told).toMatchObject({ bos_token: null, eos_token: "<|im_end|>", model_max_length: 1024 })
    expect(told.chat_template).toContain("add_generation_prompt")
    const asked = { prompt: told.eos_token, add_special_tokens: false, parse_special: true }
    expect((await post("/tokenize", asked)).tokens).toEqual([258])
  })

  it("are told as llama-server tells them", async () => {
    expect(await post("/tokenize", { content: "aé" })).toEqual({ status: 200, tokens: [97, 0xc3, 0xa9] })
    const pieces = [
      { id: 97, piece: "a" },
      { id: 0xc3, piece: [0xc3] },
      { id: 0xa9, piece: [0xa9] },
    ]
    expect(await post("/tokenize", { content: "aé", with_pieces: true })).toMatchObject({ tokens: pieces })
  })

  const messages = [{ role: "user", content: "a" }]
  it.each([
    ["/tokenize", {}, "prompt"],
    ["/tokenize", { prompt: "a", content: "a" }, "content"],
    ["/tokenize", { messages, add_special_tokens: true }, "add_special_tokens"],
    ["/tokenize", { messages, continue_final_message: true }, "continue_final_message"],
    ["/detokenize", { tokens: [97, 5000] }, "tokens[1]"],
    ["/detokenize", {}, "tokens"],
  ])("%s %j is refused by its field", async (url, payload, param) => {
    expect(await post(url, payload)).toMatchObject({ status: 400, error: { code: "invalid_value", param } })
  })
})
