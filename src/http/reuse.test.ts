/** A round of a conversation finds the KV of the answer before it, not only of the prompt; tokens stay the same. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "vitest"
import { openLlama } from "../engine/llama/engine.ts"
import { TINY_PRESETS, tinyModel } from "../models/tiny.ts"
import { testServer } from "./testing.ts"

type Server = Awaited<ReturnType<typeof testServer>>

async function complete(server: Server, body: object) {
  const answer = await server.app.inject({ method: "POST", url: "/v1/completions", payload: body })
  expect(answer.statusCode, answer.body).toBe(200)
  const { choices, usage } = answer.json()
  return {
    text: choices[0].text as string,
    tokens: (choices[0].logprobs?.tokens ?? []) as string[],
    cached: usage.prompt_tokens_details.cached_tokens as number,
  }
}

it("shares the KV of outputs as far as they are the same", async () => {
  const server = await testServer()
  const first = { prompt: "x".repeat(40), max_tokens: 60, ignore_eos: true, slo: { session: "s" } }
  const one = await complete(server, first)
  const prompt = `${first.prompt}${one.text} and then?`
  const two = await complete(server, { ...first, prompt })
  // 100 tokens are known, the last of them was never computed: six full blocks.
  expect(one.cached).toBe(0)
  expect(two.cached).toBe(96)
  const other = await complete(server, {
    ...first,
    prompt: `${first.prompt}${one.text.slice(0, 30)}!${prompt}`,
  })
  expect(other.cached).toBe(64)
  server.driver.replica.check()
  await server.close()
})

it("on the real engine: the next round reuses the answer and says the same", async () => {
  const folder = await mkdtemp(join(tmpdir(), "slos-reuse-"))
  const modelPath = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny-f32")
  const rounds = async (session: string | null, kvUnified: boolean) => {
    const sizes = { threads: 1, maxSequences: 4, contextTokens: 512, maxBatchTokens: 128 }
    const engine = await openLlama({ modelPath, ...sizes, library: "cpu", kvType: "f32", kvUnified })
    const server = await testServer({ engine })
    const cached: number[] = []
    const told: string[][] = []
    const { vocabSize } = engine.model
    let prompt = Array.from({ length: 50 }, (_, i) => (i * 37) % (vocabSize - 300))
    for (let round = 0; round < 3; round++) {
      const body = { prompt, max_tokens: 40, ignore_eos: true, temperature: 0, slo: session && { session } }
      const rows: number[] = []
      const seen = server.driver.submit.bind(server.driver)
      server.driver.submit = (job, places) =>
        seen(
          {
            ...job,
            prefix: session === null ? [] : job.prefix,
            onTokens: (row) => {
              rows.push(...row.tokens)
              return job.onTokens(row)
            },
          },
          places,
        )
      const { cached: reused } = await complete(server, body)
      server.driver.submit = seen
      cached.push(reused)
      told.push(rows.map(String))
      prompt = [...prompt, ...rows, ...Array.from({ length: 9 }, (_, i) => i + round)]
    }
    await server.close()
    return { cached, told }
  }
  const afresh = await rounds(null, false)
  expect(afresh.cached).toEqual([0, 0, 0])
  for (const kvUnified of [false, true]) {
    const reused = await rounds("s", kvUnified)
    // Second prompt: 99 tokens, of which 89 are in place; third: 148, 138 in place.
    expect(reused.cached).toEqual([0, 80, 128])
    expect(reused.told).toEqual(afresh.told)
  }
  await rm(folder, { recursive: true, force: true })
})
