/** Plans: deterministic by seed, the rate that was asked for, lengths as published, readable back. */
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import { Random } from "../random.ts"
import { ARRIVALS, arrivalTimes, type TraceTimes } from "./arrivals.ts"
import { quantile } from "./lengths.ts"
import { formatPlan, parsePlan } from "./plan.ts"
import { parseTrace } from "./trace.ts"
import { makePlan, SCENARIOS, useOfTrace, type WorkloadOptions } from "./workload.ts"

const base: WorkloadOptions = {
  scenario: "all",
  ratePerSec: 4,
  durationMs: 60_000,
  seed: 1,
  scale: 8,
  arrivals: "gamma",
  burstiness: 0.5,
  maxSequenceTokens: 1024,
  traces: {},
}

describe("plans", () => {
  test("same options, same plan; another seed, another plan", () => {
    expect(formatPlan(makePlan(base))).toBe(formatPlan(makePlan(base)))
    expect(formatPlan(makePlan({ ...base, seed: 2 }))).not.toBe(formatPlan(makePlan(base)))
  })

  test("at another rate the same seed draws the same lengths", () => {
    const chats = (rate: number) =>
      makePlan({ ...base, ratePerSec: rate })
        .requests.filter((r) => r.app === "chat")
        .map((r) => r.rounds[0]!.promptTokens)
    const [few, many] = [chats(2), chats(5)]
    expect(many.slice(0, few.length)).toEqual(few)
  })

  test("any scenario, rate and scale: exact count, within span and context, round trip through JSONL", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(SCENARIOS)),
        fc.double({ min: 0.5, max: 20, noNaN: true }),
        fc.integer({ min: 1, max: 1000 }),
        fc.constantFrom(1, 8, 64),
        fc.integer({ min: 64, max: 8192 }),
        (scenario, ratePerSec, seed, scale, maxSequenceTokens) => {
          const plan = makePlan({ ...base, scenario, ratePerSec, seed, scale, maxSequenceTokens })
          expect(plan.requests).toHaveLength(Math.round(ratePerSec * 60))
          let last = 0
          for (const request of plan.requests) {
            expect(request.atMs).toBeGreaterThanOrEqual(last)
            expect(request.atMs).toBeLessThanOrEqual(60_000)
            last = request.atMs
            let history = 0
            for (const round of request.rounds) {
              expect(Math.min(round.promptTokens, round.outputTokens)).toBeGreaterThanOrEqual(1)
              expect(round.thinkingTokens).toBeLessThan(round.outputTokens)
              history += round.promptTokens + round.outputTokens
            }
            expect(history).toBeLessThanOrEqual(maxSequenceTokens)
            if (request.app === "tools") expect(request.rounds.at(-1)!.class).toBe("tools_final")
          }
          expect(parsePlan(formatPlan(plan), "plan")).toEqual(plan)
        },
      ),
      { numRuns: 60 },
    )
  })

  test.each(["mixed", "all"])("%s has its shares", (scenario) => {
    const { requests } = makePlan({ ...base, scenario, ratePerSec: 10 })
    const share = (app: string) => requests.filter((r) => r.app === app).length / requests.length
    for (const [app, wanted] of Object.entries(SCENARIOS[scenario]!))
      expect(share(app)).toBeCloseTo(wanted, 2)
  })

  test.each([
    ["chat", "chatbot"],
    ["code", "coder"],
    ["summarize", "summarizer"],
  ])("%s is another name of %s", (alias, scenario) => {
    expect(makePlan({ ...base, scenario: alias }).requests).toEqual(makePlan({ ...base, scenario }).requests)
  })

  test("tool sessions have 2 to 5 rounds with growing delays; reasoning thinks about 3000 tokens", () => {
    const tools = makePlan({ ...base, scenario: "tools", scale: 1, maxSequenceTokens: 1e6, ratePerSec: 20 })
    const counts = new Set(tools.requests.map((r) => r.rounds.length))
    expect([...counts].sort()).toEqual([2, 3, 4, 5])
    const delays = tools.requests.flatMap((r) => r.rounds.slice(1).map((round) => round.delayMs))
    expect(delays.reduce((a, b) => a + b) / delays.length).toBeCloseTo(1000, -3)
    const thinking = makePlan({
      ...base,
      scenario: "reasoning",
      scale: 1,
      maxSequenceTokens: 1e6,
      ratePerSec: 20,
    })
    const mean =
      thinking.requests.reduce((sum, r) => sum + r.rounds[0]!.thinkingTokens, 0) / thinking.requests.length
    expect(mean).toBeGreaterThan(2600)
    expect(mean).toBeLessThan(3300)
  })

  test("synthetic chat lengths follow the published quantiles", () => {
    const { requests } = makePlan({
      ...base,
      scenario: "chat",
      scale: 1,
      maxSequenceTokens: 1e6,
      ratePerSec: 100,
    })
    const prompts = requests.map((r) => r.rounds[0]!.promptTokens).sort((a, b) => a - b)
    expect(prompts[Math.floor(prompts.length / 2)]!).toBeGreaterThan(900)
    expect(prompts[Math.floor(prompts.length / 2)]!).toBeLessThan(1100)
    expect(quantile([1, 2, 3, 4, 50, 60, 70, 80, 90], 0.5)).toBe(50)
  })

  const long = (rows: number) =>
    parseTrace(
      Array.from({ length: rows }, (_, i) =>
        JSON.stringify({ timestamp: i, input_length: 40_000 + i, output_length: 160, hash_ids: [0, i + 1] }),
      ).join("\n"),
      "long.jsonl",
    )

  test("rows of a trace fit the context after scaling, or are left out and counted", () => {
    const chat = { ...base, scenario: "chat", ratePerSec: 1, maxSequenceTokens: 8191 }
    const { requests, header } = makePlan({ ...chat, traces: { chat: long(20) } })
    expect(requests.every(({ rounds }) => rounds[0]!.promptTokens >= 5000)).toBe(true)
    expect(header.sources.chat).toBe("trace long.jsonl (20 of 20 requests)")
    expect(() => makePlan({ ...chat, scale: 1, traces: { chat: long(20) } })).toThrow(UserError)
    expect(() => makePlan({ ...chat, scale: 1, traces: { chat: long(20) } })).toThrow(
      "long.jsonl: all of its 20 requests are longer than 8191 tokens; raise --scale",
    )
    const text = "num_prefill_tokens,num_decode_tokens\n100,9\n99999,1\n200,0\n300,5\n4"
    const mixed = makePlan({ ...chat, traces: { chat: parseTrace(text, "l.csv") } })
    expect(mixed.header.sources.chat).toBe(
      "trace l.csv (2 of 5 requests; left out: 1 longer than 8191 tokens at scale 8, 1 without prompt or answer, " +
        "1 cut off at the end of the file)",
    )
  })

  test("synthetic apps refuse a trace; what a scenario takes from one is known", () => {
    const traces = { tools: long(3) }
    expect(() => makePlan({ ...base, traces })).toThrow("long.jsonl: requests of tools are synthetic")
    expect(useOfTrace("all", "code")).toBe("lengths")
    expect(useOfTrace("tools", "chat")).toBe("times")
    expect(useOfTrace("coder", "chat")).toBeNull()
    expect(useOfTrace("reasoning", "reasoning")).toBeNull()
  })

  test("a trace of one moment has no gaps for raw arrivals", () => {
    const line = '{"timestamp":5,"input_length":20,"output_length":2,"hash_ids":[]}'
    const chat = parseTrace(`${line}\n${line}`, "m.jsonl")
    expect(() => makePlan({ ...base, scenario: "chat", arrivals: "raw", traces: { chat } })).toThrow(
      "all requests of the trace m.jsonl came at one moment",
    )
  })

  test.each([
    [{ ratePerSec: 0 }, "--rate must be"],
    [{ ratePerSec: Number.NaN }, "--rate must be"],
    [{ ratePerSec: 1e9 }, "more than one generator can send"],
    [{ ratePerSec: 0.001 }, "sends no request"],
    [{ scenario: "nope" }, "known: chatbot, coder"],
    [{ seed: 1.5 }, "--seed"],
  ])("refuses %j in one line", (wrong, message) => {
    expect(() => makePlan({ ...base, ...wrong })).toThrow(UserError)
    expect(() => makePlan({ ...base, ...wrong })).toThrow(message)
  })
})

