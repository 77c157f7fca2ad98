/** What clients and operators see of speculation. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { testServer } from "./testing.ts"

let server: Awaited<ReturnType<typeof testServer>>
beforeAll(async () => {
  server = await testServer({
    listen: true,
    fake: { speculate: "lookup", acceptance: 0.8, outputTokens: 60 },
    policyOptions: { fixedDraft: 3 },
  })
})
afterAll(() => server.close())

interface Answer {
  choices: { text: string; finish_reason: string }[]
  usage: { completion_tokens: number }
  metrics: { speculation: { drafts: number; drafted_tokens: number; accepted_tokens: number } | null }
}

async function complete(body: object): Promise<Answer> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Once upon a time", temperature: 0, ...body }),
  })
  return (await response.json()) as Answer
}

it("a response says how much was drafted and accepted, and Prometheus counts it", async () => {
  const { metrics, usage } = await complete({ max_tokens: 50 })
  const { drafts, drafted_tokens, accepted_tokens } = metrics.speculation!
  expect(usage.completion_tokens).toBe(50)
  expect(drafts).toBeLessThan(40)
  expect(drafted_tokens).toBeGreaterThan(drafts)
  expect(accepted_tokens).toBeGreaterThan(10)
  expect(accepted_tokens).toBeLessThanOrEqual(drafted_tokens)
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const count = (name: string) =>
    Number(new RegExp(`^vllm:spec_decode_${name}_total.* (\\d+)$`, "m").exec(text)![1])
  expect(count("num_drafts")).toBe(drafts)
  expect(count("num_draft_tokens")).toBe(drafted_tokens)
  expect(count("num_accepted_tokens")).toBe(accepted_tokens)
})

it("tokens past a stop string are neither shown nor counted", async () => {
  const whole = (await complete({ max_tokens: 50 })).choices[0]!.text
  const stop = whole.slice(20, 24)
  const { choices, usage } = await complete({ max_tokens: 50, stop })
  expect(choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: "stop" })
  // The fake model has a token per byte.
  expect(usage.completion_tokens).toBe(whole.indexOf(stop) + 4)
})
