/** A planner says of its engines' requests why they were slow, by the name that vLLM's clients know. */
import { expect, test } from "vitest"
import type { AnswerJson } from "../explain/json.ts"
import { until } from "../serve/until-testing.ts"
import { openEngine, openPages, openPlanner } from "./planner-testing.ts"

test.each([1, 2])("each request is on its port, with parts that add up (depth %i)", async (depth) => {
  const { path, planner } = await openPlanner()
  const engine = await openEngine(path, { depth })
  const url = await openPages(planner)
  for (let i = 0; i < 12; i++) {
    const slo = i % 2 === 0 ? { slo_ttft_ms: 1 } : { slo_class: "chat", slo_tenant: "a" }
    engine.add({ promptTokens: 200, maxOutputTokens: 4, slo, name: `chatcmpl-r${i}-0123abcd` })
  }
  await engine.run()
  await engine.step()
  const list = async (query: string) => {
    const response = await fetch(`${url}/v1/slo/requests${query}`)
    return ((await response.json()) as { requests: AnswerJson[] }).requests
  }
  await until(async () => expect(await list("?limit=100")).toHaveLength(12))
  for (const { time, e2e_ms, output_tokens, end } of await list("?limit=100")) {
    expect(output_tokens).toBe(4)
    expect(end).toMatch(/^(stop|length)$/)
    expect(Object.values(time!).reduce((sum, ms) => sum + ms, 0)).toBeCloseTo(e2e_ms, 6)
  }
  const missed = await list("?missed")
  expect(missed.length).toBeGreaterThanOrEqual(6)
  for (const { reason } of missed) expect(reason!.text).toMatch(/late by its/)
  const one = (await (await fetch(`${url}/v1/slo/requests/chatcmpl-r3`)).json()) as { answers: AnswerJson[] }
  expect(one.answers).toMatchObject([{ id: "r3", tenant: "a", class: "chat" }])
})
