/** SLO classes: what YAML and the inline form may say, and where errors point. */
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { UserError } from "../errors.ts"
import { parseSloClasses } from "./file.ts"
import { defaultSloClasses, parseInlineClasses, type SloClasses } from "./slo-classes.ts"

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

  it("reads the longest gap, alone and beside stages", () => {
    const stages = "stages: {prefill: {ttft: 2x}}"
    const classes = parseSloClasses(
      `classes:\n  a: {max_gap: 500ms}\n  b: {max_gap: 1s, ${stages}}\n  c: {tpot: 5ms}\n`,
      "x",
    )
    expect(classes.all.map(({ slo }) => [slo.ttftSlowdown, slo.tpotUs, slo.maxGapUs])).toEqual([
      [0, Infinity, 500_000],
      [2, Infinity, 1_000_000],
      [0, 5000, Infinity],
    ])
  })

  it("reads what a class is worth; 1 where it does not say", () => {
    const classes = parseSloClasses("classes:\n  a: {tpot: 80ms, worth: 2.5}\n  b: {tpot: 80ms}\n", "x")
    expect(classes.all.map(({ worth }) => worth)).toEqual([2.5, 1])
  })

  it.each([
    [
      "classes:\n  a:\n    tpot: 5ms\n    worth: 0\n",
      "f.yaml:4:5: classes.a.worth must be a number from 0.001",
    ],
    ["classes:\n  a:\n    ttft: 5x\n    tpto: 100ms\n", "f.yaml:4:5: classes.a.tpto is not a field"],
    ["classes:\n  a:\n    ttft: 800\n", 'f.yaml:3:5: classes.a.ttft "800" is not a duration'],
    ["classes:\n  a:\n    tpot: 0ms\n", 'f.yaml:3:5: classes.a.tpot "0ms" must be between'],
    ["classes:\n  a:\n    ttft: 2h\n", 'f.yaml:3:5: classes.a.ttft "2h" is not a duration'],
    ["classes:\n  a:\n    ttft: 120m\n", 'f.yaml:3:5: classes.a.ttft "120m" must be between 1 ms and 1 h'],
    ["classes:\n  a:\n    ttft: -5x\n", 'f.yaml:3:5: classes.a.ttft "-5x" is not a duration'],
    ["classes:\n  a:\n    tier: gold\n", "f.yaml:3:5: classes.a.tier"],
    ["classes:\n  a: {}\n", "f.yaml:2:3: classes.a has no objective"],
    ["classes:\n  a: {tier: best_effort, tpot: 5ms}\n", "a best_effort class has no objectives"],
    ["classes:\n  a: {tier: best_effort, max_gap: 5ms}\n", "a best_effort class has no objectives"],
    [
      "classes:\n  a:\n    max_gap: 0.5ms\n",
      'f.yaml:3:5: classes.a.max_gap "0.5ms" must be between 1 ms and 1 h',
    ],
    ["classes:\n  a:\n    max_gap: 5x\n", 'f.yaml:3:5: classes.a.max_gap "5x" is not a duration'],
    ["classes:\n  a: [1\n", "f.yaml:"],
    ["classes: {}\n", "at least one class"],
    ["default: z\nclasses:\n  a: {tpot: 5ms}\n", 'default names the class "z"'],
    [
      "classes:\n  a: {tpot: 5ms, aliases: [q]}\n  b: {tpot: 5ms, aliases: [q]}\n",
      'alias "q" is given to both',
    ],
    ["classes:\n  1a: {tpot: 5ms}\n", "f.yaml:2:3: classes.1a a class name is a letter, then"],
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
    expect((caught as UserError).message).toMatch(/; docs\/config.md explains every field$/)
  })
})

describe("the inline form", () => {
  const read = (text: string) => parseInlineClasses(text, "--classes")

  it("says what YAML says; a number without a unit is ms", () => {
    const inline = read(" a = ttft:5x, tpot:150 ;b=ttft:1.5s,tpot:80ms,thinking:20,gap:500;")
    const yaml = parseSloClasses(
      "classes:\n  a: {ttft: 5x, tpot: 150ms}\n  b: {ttft: 1500ms, tpot: 80ms, thinking_tpot: 20ms, max_gap: 500ms}\n",
      "x",
    )
    expect(inline).toEqual(yaml)
  })

  it.each([
    ["a=ttft", '--classes: cannot read "ttft" in "a=ttft"; expected name=ttft:500'],
    ["a", '--classes: cannot read "" in "a"'],
    ["=ttft:5", '--classes: cannot read "ttft:5"'],
    ["a=toString:5", '--classes: cannot read "toString:5"'],
    ["b=tpot:5;a=ttft:5,tpto:3", '--classes: cannot read "tpto:3" in "a=ttft:5,tpto:3"'],
    ["a=tpot:3x", '--classes: a.tpot "3x" is not a duration'],
    ["a=gap:3h", '--classes: a.max_gap "3h" is not a duration'],
    ["a=ttft:0", '--classes: a.ttft "0ms" must be between 1 ms and 1 h'],
    ["a=ttft:0.5x", '--classes: a.ttft "0.5x" must be between 1 and 10000'],
    ["1a=ttft:5x", "--classes: 1a a class name is a letter"],
    [";", "--classes names no class; expected"],
  ])("%s is refused", (text, message) => {
    let caught: unknown
    try {
      read(text)
    } catch (error) {
      caught = error
    }
    expect(caught).toBeInstanceOf(UserError)
    expect((caught as UserError).message).toContain(message)
    expect((caught as UserError).message).not.toContain("\n")
  })
})
