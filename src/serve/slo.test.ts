/** Which SLO a request gets. */
import { describe, expect, it } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { resolveSlo, type SloSource } from "./slo-resolve.ts"

describe("which SLO a request gets", () => {
  const classes = defaultSloClasses()
  const resolve = (source: Partial<SloSource>) =>
    resolveSlo(classes, { headers: {}, modelClass: null, ...source })
  const named = (name: string) => classes.byName.get(name)!

  it("follows the order body > headers > objective > service_tier > model alias > default", () => {
    expect(resolve({}).class.name).toBe("chat")
    expect(resolve({ modelClass: named("code") }).class.name).toBe("code")
    expect(resolve({ modelClass: named("code"), serviceTier: "flex" }).tier).toBe("bestEffort")
    const objective = { "x-llm-d-inference-objective": "summarize" }
    expect(resolve({ modelClass: named("code"), serviceTier: "flex", headers: objective })).toMatchObject({
      class: { name: "summarize" },
      tier: "slo",
    })
    expect(resolve({ headers: objective, slo: { class: "tools" } }).class.name).toBe("tools")
    const headers = { ...objective, "x-llm-d-slo-ttft-ms": "700", "x-slo-tpot-ms": "60" }
    expect(resolve({ headers }).slo).toMatchObject({ ttftUs: 700_000, ttftSlowdown: 0, tpotUs: 60_000 })
    expect(resolve({ headers, slo: { ttft_slowdown: 4 } }).slo).toMatchObject({
      ttftUs: Infinity,
      ttftSlowdown: 4,
      tpotUs: 60_000,
    })
    expect(resolve({ headers: { "x-slo-ttft-ms": "1", "x-llm-d-slo-ttft-ms": "2" } }).slo.ttftUs).toBe(2000)
  })

  it("best effort has no objectives; own numbers make it a request with an SLO", () => {
    expect(resolve({ slo: { class: "best_effort" } })).toMatchObject({
      tier: "bestEffort",
      slo: { tpotUs: Infinity },
    })
    expect(resolve({ slo: { class: "best_effort", tpot_ms: 50 } })).toMatchObject({
      tier: "slo",
      slo: { ttftUs: Infinity, tpotUs: 50_000, thinkingTpotUs: 50_000 },
    })
  })

  it("takes the longest gap from the body, a header or the class", () => {
    expect(resolve({}).slo.maxGapUs).toBe(Infinity)
    expect(resolve({ slo: { max_gap_ms: 400 } }).slo).toMatchObject({ maxGapUs: 400_000, tpotUs: 100_000 })
    expect(resolve({ headers: { "x-slo-max-gap-ms": "300" } }).slo.maxGapUs).toBe(300_000)
    const both = { "x-slo-max-gap-ms": "300", "x-llm-d-slo-max-gap-ms": "200" }
    expect(resolve({ headers: both }).slo.maxGapUs).toBe(200_000)
    expect(resolve({ headers: both, slo: { max_gap_ms: 100 } }).slo.maxGapUs).toBe(100_000)
    const chat = named("chat")
    const calm = { ...chat, slo: { ...chat.slo, maxGapUs: 700_000 } }
    expect(resolve({ modelClass: calm }).slo.maxGapUs).toBe(700_000)
    expect(resolve({ modelClass: calm, serviceTier: "flex" }).slo.maxGapUs).toBe(Infinity)
    expect(resolve({ slo: { class: "best_effort", max_gap_ms: 50 } })).toMatchObject({
      tier: "slo",
      slo: { ttftUs: Infinity, tpotUs: Infinity, maxGapUs: 50_000 },
    })
    expect(() => resolve({ slo: { max_gap_ms: 0.5 } })).toThrow(
      "'slo.max_gap_ms': the value must be between 1 ms",
    )
    expect(() => resolve({ headers: { "x-slo-max-gap-ms": "1h" } })).toThrow("x-slo-max-gap-ms")
  })

  it("thinks when the class or the request says so", () => {
    expect(resolve({ slo: { class: "reasoning" } })).toMatchObject({
      thinking: true,
      slo: { thinkingTpotUs: 50_000 },
    })
    expect(resolve({ slo: { thinking_tpot_ms: 30 } })).toMatchObject({
      thinking: true,
      slo: { thinkingTpotUs: 30_000 },
    })
    expect(resolve({ slo: { tpot_ms: 30 } })).toMatchObject({
      thinking: false,
      slo: { thinkingTpotUs: 30_000 },
    })
  })
})
