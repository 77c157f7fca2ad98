/** The small statistics that reports of replays and of simulated runs share. */
import { mean, quantileSorted, standardDeviation } from "simple-statistics"

export interface Share {
  attained: number
  total: number
}

export interface Quantiles {
  count: number
  mean: number
  std: number
  p50: number
  p90: number
  p95: number
  p99: number
}

/** Null: of nothing there are none. */
export function quantiles(values: readonly number[]): Quantiles | null {
  if (values.length === 0) return null
  const sorted = Float64Array.from(values).sort() as unknown as number[]
  const at = (level: number) => quantileSorted(sorted, level)
  return {
    count: sorted.length,
    mean: mean(sorted),
    std: standardDeviation(sorted),
    p50: at(0.5),
    p90: at(0.9),
    p95: at(0.95),
    p99: at(0.99),
  }
}

/** Ten parts of nearly equal number, the smallest by `tokens` first; of fewer than ten items some are empty. */
export function tenths<T extends { tokens: number }>(items: readonly T[]): T[][] {
  const sorted = [...items].sort((a, b) => a.tokens - b.tokens)
  const edge = (i: number) => Math.floor((sorted.length * i) / 10)
  return Array.from({ length: 10 }, (_, i) => sorted.slice(edge(i), edge(i + 1)))
}
