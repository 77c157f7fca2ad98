/** The units of work of a study. Each is plain data with a plain result, needs no other, and says nothing of
 * time: so they can run on any worker in any order and give the same bytes. */

import type { Share } from "../load/statistics.ts"
import { type Bound, boundOf, fluidBound, jobsOf } from "./bound.ts"
import { type Capacity, DECIDED, type Evaluate, gridOf, rateOf, Search, TARGET } from "./capacity.ts"
import type { Check } from "./misses.ts"
import { type RunReport, runScenario } from "./run.ts"
import type { RunSpec } from "./spec.ts"
import { applied, FIXED_DRAFTS, type Knob, systemOf } from "./systems.ts"

/** How long runs are: at least so many requests over at least this span, s, which must be long against a request. */
export interface Size {
  requests: number
  spanS: number
}

/** Tune a system's knobs, then measure its capacity with fresh seeds; without and then with speculation. */
export interface CapacityTask {
  kind: "capacity"
  system: string
  /** Rate, duration and seed are the search's. */
  base: RunSpec
  size: Size
  tuneSeeds: number[]
  seeds: number[]
  speculate: boolean[]
  /** No tuning: exactly these options. */
  fixed?: boolean
  /** Seek each seed's own capacity too. */
  spread?: boolean
  /** Which tokens must be in time. Default: every one. */
  check?: Check
  /** Where to begin the search, requests/s. */
  guess?: number
}

/** Attainment at given rates, all of it. */
export interface SweepTask {
  kind: "sweep"
  base: RunSpec
  size: Size
  rates: number[]
  seeds: number[]
}

/** Attainment of one workload under several settings. */
export interface CompareTask {
  kind: "compare"
  /** Rate, duration and seed are the task's. */
  base: RunSpec
  size: Size
  ratePerSec: number
  seeds: number[]
  settings: Pick<RunSpec, "policy" | "options">[]
}

export type Task = CapacityTask | SweepTask | CompareTask

export interface Measured extends Capacity {
  speculate: boolean
  /** The settings kept, and how many were tried. */
  setting: string[]
  tried: number
  bound: Bound
  /** The configuration that was measured. */
  spec: RunSpec
}

export interface SweepResult {
  points: { ratePerSec: number; reports: RunReport[] }[]
}

/** Of each setting each seed's own share. */
export type CompareResult = Share[][]

export type Result<T extends Task = Task> = T extends CapacityTask
  ? Measured[]
  : T extends SweepTask
    ? SweepResult
    : CompareResult

/** Requests whose lengths the fluid bound is made of. */
const BOUND_SIZE: Size = { requests: 2000, spanS: 0 }
const WORK_SIZE: Size = { requests: 200, spanS: 0 }

/** Runs that a search of one configuration takes, as a rule. */
const RUNS_OF_SEARCH = 6

export function runTask<T extends Task>(task: T, onProgress: (text: string) => void = () => {}): Result<T> {
  if (task.kind === "compare") return compare(task) as Result<T>
  return (task.kind === "capacity" ? measure(task, onProgress) : sweep(task, onProgress)) as Result<T>
}

/** About how many tokens a task simulates, prompt chunks as one: to begin with the longest and to foresee the end. */
export function workOf(task: Task): number {
  const { base, size } = task
  const jobs = jobsOf(at(base, WORK_SIZE, 1, 1))
  const tokens = jobs.reduce((sum, { output }) => sum + output, 0) / jobs.length
  const bound = fluidBound(jobs, base.hardware, base.replicas, null).ratePerSec
  const ofRun = tokens * Math.max(size.requests, size.spanS * bound)
  if (task.kind === "compare") return ofRun * task.settings.length * task.seeds.length
  if (task.kind === "sweep") return ofRun * task.rates.length * task.seeds.length
  const searched = RUNS_OF_SEARCH * task.seeds.length * (task.spread ? 1.5 : 1)
  const runs = task.speculate.map((speculate, i) => {
    const tried = task.fixed ? 0 : knobsOf(task, speculate, i > 0).reduce((n, knob) => n + knob.length, 0)
    return searched + (tried && (tried + RUNS_OF_SEARCH) * task.tuneSeeds.length)
  })
  return ofRun * runs.reduce((a, b) => a + b, 0)
}

/** A run of this size at this rate. */
export function at(base: RunSpec, { requests, spanS }: Size, ratePerSec: number, seed: number): RunSpec {
  return { ...base, ratePerSec, durationS: Math.max(requests / ratePerSec, spanS), seed }
}

