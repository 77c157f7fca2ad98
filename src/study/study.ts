/** The whole comparison: capacities of every system in every scenario, and around them the curves, ablations,
 * fleet sizes and arrival processes. Stages follow each other; within one, everything is parallel. */
import type { PolicyOptions } from "../core/options.ts"
import type { ArrivalName } from "../load/arrivals.ts"
import { type PoolEvent, type PoolOptions, runTasks } from "./pool.ts"
import type { RunSpec } from "./spec.ts"
import { SYSTEMS, type System, systemOf } from "./systems.ts"
import { share } from "./tally.ts"
import type { CapacityTask, Measured, Size, SweepTask, Task } from "./tasks.ts"

export interface StudyOptions {
  scenarios: string[]
  systems: string[]
  speculate: boolean[]
  /** A scenario's hardware, traces, SLOs, noise; its policy and rate are the study's. */
  base: (scenario: string) => RunSpec
  size: (scenario: string) => Size
  /** Arrival windows, measured together; where they are several, each alone, too. */
  seeds: number[]
  tuneSeeds: number[]
  /** Curves, ablations, fleet sizes, arrival processes. */
  extras: boolean
  /** Largest fleet of the fleet sizes. */
  mostReplicas: number
  tuned: boolean
  pool: PoolOptions
  /** `left`: stages after this one. */
  onStage?: (name: string, labels: string[], left: number) => void
}

/** One system in one scenario, one way of decoding. */
export interface Row extends Measured {
  scenario: string
  system: string
  size: Size
}

export interface Curve {
  scenario: string
  system: string
  points: { ratePerSec: number; attainment: number; atCapacity: boolean }[]
  /** At its own capacity: attainment by tenth of the requests by size, and best-effort latency. */
  deciles: { upTo: number; attainment: number }[]
  bestEffortP50Ms: number
  bestEffortP99Ms: number
  revoked: number
  byClass: Record<string, number>
  utilization: number
}

export interface Ablation {
  scenario: string
  without: string
  ratePerSec: number
}

export interface FleetSize {
  system: string
  replicas: number
  ratePerSec: number
}

export interface ByArrivals {
  scenario: string
  system: string
  arrivals: ArrivalName
  ratePerSec: number
}

export interface Study {
  rows: Row[]
  curves: Curve[]
  ablations: Ablation[]
  fleetSizes: FleetSize[]
  byArrivals: ByArrivals[]
  sources: Record<string, Record<string, string>>
}

/** Pieces of our planner, each taken away alone. */
export const ABLATIONS: Readonly<Record<string, Partial<PolicyOptions>>> = {
  "revocation (firm admission)": { admission: "firm" },
  "memory forecast": { kvShare: 1e6 },
  "cap on best-effort work": { bestEffortBatchUs: 1e9 },
  "best-effort's share when starved": { bestEffortEveryUs: 1e12 },
  "safety margin": { margin: 0 },
  "slack batches (50 ms at most)": { maxBatchUs: 50_000 },
}

const FLEET_SCENARIO = "chatbot"
const FLEET_BURSTINESS = 0.25
const FLEET_REQUESTS = 400
const CURVE_RATES = [0.5, 0.75, 0.9, 1.1, 1.3, 1.6]

export async function runStudy(options: StudyOptions): Promise<Study> {
  const study: Study = { rows: [], curves: [], ablations: [], fleetSizes: [], byArrivals: [], sources: {} }
  await capacities(options, study)
  if (!options.extras) return study
  await curves(options, study)
  if (options.systems.includes("slos-serve")) await ablations(options, study)
  await fleetSizes(options, study)
  await byArrivals(options, study)
  return study
}

const STAGES = [
  "capacity",
  "attainment against rate",
  "ablations",
  "fleet sizes under bursts",
  "arrival processes",
] as const

async function stage<T extends Task>(
  options: StudyOptions,
  name: (typeof STAGES)[number],
  tasks: T[],
  labels: string[],
) {
  options.onStage?.(name, labels, options.extras ? STAGES.length - 1 - STAGES.indexOf(name) : 0)
  const onEvent = (event: PoolEvent) => options.pool.onEvent?.(event)
  return runTasks(tasks, { ...options.pool, onEvent })
}

