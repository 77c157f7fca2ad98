/** What benches of the same arrivals for several systems share: their options, how much was kept, and whether a difference is more than
 * chance. */
import { writeFileSync } from "node:fs"
import { Command } from "commander"
import { mean, sampleStandardDeviation } from "simple-statistics"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import { ENGINES, type Engine } from "./engines.ts"

export interface BurstOptions {
  seeds: number
  requests: number
  noise: number
  rates: string[]
  only?: string
  out?: string
}

const RATES = ["20", "30", "40", "50", "55", "70", "85", "90", "100", "110"]

/** A bench of simulated bursts (engines.ts); `usual`: where nothing else is asked. */
export function burstCommand(
  name: string,
  usual: Pick<BurstOptions, "seeds" | "requests" | "noise" | "rates">,
): Command {
  return new Command(name)
    .option("--seeds <n>", "arrivals of each rate", wholeNumber(1, 1000), usual.seeds)
    .option("--requests <n>", "requests of a run", wholeNumber(5, 1e5), usual.requests)
    .option("--noise <percent>", "spread of step times", wholeNumber(0, 100), usual.noise)
    .option("--rates <list>", "of what the engine could compute, percent", listOf(RATES), usual.rates)
    .option("--only <text>", "engines whose name has it")
    .option("--out <file>", "write rows as JSON")
}

export interface Cell {
  engine: Engine
  percent: number
}

export function cellsOf({ only, rates }: Pick<BurstOptions, "only" | "rates">): Cell[] {
  return ENGINES.filter(({ name }) => only === undefined || name.includes(only)).flatMap((engine) =>
    rates.map((rate) => ({ engine, percent: Number(rate) })),
  )
}

/** One run on the arrivals of `seed`. */
export interface Played {
  seed: number
  kept: number
  of: number
  /** Of a system that is tuned. */
  budget?: number
}

/** In percent. */
export function shareOf<Key extends string>(
  rows: readonly Readonly<Record<Key, number>>[],
  kept: Key,
  of: Key,
): number {
  const sum = (key: Key) => rows.reduce((total, row) => total + row[key], 0)
  return (100 * sum(kept)) / Math.max(1, sum(of))
}

/** Of several budgets the one that keeps most. */
export function bestOf<Row extends Played>(rows: readonly Row[]): readonly Row[] {
  const budgets = [...new Set(rows.map(({ budget }) => budget))].map((budget) =>
    rows.filter((row) => row.budget === budget),
  )
  return budgets.reduce((a, b) => (shareOf(b, "kept", "of") > shareOf(a, "kept", "of") ? b : a))
}

/** Points more than `others` kept on the same arrivals, and the standard error of that. */
export function gainOver(
  rows: readonly Played[],
  others: readonly Played[],
): { points: number; error: number } {
  const other = new Map(others.map((row) => [row.seed, row]))
  const gains = rows.map(
    (row) => shareOf([row], "kept", "of") - shareOf([other.get(row.seed)!], "kept", "of"),
  )
  const error = gains.length < 2 ? Infinity : sampleStandardDeviation(gains) / Math.sqrt(gains.length)
  return { points: mean(gains), error }
}

/** As "+0.3 ± 0.2"; of one seed without its error, which is not known. */
export function gainText(rows: readonly Played[], others: readonly Played[]): string {
  const { points, error } = gainOver(rows, others)
  const chance = error < Infinity ? ` ± ${error.toFixed(1)}` : ""
  return `${points < 0 ? "-" : "+"}${Math.abs(points).toFixed(1)}${chance}`
}

export function writeRows(out: string | undefined, rows: readonly object[]): void {
  if (out !== undefined) writeFileSync(out, `[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`)
}
