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

  it("takes the Gateway API's objective where it names a class, and is not put out where it does not", () => {
    const gateway = (name: string) => ({ "x-gateway-inference-objective": name })
    expect(resolve({ headers: gateway("summarize") }).class.name).toBe("summarize")
    expect(resolve({ headers: gateway("sheddable"), modelClass: named("code") }).class.name).toBe("code")
    expect(resolve({ headers: gateway("") }).class.name).toBe("chat")
    const both = { ...gateway("summarize"), "x-llm-d-inference-objective": "code" }
    expect(resolve({ headers: both }).class.name).toBe("code")
    expect(resolve({ headers: both, slo: { class: "tools" } }).class.name).toBe("tools")
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

  it("reads vLLM's arguments after the body's own `slo` and before headers", () => {
    const headers = { "x-slo-ttft-ms": "900", "x-slo-tpot-ms": "90", "x-slo-max-gap-ms": "950" }
    const args = { slo_class: "code", slo_ttft_ms: 500, slo_tpot_ms: 50 }
    expect(resolve({ args, headers })).toMatchObject({
      class: { name: "code" },
      slo: { ttftUs: 500_000, ttftSlowdown: 0, tpotUs: 50_000, maxGapUs: 950_000 },
    })
    const slo = { class: "tools", ttft_slowdown: 4 }
    expect(resolve({ slo, args, headers })).toMatchObject({
      class: { name: "tools" },
      slo: { ttftUs: Infinity, ttftSlowdown: 4, tpotUs: 50_000 },
    })
    expect(resolve({ args: { slo_ttft_slowdown: 3 }, headers }).slo).toMatchObject({
      ttftSlowdown: 3,
      ttftUs: Infinity,
    })
    const objective = { "x-llm-d-inference-objective": "summarize" }
    expect(resolve({ args: { slo_class: "code" }, headers: objective }).class.name).toBe("code")
  })

  it("names the argument that is wrong", () => {
    expect(() => resolve({ args: { slo_tpot_ms: -1 } })).toThrow(
      "'vllm_xargs.slo_tpot_ms': the value must be between",
    )
    expect(() => resolve({ args: { slo_ttft_ms: 5, slo_ttft_slowdown: 5 } })).toThrow(
      "'vllm_xargs.slo_ttft_slowdown': give either vllm_xargs.slo_ttft_ms or",
    )
    expect(() => resolve({ slo: { ttft_ms: 5, ttft_slowdown: 5 } })).toThrow(
      "'slo.ttft_slowdown': give either",
    )
    expect(() => resolve({ args: { slo_class: "chatt" } })).toThrow(
      expect.objectContaining({ code: "slo_class_not_found", param: "vllm_xargs.slo_class" }),
    )
  })

  it("takes the tier that is asked for, where the objectives agree with it", () => {
    expect(resolve({ args: { slo_tier: "best_effort" } })).toMatchObject({
      ...{ tier: "bestEffort", class: { name: "chat" }, slo: { ttftSlowdown: 0, tpotUs: Infinity } },
    })
    expect(resolve({ args: { slo_tier: "slo" }, serviceTier: "flex" })).toMatchObject({
      tier: "slo",
      slo: { tpotUs: 100_000 },
    })
    expect(resolve({ args: { slo_tier: "slo", slo_class: "best_effort", slo_tpot_ms: 9 } }).tier).toBe("slo")
    expect(() => resolve({ args: { slo_tier: "slo", slo_class: "best_effort" } })).toThrow(
      "'vllm_xargs.slo_tier': the class best_effort has no objectives",
    )
    expect(() => resolve({ args: { slo_tier: "best_effort", slo_tpot_ms: 9 } })).toThrow(
      "'vllm_xargs.slo_tier': best effort has no objectives",
    )
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