const system = (name: string): System => systemOf(name)!

async function capacities(options: StudyOptions, study: Study): Promise<void> {
  const pairs = options.scenarios.flatMap((scenario) =>
    options.systems
      .filter((name) => options.base(scenario).replicas >= (system(name).leastReplicas ?? 1))
      .map((name) => ({ scenario, name })),
  )
  const tasks = pairs.map(
    ({ scenario, name }): CapacityTask => ({
      kind: "capacity",
      system: name,
      base: { ...options.base(scenario), policy: system(name).policy },
      size: options.size(scenario),
      tuneSeeds: options.tuneSeeds,
      seeds: options.seeds,
      speculate: options.speculate,
      fixed: !options.tuned,
      spread: options.seeds.length > 1,
    }),
  )
  const labels = pairs.map(({ scenario, name }) => `${scenario} ${name}`)
  const results = await stage(options, "capacity", tasks, labels)
  for (const [i, { scenario, name }] of pairs.entries()) {
    for (const measured of results[i]!)
      study.rows.push({ ...measured, scenario, system: name, size: options.size(scenario) })
  }
}

/** The best of a group by capacity; null when none ran. */
export function bestOf(
  rows: readonly Row[],
  group: System["group"],
  scenario: string,
  speculate: boolean,
): Row | null {
  const own = rows.filter(
    (row) =>
      row.scenario === scenario && row.speculate === speculate && systemOf(row.system)?.group === group,
  )
  return own.reduce<Row | null>(
    (best, row) => (best === null || row.ratePerSec > best.ratePerSec ? row : best),
    null,
  )
}

/** Ours, the best baseline and the best peer of each scenario, without speculation unless only that was run. */
function leaders({ scenarios, speculate }: StudyOptions, study: Study): Row[] {
  const way = speculate[0]!
  return scenarios.flatMap((scenario) =>
    (["ours", "baseline", "peer"] as const).flatMap(
      (group) => bestOf(study.rows, group, scenario, way) ?? [],
    ),
  )
}

async function curves(options: StudyOptions, study: Study): Promise<void> {
  const rows = leaders(options, study).filter((row) => row.ratePerSec > 0)
  const tasks = rows.map((row): SweepTask => {
    const most = Math.max(...rows.filter((r) => r.scenario === row.scenario).map((r) => r.ratePerSec))
    const rates = [...CURVE_RATES.map((factor) => round(factor * most)), row.ratePerSec].sort((a, b) => a - b)
    return {
      kind: "sweep",
      base: row.spec,
      size: row.size,
      rates,
      seeds: options.seeds.slice(0, 1),
    }
  })
  const labels = rows.map((row) => `${row.scenario} ${row.system}`)
  const results = await stage(options, "attainment against rate", tasks, labels)
  for (const [i, row] of rows.entries()) {
    const points = results[i]!.points.map(({ ratePerSec, reports }) => ({
      ratePerSec,
      attainment: share(reports[0]!.attainment),
      atCapacity: ratePerSec === row.ratePerSec,
    }))
    const [report] = results[i]!.points.find(({ ratePerSec }) => ratePerSec === row.ratePerSec)!.reports
    study.sources[row.scenario] = report!.sources
    study.curves.push({
      scenario: row.scenario,
      system: row.system,
      points,
      deciles: report!.bySizeDecile.map((s) => ({ upTo: s.upTo, attainment: share(s) })),
      bestEffortP50Ms: report!.bestEffortMs.p50,
      bestEffortP99Ms: report!.bestEffortMs.p99,
      revoked: report!.revoked,
      byClass: Object.fromEntries(Object.entries(report!.byClass).map(([name, s]) => [name, share(s)])),
      utilization: report!.utilization.reduce((a, b) => a + b, 0) / Math.max(1, report!.utilization.length),
    })
  }
}

const round = (ratePerSec: number) => Number(ratePerSec.toPrecision(4))

