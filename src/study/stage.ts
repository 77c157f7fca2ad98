/** What the stages of a study share: its options, the pool, and searches near a known capacity. */
import { type PoolEvent, type PoolOptions, runTasks } from "./pool.ts"
import { bestOf, type Row, type Study } from "./results.ts"
import type { RunSpec } from "./spec.ts"
import { RIVAL_GROUPS } from "./systems.ts"
import type { CapacityTask, Size, Task } from "./tasks.ts"

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

const STAGES = [
  "capacity",
  "missed requests",
  "attainment against rate",
  "ablations",
  "fleet sizes under bursts",
  "arrival processes",
  "as the paper measured",
] as const

/** Runs the tasks of one stage; results in their order. */
export async function stage<T extends Task>(
  options: StudyOptions,
  name: (typeof STAGES)[number],
  tasks: T[],
  labels: string[],
) {
  options.onStage?.(name, labels, options.extras ? STAGES.length - 1 - STAGES.indexOf(name) : 0)
  const onEvent = (event: PoolEvent) => options.pool.onEvent?.(event)
  return runTasks(tasks, { ...options.pool, onEvent })
}

/** Ours and the best of each group of rivals in each scenario, without speculation unless only that was run. */
export function leaders({ scenarios, speculate }: StudyOptions, study: Study): Row[] {
  const way = speculate[0]!
  return scenarios.flatMap((scenario) =>
    (["ours", ...RIVAL_GROUPS] as const).flatMap((group) => bestOf(study.rows, group, scenario, way) ?? []),
  )
}

/** A capacity of exactly this configuration, sought near a known one. */
export function near(
  row: Pick<Row, "spec" | "ratePerSec" | "size" | "system">,
  seeds: number[],
  change: Partial<RunSpec>,
): CapacityTask {
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
  }
}
