/** Embeddings as the official OpenAI client sees them: prompts that the planner schedules beside everything else. */
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
let client: OpenAI
beforeAll(async () => {
  server = await testServer({ listen: true })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 })
})
afterAll(() => server.close())

const embed = async (input: string | string[] | number[] | number[][], more: object = {}) =>
  client.embeddings.create({ model: "fake", input, ...more })
const norm = (vector: readonly number[]) => Math.hypot(...vector)

describe("embeddings", () => {
  it("are of length one, the same for the same text, in floats and in base64", async () => {
    // The client asks for base64 by default, and decodes it.
    const { data, usage, model, object } = await embed(["hello", "there", "hello"])
    expect({ model, object }).toEqual({ model: "fake", object: "list" })
    expect(usage).toEqual({ prompt_tokens: 15, total_tokens: 15 })
    expect(data.map(({ index }) => index)).toEqual([0, 1, 2])
    for (const { embedding } of data) expect(norm(embedding)).toBeCloseTo(1, 5)
    expect(data[2]!.embedding).toEqual(data[0]!.embedding)
    expect(data[1]!.embedding).not.toEqual(data[0]!.embedding)
    const floats = await embed("hello", { encoding_format: "float" })
    expect(floats.data[0]!.embedding).toEqual([...data[0]!.embedding])
  })

  it("take tokens as well", async () => {
    const text = (await embed("hi", { encoding_format: "float" })).data[0]!.embedding
    for (const input of [[104, 105], [[104, 105]]]) {
      const { data } = await embed(input, { encoding_format: "float" })
      expect(data[0]!.embedding).toEqual(text)
    }
  })

  it("are scheduled: each has a time to first token, and stands among the last requests", async () => {
    const answer = await server.app.inject({
      method: "POST",
      url: "/v1/embeddings",
      payload: { input: ["a", "b"], slo: { ttft_ms: 4000 } },
    })
    const { data, service_tier: tier } = answer.json()
    expect(tier).toBe("default")
    for (const { metrics } of data) {
      expect(metrics.slo).toMatchObject({ ttft_ms: 4000, attained: true })
      expect(metrics.time_to_first_token_ms).toBeGreaterThan(0)
    }
    const id = answer.headers["x-request-id"]
    // They are remembered once their exchange is over.
    const answers = async () => (await server.app.inject(`/v1/slo/requests/${id}`)).json().answers
    await expect.poll(answers).toHaveLength(2)
  })

  it("do not hold up answers that stream beside them", async () => {
    const [{ data }, { choices }] = await Promise.all([
      embed(Array.from({ length: 40 }, (_, i) => `${i} `.repeat(80))),
      client.chat.completions.create({ model: "fake", messages: [{ role: "user", content: "hi" }] }),
    ])
    expect(data).toHaveLength(40)
    expect(choices[0]!.finish_reason).toBe("stop")
  })

  it.each([
    [{}, "input"],
    [{ input: [] }, "input"],
    [{ input: "" }, "input"],
    [{ input: [5000] }, "input"],
    [{ input: "x".repeat(5000) }, "input"],
    [{ input: "a", dimensions: 5 }, "dimensions"],
    [{ input: "a", encoding_format: "int8" }, "encoding_format"],
    [{ input: "a", model: "other" }, "model"],
    [{ input: Array(2049).fill("a") }, "input"],
  ])("%j is refused by its field", async (payload, param) => {
    const answer = await server.app.inject({ method: "POST", url: "/v1/embeddings", payload })
    expect(answer.statusCode).toBe(param === "model" ? 404 : 400)
    expect(answer.json().error.param).toBe(param)
  })
})