describe("arrivals", () => {
  const trace: TraceTimes = { name: "t.csv", times: Array.from({ length: 5000 }, (_, i) => i * 100) }
  test.each(ARRIVALS)("%s: exact count, sorted, within the span", (process) => {
    for (const count of [0, 1, 7, 400]) {
      const options = { count, spanMs: 10_000, burstiness: 0.3, trace, random: new Random(count) }
      const times = arrivalTimes(process, options)
      expect(times).toHaveLength(count)
      expect(times).toEqual([...times].sort((a, b) => a - b))
      expect(times.every((time) => time >= 0 && time < 10_000)).toBe(true)
    }
  })

  test("burstiness b gives gaps with coefficient of variation 1/sqrt(b)", () => {
    for (const burstiness of [0.25, 1, 4]) {
      const options = { count: 20_000, spanMs: 1e6, burstiness, trace: undefined, random: new Random(3) }
      const times = arrivalTimes("gamma", options)
      const gaps = times.slice(1).map((time, i) => time - times[i]!)
      const mean = gaps.reduce((a, b) => a + b) / gaps.length
      const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length
      expect(Math.sqrt(variance) / mean).toBeGreaterThan(0.93 / Math.sqrt(burstiness))
      expect(Math.sqrt(variance) / mean).toBeLessThan(1.07 / Math.sqrt(burstiness))
    }
  })

  test("a time-compressed trace keeps its bursts", () => {
    const bursts: TraceTimes = {
      name: "t.csv",
      times: Array.from({ length: 1000 }, (_, i) => Math.floor(i / 10) * 1000),
    }
    const times = arrivalTimes("trace", {
      count: 200,
      spanMs: 4000,
      burstiness: 1,
      trace: bursts,
      random: new Random(1),
    })
    expect(new Set(times.map((time) => time.toFixed(3))).size).toBeLessThanOrEqual(21)
  })
})

describe("plan files", () => {
  test("malformed plan lines are reported by place", () => {
    const good = formatPlan(makePlan({ ...base, ratePerSec: 0.1 })).trimEnd()
    expect(() => parsePlan(`${good}\n{"atMs":-1}`, "p.jsonl")).toThrow(/^p\.jsonl:8: /)
    expect(() => parsePlan(`${good}\nnope`, "p.jsonl")).toThrow("p.jsonl:8: not JSON")
    expect(() => parsePlan("{}", "p.jsonl")).toThrow("p.jsonl:1: ")
  })
})