function sweep({ base, size, rates, seeds }: SweepTask, onProgress: (text: string) => void): SweepResult {
  const points = rates.map((ratePerSec) => {
    onProgress(`${ratePerSec.toPrecision(3)}/s`)
    return { ratePerSec, reports: seeds.map((seed) => runScenario(at(base, size, ratePerSec, seed))) }
  })
  return { points }
}

function compare({ base, size, ratePerSec, seeds, settings }: CompareTask): CompareResult {
  return settings.map((setting) =>
    seeds.map((seed) => runScenario(at({ ...base, ...setting }, size, ratePerSec, seed)).attainment),
  )
}

function measure(task: CapacityTask, onProgress: (text: string) => void): Measured[] {
  const system = systemOf(task.system)!
  const results: Measured[] = []
  let best = { spec: task.base, setting: [] as string[] }
  for (const speculate of task.speculate) {
    const bound = boundOf({ ...at(best.spec, BOUND_SIZE, 1, task.seeds[0]!), speculate })
    const before = results.at(-1)
    let guess = gridOf(task.guess ?? (before?.ratePerSec || bound.ratePerSec / 2))
    let tried = 1
    const adaptive = speculate && !system.fixedDraft
    best = { ...best, spec: { ...best.spec, policy: system.policy, speculate } }
    const knobs = task.fixed ? [] : knobsOf(task, speculate, before !== undefined)
    if (knobs.length > 0) {
      const tuned = tune(task, best, knobs, guess, onProgress)
      best = tuned
      guess = tuned.k ?? guess
      tried = tuned.tried
    }
    const drafts = best.setting.some((label) => /^fixedDraft=[1-9]/.test(label))
    if (before !== undefined && !adaptive && !drafts) {
      results.push({ ...before, speculate, tried, bound, setting: best.setting, spec: best.spec })
      continue
    }
    onProgress(
      `${speculate ? "speculative" : "autoregressive"}: measuring near ${rateOf(guess).toPrecision(3)}/s`,
    )
    const capacity = searchOf(task, best.spec).capacity(guess, task.seeds, task.spread === true)
    results.push({ ...capacity, speculate, setting: best.setting, tried, bound, spec: best.spec })
  }
  return results
}

/** With speculation only the length of drafts is tuned anew where it is a knob; else all knobs are, since batches
 * that suit drafts are longer. */
function knobsOf(task: CapacityTask, speculate: boolean, tunedBefore: boolean): readonly Knob[] {
  const system = systemOf(task.system)!
  const own = tunedBefore && system.fixedDraft ? [] : system.knobs(task.base.replicas)
  return speculate && system.fixedDraft ? [...own, FIXED_DRAFTS] : own
}

function searchOf(task: CapacityTask, spec: RunSpec, stopFactor?: number): Search {
  const evaluate: Evaluate = (ratePerSec, seed, stopAtMissed) => {
    const { check = "everyToken" } = task
    const report = runScenario(at(spec, task.size, ratePerSec, seed), { stopAtMissed, check })
    const { attained, total } = check === "everyToken" ? report.attainment : report.attainmentEvery10
    return { kept: attained, total, stopped: report.stopped }
  }
  return new Search(evaluate, TARGET, stopFactor)
}

const knobName = (label: string) => label.split("=")[0]

/** One knob after the other; a value is tried at the next higher rate than the best so far holds, and searched
 * further only if it holds that. */
function tune(
  task: CapacityTask,
  start: { spec: RunSpec; setting: string[] },
  knobs: readonly Knob[],
  guess: number,
  onProgress: (text: string) => void,
) {
  const seeds = task.tuneSeeds
  const stopFactor = seeds.length === 1 ? DECIDED : undefined
  let { spec } = start
  // Of a knob that is tuned anew, what was kept before no longer holds.
  let setting = start.setting.filter(
    (label) => !knobs.some((knob) => knobName(knob[0]!.label) === knobName(label)),
  )
  let tried = 1
  for (const knob of knobs) spec = applied(spec, knob[0]!)
  let k = searchOf(task, spec, stopFactor).highest(guess, seeds, 8)
  for (const knob of knobs) {
    let label = knob[0]!.label
    for (const value of knob.slice(1)) {
      tried++
      onProgress(`tuning ${value.label}`)
      const candidate = applied(spec, value)
      const search = searchOf(task, candidate, stopFactor)
      const goal = k === null ? guess - 100 : k + 1
      if (!search.passes(goal, seeds)) continue
      k = search.highest(goal, seeds)
      spec = candidate
      label = value.label
    }
    setting = [...setting, label]
  }
  return { spec, setting, k, tried }
}