/** A capacity of exactly this configuration, sought near a known one. */
function near(
  row: Pick<Row, "spec" | "ratePerSec" | "size" | "system">,
  seeds: number[],
  change: Partial<RunSpec>,
) {
  const base = { ...row.spec, ...change, options: { ...row.spec.options, ...change.options } }
  return {
    kind: "capacity",
    system: row.system,
    base,
    size: row.size,
    tuneSeeds: [],
    seeds,
    speculate: [base.speculate],
    fixed: true,
    guess: row.ratePerSec,
  } satisfies CapacityTask
}

async function ablations(options: StudyOptions, study: Study): Promise<void> {
  const rows = leaders(options, study).filter(
    ({ system: name, ratePerSec }) => name === "slos-serve" && ratePerSec > 0,
  )
  const cases = rows.flatMap((row) => [
    { row, without: "nothing", change: {} as Partial<PolicyOptions> },
    ...Object.entries(ABLATIONS).map(([without, change]) => ({ row, without, change })),
  ])
  const tasks = cases.map(({ row, change }) => near(row, options.seeds.slice(0, 2), { options: change }))
  const labels = cases.map(({ row, without }) => `${row.scenario} without ${without}`)
  const results = await stage(options, "ablations", tasks, labels)
  for (const [i, { row, without }] of cases.entries())
    study.ablations.push({ scenario: row.scenario, without, ratePerSec: results[i]![0]!.ratePerSec })
}

async function fleetSizes(options: StudyOptions, study: Study): Promise<void> {
  const way = options.speculate[0]!
  const own = study.rows.filter(
    (row) => row.scenario === FLEET_SCENARIO && row.speculate === way && row.ratePerSec > 0,
  )
  const ours = own.find((row) => row.system === "slos-serve")
  const rival = bestOf(
    own.filter((row) => row.spec.split === null),
    "baseline",
    FLEET_SCENARIO,
    way,
  )
  const sizes = [1, 2, 4, 8, 16].filter((n) => n <= options.mostReplicas)
  const cases = sizes.flatMap((replicas) => [
    ...(ours ? [{ row: ours, label: "slos-serve, offers", replicas, router: null }] : []),
    ...(ours
      ? [{ row: ours, label: "slos-serve, round-robin", replicas, router: { kind: "round-robin" as const } }]
      : []),
    ...(rival
      ? [
          {
            row: rival,
            label: `${rival.system}, least loaded`,
            replicas,
            router: null,
          },
        ]
      : []),
  ])
  const tasks = cases.map(({ row, replicas, router }): CapacityTask => {
    const scaled = {
      ...row,
      size: { requests: FLEET_REQUESTS * replicas, spanS: 0 },
      ratePerSec: (row.ratePerSec * replicas) / row.spec.replicas,
    }
    return near(scaled, options.seeds.slice(0, 1), {
      replicas,
      router,
      arrivals: "gamma",
      burstiness: FLEET_BURSTINESS,
    })
  })
  const labels = cases.map(({ label, replicas }) => `${replicas} × ${label}`)
  const results = await stage(options, "fleet sizes under bursts", tasks, labels)
  for (const [i, { label, replicas }] of cases.entries())
    study.fleetSizes.push({ system: label, replicas, ratePerSec: results[i]![0]!.ratePerSec })
}

async function byArrivals(options: StudyOptions, study: Study): Promise<void> {
  const rows = leaders(options, study).filter(
    (row) => (row.scenario === "chatbot" || row.scenario === "coder") && row.ratePerSec > 0,
  )
  const cases = rows.flatMap((row) =>
    (["poisson", "superposed", "raw"] as const).map((arrivals) => ({ row, arrivals })),
  )
  const tasks = cases.map(({ row, arrivals }) => near(row, options.seeds.slice(0, 2), { arrivals }))
  const labels = cases.map(({ row, arrivals }) => `${row.scenario} ${row.system} ${arrivals}`)
  const results = await stage(options, "arrival processes", tasks, labels)
  for (const [i, { row, arrivals }] of cases.entries()) {
    const { ratePerSec } = results[i]![0]!
    study.byArrivals.push({ scenario: row.scenario, system: row.system, arrivals, ratePerSec })
  }
}

/** All that can take part with these policies. */
export const SYSTEM_NAMES: readonly string[] = SYSTEMS.map(({ name }) => name)
