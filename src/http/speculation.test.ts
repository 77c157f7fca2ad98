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

/** Of the class that requests get by themselves. */
interface Status {
  default_class: string
  classes: {
    name: string
    speculation: {
      acceptance: number
      hit_rate: number
      length: number
      drafted_tokens: number
      accepted_tokens: number
    } | null
  }[]
}

interface Answer {
  choices: { text: string; finish_reason: string }[]
  usage: { completion_tokens: number }
  metrics: {
    speculation: {
      drafts: number
      drafted_tokens: number
      accepted_tokens: number
      acceptance: number
      mean_length: number
    } | null
  }
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

it("every app's acceptance and speculation length are in the status and in Prometheus", async () => {
  const { metrics } = await complete({ max_tokens: 50 })
  const { acceptance, mean_length, drafts, drafted_tokens, accepted_tokens } = metrics.speculation!
  expect(acceptance).toBeCloseTo(accepted_tokens / drafted_tokens, 2)
  expect(mean_length).toBeCloseTo(1 + drafted_tokens / drafts, 2)
  const status = (await (await fetch(`${server.url}/v1/slo/status`)).json()) as Status
  const mine = status.classes.find(({ name }) => name === status.default_class)!.speculation!
  expect(mine.drafted_tokens).toBeGreaterThanOrEqual(drafted_tokens)
  expect(mine.accepted_tokens).toBeGreaterThanOrEqual(accepted_tokens)
  expect(mine.length).toBeGreaterThan(1)
  expect(mine.acceptance).toBeGreaterThan(0.5)
  expect(mine.hit_rate).toBe(1)
  const other = status.classes.find(({ name }) => name !== status.default_class)!.speculation!
  expect(other).toMatchObject({ length: 1, drafted_tokens: 0 })
  const text = await (await fetch(`${server.url}/metrics`)).text()
  for (const name of ["acceptance", "hit_rate", "length"])
    expect(text).toMatch(
      new RegExp(`^slos_serve_speculation_${name}\\{class="${status.default_class}"\\} [0-9.]+`, "m"),
    )
})

it("tokens past a stop string are neither shown nor counted", async () => {
  const whole = (await complete({ max_tokens: 50 })).choices[0]!.text
  const stop = whole.slice(20, 24)
  const { choices, usage } = await complete({ max_tokens: 50, stop })
  expect(choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: "stop" })
  // The fake model has a token per byte.
  expect(usage.completion_tokens).toBe(whole.indexOf(stop) + 4)
})
