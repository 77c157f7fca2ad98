/** Runs, tasks, bounds and the page of a study, on small workloads. */
import { mkdtempSync, readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { readClasses } from "../load/classes.ts"
import { HARDWARE } from "../sim/presets.ts"
import { boundOf } from "./bound.ts"
import { page } from "./page.ts"
import { runTasks } from "./pool.ts"
import type { Study } from "./results.ts"
import { runScenario } from "./run.ts"
import { RUN_DEFAULTS, type RunSpec } from "./spec.ts"
import { runStudy } from "./study.ts"
import { markdown, ratios } from "./tables.ts"
import { share } from "./tally.ts"
import { type CapacityTask, runTask } from "./tasks.ts"

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
  }, 60_000)

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

test("the bound grows with the fleet and falls with the length of requests", () => {
  const one = boundOf(spec({ durationS: 200 })).ratePerSec
  expect(boundOf(spec({ durationS: 200, replicas: 3 })).ratePerSec).toBeCloseTo(3 * one, 6)
  expect(boundOf(spec({ durationS: 200, scale: 4 })).ratePerSec).toBeGreaterThan(2 * one)
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
    expect(JSON.stringify(await small(2))).toBe(JSON.stringify(study))
  }, 240_000)
})
