/** SLO classes: what a config may say, where its errors point, and which SLO a request gets. */
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { defaultSloClasses, parseSloClasses, type SloClasses } from "../config/slo-classes.ts"
import { UserError } from "../errors.ts"
import { resolveSlo, type SloSource } from "./slo-resolve.ts"

const example = readFileSync(new URL("../../examples/slo-classes.yaml", import.meta.url), "utf8")

describe("the config", () => {
  it("has built-in classes, and the documented example says the same", () => {
    const builtIn = defaultSloClasses()
    const parsed = parseSloClasses(example, "example.yaml")
    const bare = (classes: SloClasses) => classes.all.map(({ aliases: _, ...c }) => c)
    expect(bare(parsed)).toEqual(bare(builtIn))
    expect(parsed.default.name).toBe("chat")
    expect(parsed.byAlias.get("code-completion")!.name).toBe("code")
  })

  it("reads durations, multiples and stages as µs", () => {
    const classes = parseSloClasses(
      "classes:\n  a: {ttft: 1.5s, tpot: 80ms}\n  b: {stages: {prefill: {ttft: 2.5x}, thinking: {tpot: 20ms}}}\n",
      "x",
    )
    expect(classes.all[0]).toMatchObject({
      slo: { ttftUs: 1_500_000, ttftSlowdown: 0, tpotUs: 80_000, thinkingTpotUs: 80_000 },
      thinking: false,
    })
    expect(classes.all[1]).toMatchObject({
      slo: { ttftUs: Infinity, ttftSlowdown: 2.5, tpotUs: Infinity, thinkingTpotUs: 20_000 },
      thinking: true,
    })
  })

  it("reads what a class is worth; 1 where it does not say", () => {
    const classes = parseSloClasses("classes:\n  a: {tpot: 80ms, worth: 2.5}\n  b: {tpot: 80ms}\n", "x")
    expect(classes.all.map(({ worth }) => worth)).toEqual([2.5, 1])
  })

  it.each([
    [
      "classes:\n  a:\n    tpot: 5ms\n    worth: 0\n",
      "f.yaml:4: classes.a.worth must be a number from 0.001",
    ],
    ["classes:\n  a:\n    ttft: 5x\n    tpto: 100ms\n", "f.yaml:4: classes.a.tpto is not a field"],
    ["classes:\n  a:\n    ttft: 800\n", 'f.yaml:3: classes.a.ttft "800" is not a duration'],
    ["classes:\n  a:\n    tpot: 0ms\n", 'f.yaml:3: classes.a.tpot "0ms" must be between'],
    ["classes:\n  a:\n    ttft: 2h\n", 'f.yaml:3: classes.a.ttft "2h" is not a duration'],
    ["classes:\n  a:\n    ttft: 120m\n", 'f.yaml:3: classes.a.ttft "120m" must be between 1 ms and 1 h'],
    ["classes:\n  a:\n    ttft: -5x\n", 'f.yaml:3: classes.a.ttft "-5x" is not a duration'],
    ["classes:\n  a:\n    tier: gold\n", "f.yaml:3: classes.a.tier"],
    ["classes:\n  a: {}\n", "f.yaml:2: classes.a has no objective"],
    ["classes:\n  a: {tier: best_effort, tpot: 5ms}\n", "a best_effort class has no objectives"],
    ["classes:\n  a: [1\n", "f.yaml:"],
    ["classes: {}\n", "at least one class"],
    ["default: z\nclasses:\n  a: {tpot: 5ms}\n", 'default names the class "z"'],
    [
      "classes:\n  a: {tpot: 5ms, aliases: [q]}\n  b: {tpot: 5ms, aliases: [q]}\n",
      'alias "q" is given to both',
    ],
    ["classes:\n  1a: {tpot: 5ms}\n", "f.yaml:2: classes.1a a class name is a letter, then"],
    ["", "f.yaml: classes"],
  ])("%j is refused with its place", (text, message) => {
    let caught: unknown
    try {
      parseSloClasses(text, "f.yaml")
    } catch (error) {
      caught = error
    }
    expect(caught).toBeInstanceOf(UserError)
    expect((caught as UserError).message).toContain(message)
    expect((caught as UserError).message).toMatch(/; examples\/slo-classes.yaml explains every field$/)
  })
})

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
