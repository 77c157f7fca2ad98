/** What a study finds: plain data, as `results.json` holds it. */
import type { ArrivalName } from "../load/arrivals.ts"
import type { Quantiles } from "../load/statistics.ts"
import type { RunReport } from "./run.ts"
import { type System, systemOf } from "./systems.ts"
import type { Measured, Size } from "./tasks.ts"

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
  /** At its own capacity: attainment by tenth of the requests by size, and best-effort latency (0: there was none). */
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

/** Under bursts; `ratePerSec` of the whole fleet. */
export interface FleetSize {
  system: string
  replicas: number
  ratePerSec: number
}

/** What one system did at one rate: which requests it kept, what the others waited, and what they cost. */
export interface Spending {
  scenario: string
  system: string
  /** `own`: at its own capacity. `common`: at slos-serve's, the same rate for all. */
  at: "own" | "common"
  ratePerSec: number
  attainment: number
  missedTtftMs: Quantiles | null
  longestPauseMs: Quantiles | null
  goodput: RunReport["goodput"]
  missedWorkShare: number
}

/** Capacity of one contender under the paper's conditions. */
export interface AsPaper {
  scenario: string
  contender: string
  speculate: boolean
  arrivals: ArrivalName
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
  spendings: Spending[]
  asPaper: AsPaper[]
  sources: Record<string, Record<string, string>>
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
