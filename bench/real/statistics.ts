/** Capacity of each system with bootstrap intervals, and ratios between systems paired by arrival window. */

import { Random } from "../../src/random.ts"
import { capacityAt, type RatePoint } from "./capacity.ts"

/** One run, as the analysis sees it. `ratePerSec` is already normalized for the machine's speed. */
export interface Point {
  system: string
  seed: number
  ratePerSec: number
  /** The rate that was asked for, when that differs: runs of one nominal rate are one point of the curve. */
  nominalPerSec?: number
  attained: number
  total: number
}

export interface Interval {
  value: number
  low: number
  high: number
}

export interface Capacity extends Interval {
  system: string
  bound: "exact" | "atLeast" | "atMost"
  runs: number
  seeds: number
}

const RESAMPLES = 2000

/** Arrival windows (seeds) are drawn with replacement, all runs of a window together: requests of one window
 * share its bursts and are no independent samples. Every system gets the same draw, which pairs them. */
export function analyse(points: readonly Point[], target = 0.9, resamples = RESAMPLES) {
  const systems = [...new Set(points.map((point) => point.system))]
  const seeds = [...new Set(points.map((point) => point.seed))]
  const bySystem = new Map(
    systems.map((system) => [system, points.filter((point) => point.system === system)]),
  )
  const capacity = (own: readonly Point[]) => capacityAt(ratePoints(own), target)
  const draws = new Map<string, number[]>(systems.map((system) => [system, []]))
  const random = new Random("bootstrap", points.length)
  for (let i = 0; i < resamples; i++) {
    const drawn = seeds.map(() => seeds[random.integer(0, seeds.length)]!)
    for (const [system, own] of bySystem) {
      const sample = drawn.flatMap((seed) => own.filter((point) => point.seed === seed))
      draws.get(system)!.push(capacity(sample)?.ratePerSec ?? Number.NaN)
    }
  }
  const capacities: Capacity[] = systems.map((system) => {
    const own = bySystem.get(system)!
    const { ratePerSec, bound } = capacity(own)!
    return {
      system,
      bound,
      value: ratePerSec,
      ...range(draws.get(system)!),
      runs: own.length,
      seeds: new Set(own.map((point) => point.seed)).size,
    }
  })
  const ratio = (a: string, b: string): Interval => {
    const value = (name: string) => capacities.find((entry) => entry.system === name)!.value
    const pairs = draws.get(a)!.map((draw, i) => draw / draws.get(b)![i]!)
    return { value: value(a) / value(b), ...range(pairs) }
  }
  return { capacities, ratio }
}

/** One point a nominal rate, all windows pooled: single windows scatter by tens of percent, and a curve through
 * them would fall below the target at the first unlucky one. */
function ratePoints(points: readonly Point[]): RatePoint[] {
  const groups = Map.groupBy(points, (point) => point.nominalPerSec ?? point.ratePerSec)
  return [...groups.values()].map((group) => {
    const sum = (of: (point: Point) => number) => group.reduce((total, point) => total + of(point), 0)
    const weight = sum((point) => point.total)
    return {
      ratePerSec: sum((point) => point.ratePerSec * point.total) / weight,
      attainment: sum((point) => point.attained) / weight,
      weight,
    }
  })
}

/** Middle 95%. */
function range(values: readonly number[]): { low: number; high: number } {
  const sorted = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b)
  const at = (level: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(level * sorted.length))] ?? Number.NaN
  return { low: at(0.025), high: at(0.975) }
}

/** Attainment per system and rung, pooled over seeds, with a bootstrap interval over seeds. */
export function pooled(rows: readonly (Point & { rung: number })[]) {
  const groups = new Map<string, (Point & { rung: number })[]>()
  for (const row of rows) {
    const key = `${row.system} ${row.rung}`
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  return [...groups.values()]
    .map((group) => {
      const share = (list: readonly Point[]) =>
        list.reduce((sum, p) => sum + p.attained, 0) / list.reduce((sum, p) => sum + p.total, 0)
      const random = new Random("rung", group.length)
      const draws = Array.from({ length: 500 }, () =>
        share(group.map(() => group[random.integer(0, group.length)]!)),
      )
      const { system, rung } = group[0]!
      return { system, rung, runs: group.length, value: share(group), ...range(draws) }
    })
    .sort((a, b) => a.system.localeCompare(b.system) || a.rung - b.rung)
}
