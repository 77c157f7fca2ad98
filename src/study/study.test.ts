/** Runs, tasks, bounds and the page of a study, on small workloads. */
import { mkdtempSync, readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { readClasses } from "../load/classes.ts"
import type { PlannedRound } from "../load/plan.ts"
import { HARDWARE } from "../sim/presets.ts"
import { DIFFERENCES, PAPER_RATIO } from "./as-paper.ts"
import { boundOf } from "./bound.ts"
import { ComputedTokens } from "./computed-tokens.ts"
import { sizesUpTo } from "./fleet-sizes.ts"
import { type Check, Misses } from "./misses.ts"
import { page } from "./page.ts"
import { runTasks } from "./pool.ts"
import type { Study } from "./results.ts"
import { runScenario } from "./run.ts"
import { RUN_DEFAULTS, type RunSpec } from "./spec.ts"
import { runStudy } from "./study.ts"
import { markdown, ratios, ratioText } from "./tables.ts"
import { share } from "./tally.ts"
import { type CapacityTask, runTask } from "./tasks.ts"
import { planOf } from "./workload.ts"

const HARD = HARDWARE["opt-6.7b-a100"]!

function spec(change: Partial<RunSpec> = {}): RunSpec {
  return {
    ...RUN_DEFAULTS,
    scenario: "coder",
    policy: "slos-serve",
    hardware: HARD,
    ratePerSec: 2,
    durationS: 40,
    classes: readClasses(undefined),
    maxSequenceTokens: HARD.contextTokens - 1,
    ...change,
  }
}

const task = (change: Partial<CapacityTask> = {}): CapacityTask => ({
  kind: "capacity",
  system: "edf-drop",
  base: spec(),
  size: { requests: 60, spanS: 0 },
  tuneSeeds: [9],
  seeds: [1, 2],
  speculate: [false],
  spread: true,
  ...change,
})

describe("a run", () => {
  test("of replicas with several batches in flight serves as many requests, by plans made ahead", () => {
    const [one, two] = [1, 2].map((depth) => runScenario(spec({ depth, ratePerSec: 1 })))
    expect(two!.attainment.total).toBe(one!.attainment.total)
    expect(two!.steps).not.toBe(one!.steps)
    expect(two!.attainment.attained).toBeGreaterThan(0.7 * one!.attainment.attained)
  })

  test.each(POLICY_NAMES)("counts every request after the lead-in once under %s", (policy) => {
    const report = runScenario(spec({ policy, scenario: "tools", durationS: 30, ratePerSec: 1, leadIn: 0.2 }))
    const { attainment, byClass, bySizeDecile, attainmentEvery10, planned } = report
    expect(planned).toBe(30)
    expect(attainment.total).toBeGreaterThan(15)
    expect(attainment.total).toBeLessThan(30)
    expect(byClass.tools).toEqual(attainment)
    expect(bySizeDecile.reduce((sum, s) => sum + s.attained, 0)).toBe(attainment.attained)
    expect(attainmentEvery10.attained).toBeGreaterThanOrEqual(attainment.attained)
    expect(report.utilization[0]).toBeGreaterThan(0)
    expect(report.utilization[0]).toBeLessThanOrEqual(1)
  })

  test("keeps fewer SLOs the higher the rate", () => {
    const at = (ratePerSec: number) =>
      share(runScenario(spec({ ratePerSec, durationS: 120 / ratePerSec })).attainment)
    expect(at(0.3)).toBeGreaterThan(0.95)
    expect(at(60)).toBeLessThan(0.6)
  })

  test("stopped early, says no less than was kept and that it was stopped", () => {
    const overload = spec({ ratePerSec: 40, durationS: 5, policy: "vllm" })
    const whole = runScenario(overload)
    const stopped = runScenario(overload, { stopAtMissed: 0.2 })
    expect(stopped.stopped).toBe(true)
    expect(stopped.attainment.total).toBe(whole.attainment.total)
    expect(stopped.attainment.attained).toBeGreaterThanOrEqual(whole.attainment.attained)
    expect(share(stopped.attainment)).toBeLessThan(0.8)
  })

  test("says what missed requests waited and took", () => {
    const report = runScenario(spec({ ratePerSec: 3, durationS: 40, policy: "vllm" }))
    const { attainment, missedTtftMs, longestPauseMs, goodput, missedWorkShare, ttftMs } = report
    expect(missedTtftMs!.count).toBe(attainment.total - attainment.attained)
    expect(missedTtftMs!.p50).toBeGreaterThan(ttftMs!.p50)
    // First come, first served decodes in every batch: the longest pause is the longest batch.
    expect(longestPauseMs!.p99).toBeGreaterThan(longestPauseMs!.p50)
    expect(longestPauseMs!.count).toBe(attainment.total)
    // Requests that take as much work as others, kept or not.
    expect(missedWorkShare).toBeGreaterThan(1 - share(attainment) - 0.2)
    expect(missedWorkShare).toBeLessThan(1)
    expect(goodput.requestsPerSec).toBeCloseTo(attainment.attained / (40 * 0.9), 6)
    const idle = runScenario(spec({ ratePerSec: 0.3 }))
    expect(idle.missedTtftMs).toBe(null)
    expect(idle.missedWorkShare).toBe(0)
  })

  test("goodput counts all tokens of the requests that were kept", () => {
    const report = runScenario(spec({ ratePerSec: 0.5, scenario: "tools", leadIn: 0 }))
    expect(report.attainment.attained).toBe(report.attainment.total)
    const { rounds } = planOf(spec({ ratePerSec: 0.5, scenario: "tools" })).requests.reduce(
      (all, { rounds }) => ({ rounds: [...all.rounds, ...rounds] }),
      { rounds: [] as PlannedRound[] },
    )
    const perSec = (of: (round: PlannedRound) => number) =>
      rounds.reduce((sum, round) => sum + of(round), 0) / 40
    expect(report.goodput.outputTokensPerSec).toBeCloseTo(
      perSec((round) => round.outputTokens),
      6,
    )
    expect(report.goodput.promptTokensPerSec).toBeCloseTo(
      perSec((round) => round.promptTokens),
      6,
    )
  })

  test("splits prefill from decode, and speculates", () => {
    const apart = runScenario(spec({ replicas: 3, split: { prefill: 1, decode: 2 }, policy: "vllm" }))
    expect(apart.attainment.attained).toBeGreaterThan(0)
    expect(apart.utilization).toHaveLength(3)
    const slow = runScenario(spec({ scenario: "chatbot", ratePerSec: 1 }))
    const fast = runScenario(
      spec({
        scenario: "chatbot",
        ratePerSec: 1,
        options: { fixedDraft: 3 },
        speculate: true,
        policy: "vllm",
      }),
    )
    expect(fast.steps).toBeLessThan(slow.steps)
  })
})

describe("a task", () => {
  test("gives the same bytes on any number of workers, and from the cache", async () => {
    const tasks = [
      task(),
      task({ system: "vllm-v1" }),
      task({ base: spec({ seed: 5, scenario: "chatbot" }) }),
    ]
    const cache = mkdtempSync(join(tmpdir(), "study-"))
    const here = await runTasks(tasks, { workers: 0 })
    const two = await runTasks(tasks, { workers: 2, cache })
    expect(JSON.stringify(two)).toBe(JSON.stringify(here))
    expect(readdirSync(cache)).toHaveLength(3)
    const events: string[] = []
    const again = await runTasks(tasks, { cache, onEvent: ({ type }) => events.push(type) })
    expect(JSON.stringify(again)).toBe(JSON.stringify(here))
    expect(events).toEqual(["begin", "cached", "cached", "cached"])
  })

  test("holds no less by the paper's check of every tenth token", () => {
    const rate = (check: Check) =>
      runTask(task({ system: "vllm-v0", fixed: true, check, base: spec({ scenario: "chatbot" }) }))[0]!
        .ratePerSec
    expect(rate("everyTenth")).toBeGreaterThanOrEqual(rate("everyToken"))
  })

  test("keeps the best of a rival's knobs", () => {
    const [tuned] = runTask(task({ system: "vllm-v1", seeds: [9] }))
    const [plain] = runTask(task({ system: "vllm-v1", seeds: [9], fixed: true }))
    expect(tuned!.setting[0]).toMatch(/^tokenBudget=\d+$/)
    expect(tuned!.tried).toBe(5)
    expect(tuned!.ratePerSec).toBeGreaterThanOrEqual(plain!.ratePerSec)
  })

  test.each(["slos-serve", "edf-drop", "sarathi"])(
    "never passes the fluid bound: %s",
    (system) => {
      for (const scenario of ["coder", "tools"]) {
        const base = spec({ scenario, noiseSigma: 0, knownLengths: true })
        const found = runTask(
          task({
            system,
            base,
            seeds: [1],
            size: { requests: 60, spanS: 0 },
            fixed: true,
            speculate: [false, true],
          }),
        )
        for (const { ratePerSec, bound } of found) {
          expect(ratePerSec).toBeGreaterThan(0)
          expect(ratePerSec).toBeLessThan(bound.ratePerSec)
        }
        expect(found[1]!.bound.ratePerSec).toBeGreaterThanOrEqual(found[0]!.bound.ratePerSec)
      }
    },
    60_000,
  )
})

test.each<[Check, number[], number]>([
  ["everyToken", [-1, 1, -1], 1],
  ["everyTenth", [-1, 1, -1], 0],
  ["everyTenth", [1, -1, -1], 1],
  ["everyTenth", [-1, -1, -1, -1, -1, -1, -1, -1, -1, 1], 1],
  ["everyTenth", [-1, -1, -1, -1, -1, -1, -1, -1, 1, -1, -1], 0],
])("%s: tokens late by %j µs are %i miss", (check, lates, misses) => {
  const watch = new Misses([{ id: 1, deadlineUs: 1000 }], check)
  for (const [i, lateUs] of lates.entries()) watch.effect({ type: "token", id: 1, count: 1, lateUs }, i)
  expect(watch.count).toBe(misses)
})

test("several tokens of one step are checked together", () => {
  const watch = new Misses([{ id: 1, deadlineUs: 1000 }], "everyTenth")
  watch.effect({ type: "token", id: 1, count: 1, lateUs: -1 }, 0)
  watch.effect({ type: "token", id: 1, count: 8, lateUs: 1 }, 1)
  expect(watch.count).toBe(0)
  watch.effect({ type: "token", id: 1, count: 2, lateUs: 1 }, 2)
  expect(watch.count).toBe(1)
})

test("the tokens that were computed for a round, also those computed again", () => {
  const computed = new ComputedTokens()
  const item = { id: 7, position: 0, sample: true }
  const batch = { number: 1, evict: [], release: [], predictedUs: 0 }
  for (const [tokens, draft] of [
    [100, 0],
    [100, 0],
    [1, 3],
  ] as const)
    computed.effect({ type: "run", batch: { ...batch, items: [{ ...item, tokens, draft }] } })
  expect(computed.take(7)).toBe(204)
  expect(computed.take(7)).toBe(0)
})

test("one seed tells no difference within 4%", () => {
  expect(ratioText(1.04, 1)).toBe("1.04× (tie)")
  expect(ratioText(0.97, 1)).toBe("0.97× (tie)")
  expect(ratioText(1.05, 1)).toBe("1.05×")
  expect(ratioText(1.02, 3)).toBe("1.02×")
})

test("fleets double", () => {
  expect(sizesUpTo(64)).toEqual([1, 2, 4, 8, 16, 32, 64])
  expect(sizesUpTo(3)).toEqual([1, 2])
})

test("the bound grows with the fleet and falls with the length of requests", () => {
  const one = boundOf(spec({ durationS: 200 })).ratePerSec
  expect(boundOf(spec({ durationS: 200, replicas: 3 })).ratePerSec).toBeCloseTo(3 * one, 6)
  expect(boundOf(spec({ durationS: 200, scale: 4 })).ratePerSec).toBeGreaterThan(2 * one)
})

test("the bound goes by the objectives there are, and is finite whatever is missing", () => {
  const boundFor = (line: string) => {
    const names = ["code", "chat", "tools", "tools_final"]
    const classes = readClasses(names.map((name) => `${name}=${line}`).join(";"))
    return boundOf(spec({ durationS: 200, classes }))
  }
  const paced = boundFor("tpot:40")
  expect(paced.stepMs).toBeLessThanOrEqual(40.001)
  expect(boundFor("tpot:120").ratePerSec).toBeGreaterThan(1.2 * paced.ratePerSec)
  // As fast a pace by either objective allows as much.
  expect(boundFor("gap:40").ratePerSec).toBeCloseTo(paced.ratePerSec, 6)
  expect(boundFor("tpot:90,gap:40").ratePerSec).toBeCloseTo(paced.ratePerSec, 6)
  // Time until the first token may go to the decodes where it is limited: it is slack.
  expect(boundFor("ttft:2s,tpot:40").ratePerSec).toBeGreaterThan(paced.ratePerSec)
  const free = boundFor("ttft:2s").ratePerSec
  expect(free).toBeGreaterThan(boundFor("ttft:2s,tpot:40").ratePerSec)
  expect(free).toBeLessThan(Infinity)
})

describe("a study", () => {
  const small = (workers: number): Promise<Study> =>
    runStudy({
      scenarios: ["coder", "chatbot"],
      systems: ["slos-serve", "vllm-v1"],
      speculate: [false],
      base: (scenario) => spec({ scenario }),
      size: () => ({ requests: 30, spanS: 0 }),
      seeds: [1],
      tuneSeeds: [7],
      extras: true,
      mostReplicas: 1,
      tuned: false,
      pool: { workers },
    })

  test("becomes a page and tables with the figures it was given", async () => {
    const study = await small(0)
    const html = await page(study, "slos-serve capacity --quick <x>")
    const text = markdown(study, "slos-serve capacity --quick")
    for (const row of study.rows) {
      expect(html).toContain(`>${row.ratePerSec.toPrecision(3)}<`)
      expect(text).toContain(row.ratePerSec.toPrecision(3))
    }
    for (const { ratio } of ratios(study.rows, "baseline", false))
      expect(html).toContain(`${ratio.toFixed(2)}×`)
    expect(html.match(/<svg/g)!.length).toBeGreaterThanOrEqual(6)
    expect(html).toContain("&lt;x&gt;")
    expect(html).not.toMatch(/<script|<link|https?:\/\/(?!www\.w3\.org)/)
    expect(study.curves.length).toBe(4)
    expect(study.fleetSizes.length).toBe(3)
    for (const { at, ratePerSec, system, scenario } of study.spendings) {
      const row = (name: string) => study.rows.find((r) => r.system === name && r.scenario === scenario)!
      expect(ratePerSec).toBe(row(at === "own" ? system : "slos-serve").ratePerSec)
    }
    expect(study.spendings.length).toBe(2 * study.rows.length)
    // Ours, and Sarathi's published scheduler, which is vllm-v1's.
    expect(study.asPaper.map(({ contender, scenario }) => `${scenario} ${contender}`)).toEqual([
      "coder slos-serve",
      "coder Sarathi-Serve (budget of 512 tokens)",
      "chatbot slos-serve",
      "chatbot Sarathi-Serve (budget of 512 tokens)",
    ])
    for (const words of [`${PAPER_RATIO}× (average)`, "longest pause p50", "work on missed", DIFFERENCES[0]!])
      for (const output of [html, text]) expect(output).toContain(words)
    expect(JSON.stringify(await small(2))).toBe(JSON.stringify(study))
  }, 240_000)
})
