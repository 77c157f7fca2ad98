/** The whole comparison: capacities of every system in every scenario, and around them the curves, ablations,
 * fleet sizes and arrival processes. Stages follow each other; within one, everything is parallel. */
import type { PolicyOptions } from "../core/options.ts"
import { asPaper } from "./as-paper.ts"
import { fleetSizes } from "./fleet-sizes.ts"
import type { Study } from "./results.ts"
import { spendings } from "./spendings.ts"
import { leaders, near, type StudyOptions, stage } from "./stage.ts"
import { SYSTEMS, type System, systemOf } from "./systems.ts"
import { share } from "./tally.ts"
import type { CapacityTask, SweepTask } from "./tasks.ts"

/** Pieces of our planner, each taken away alone. */
export const ABLATIONS: Readonly<Record<string, Partial<PolicyOptions>>> = {
  "revocation (firm admission)": { admission: "firm" },
  "memory forecast": { kvShare: 1e6 },
  "cap on best-effort work": { bestEffortBatchUs: 1e9 },
  "best-effort's share when starved": { bestEffortEveryUs: 1e12 },
  "safety margin": { margin: 0 },
  "slack batches (50 ms at most)": { maxBatchUs: 50_000 },
}

const CURVE_RATES = [0.5, 0.75, 0.9, 1.1, 1.3, 1.6]

export async function runStudy(options: StudyOptions): Promise<Study> {
  const study: Study = {
    ...{ rows: [], curves: [], ablations: [], fleetSizes: [], byArrivals: [] },
    ...{ spendings: [], asPaper: [], sources: {} },
  }
  await capacities(options, study)
  if (!options.extras) return study
  study.spendings = await spendings(options, study)
  await curves(options, study)
  if (options.systems.includes("slos-serve")) await ablations(options, study)
  study.fleetSizes = await fleetSizes(options, study)
  await byArrivals(options, study)
  study.asPaper = await asPaper(options, study)
  return study
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
      bestEffortP50Ms: report!.bestEffortMs?.p50 ?? 0,
      bestEffortP99Ms: report!.bestEffortMs?.p99 ?? 0,
      revoked: report!.revoked,
      byClass: Object.fromEntries(Object.entries(report!.byClass).map(([name, s]) => [name, share(s)])),
      utilization: report!.utilization.reduce((a, b) => a + b, 0) / Math.max(1, report!.utilization.length),
    })
  }
}

const round = (ratePerSec: number) => Number(ratePerSec.toPrecision(4))

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
