/** Engines are told deadlines, arguments, and what is left of a TTFT. */
import { expect, it } from "vitest"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { type Ask, readAsk } from "./ask.ts"
import { rewrittenBody, rewrittenHeaders } from "./rewrite.ts"

const PATH = { ":method": "POST", ":path": "/v1/chat/completions" }
const NOW = 1_800_000_000_000
const OFF = { priority: "off", sloArguments: false } as const

function asked(fields: object, headers: Record<string, string> = {}): { ask: Ask; body: Buffer } {
  const body = Buffer.from(JSON.stringify(fields))
  return {
    ask: readAsk({ ...PATH, ...headers }, body, defaultSloClasses(), { arrivalUs: 0, followed: true }),
    body,
  }
}

function told(
  { ask, body }: ReturnType<typeof asked>,
  options: Parameters<typeof rewrittenBody>[3],
  dueInUs = 2e6,
  heldUs = 0,
) {
  return JSON.parse(rewrittenBody(body, ask, { dueInUs, heldUs, epochMs: NOW }, options).toString())
}

it("nothing, unless it is wanted", () => {
  const { ask, body } = asked({ model: "m" }, { "x-llm-d-slo-ttft-ms": "2000" })
  expect(rewrittenBody(body, ask, { dueInUs: 1, heldUs: 0, epochMs: NOW }, OFF)).toBe(body)
})

it("the deadline as a priority in the engine's order, the client's own replaced", () => {
  const request = asked({ priority: 99 })
  expect(told(request, { ...OFF, priority: "low-first" }).priority).toBe(NOW + 2000)
  expect(told(request, { ...OFF, priority: "high-first" }).priority).toBe(-NOW - 2000)
})

it("without a TTFT a deadline that ages, so that it is not left for ever", () => {
  const request = asked({})
  const priority = (heldUs: number) =>
    told(request, { ...OFF, priority: "low-first" }, Number.POSITIVE_INFINITY, heldUs).priority
  expect(priority(0)).toBe(NOW + 600_000)
  expect(priority(100e6)).toBe(NOW + 500_000)
})

it("the SLO as arguments, beside others", () => {
  const headers = { "x-llm-d-slo-ttft-ms": "2000", "x-llm-d-inference-fairness-id": "alice" }
  const on = { ...OFF, sloArguments: true }
  const args = (request: ReturnType<typeof asked>) => told(request, on, 2e6, 300_000).vllm_xargs
  expect(args(asked({ vllm_xargs: { mine: 1, slo_tpot_ms: 50, slo_session: "s" } }, headers))).toEqual({
    ...{ mine: 1, slo_class: "chat", slo_tier: "slo", slo_ttft_ms: 2000, slo_tpot_ms: 50 },
    ...{ slo_tenant: "alice", slo_session: "s", slo_arrived_unix_ms: NOW - 300 },
  })
  expect(args(asked({ service_tier: "flex" }))).toEqual({
    ...{ slo_class: "chat", slo_tier: "best_effort", slo_arrived_unix_ms: NOW - 300 },
  })
  expect(() => asked({ vllm_xargs: { slo_tppt_ms: 1 } })).toThrow("'vllm_xargs.slo_tppt_ms'")
})

it("what is left of a TTFT after a hold, in the body and the headers", () => {
  const own = asked({ slo: { ttft_ms: 2000, tpot_ms: 50 } })
  expect(told(own, OFF, 1.7e6, 300_000).slo).toEqual({ ttft_ms: 1700, tpot_ms: 50 })
  expect(told(own, OFF, 2e6, 0).slo.ttft_ms).toBe(2000)
  const given = asked({}, { "x-slo-ttft-ms": "2000" })
  expect(rewrittenHeaders(given.ask, 300_000)).toEqual({ "x-llm-d-slo-ttft-ms": "1700" })
  expect(rewrittenHeaders(given.ask, 9e6)).toEqual({ "x-llm-d-slo-ttft-ms": "1" })
  expect(rewrittenHeaders(given.ask, 0)).toEqual({})
  // A slowdown counts from wherever it is measured.
  expect(rewrittenHeaders(asked({}).ask, 9e6)).toEqual({})
})
