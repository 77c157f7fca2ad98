/** Cells of the map in which a rival was ahead, on arrivals that chose nothing: the rival keeps the setting that was the
 * best of all there. What chance gave it is gone; what is left is ours to mend. */
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Command } from "commander"
import { mean, sampleStandardDeviation } from "simple-statistics"
import { numberIn, wholeNumber } from "../../src/cli/numbers.ts"
import { writeResult } from "../../src/cli/output.ts"
import { createProgress } from "../../src/cli/progress.ts"
import { UserError } from "../../src/errors.ts"
import { runTasks } from "../../src/study/pool.ts"
import { parseFindings, type Verdict, verdictOf } from "./findings.ts"
import { cellsOf, LOADS, OURS, RIVALS, taskOf } from "./grid.ts"

/** The map's own seeds begin at 1. */
const FIRST_SEED = 101

interface Options {
  results: string
  behind: number
  windows: number
  workers: number
}

async function main(): Promise<void> {
  const options = new Command("bench/slo-range/fresh.ts")
    .option("--results <file>", "of the map", "bench/results/slo-range/results.json")
    .option("--behind <points>", "cells in which ours was so far behind", numberIn(0, 100), 1)
    .option("--windows <n>", "fresh arrival windows of each", wholeNumber(2, 1000), 12)
    .option("--workers <n>", "threads", wholeNumber(0, 256), 2)
    .parse()
    .opts<Options>()
  const { cells, requests } = parseFindings(readFileSync(options.results, "utf8"), options.results)
  const behind = cells
    .map(verdictOf)
    .filter(({ difference }) => difference < -options.behind)
    .toSorted((a, b) => a.difference - b.difference)
  const seeds = Array.from({ length: options.windows }, (_, i) => FIRST_SEED + i)
  const tasks = behind.map((verdict) =>
    taskOf(cellOf(verdict), [OURS, rivalOf(verdict)], { requests, seeds }),
  )
  const progress = createProgress(process.stderr)
  progress.stage("fresh windows", behind.map(nameOf), 0)
  const results = await runTasks(tasks, { workers: options.workers, onEvent: progress.event })
  progress.end()
  const rows = behind.map((verdict, i) => rowOf(verdict, results[i]!))
  const text = `${[
    "# Cells in which a rival was ahead, on fresh arrivals",
    `\nThe rival keeps the setting that was the best of its 14 in that cell. ${options.windows} windows of ${requests} requests that chose nothing; differences in points, ± one standard error.`,
    `\nCommand: \`node bench/slo-range/fresh.ts ${process.argv.slice(2).join(" ")}\``,
    "\n| scenario | load | TPOT | TTFT | rival | difference that chose it | on fresh windows |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows,
  ].join("\n")}\n`
  writeResult(join(dirname(options.results), "fresh.md"), text)
  console.log(text)
}

/** Attained of total, of each seed. */
type Shares = readonly (readonly { attained: number; total: number }[])[]

function rowOf(verdict: Verdict, [ours, rival]: Shares): string {
  const points = ours!.map(({ attained, total }, i) => (100 * (attained - rival![i]!.attained)) / total)
  const error = sampleStandardDeviation(points) / Math.sqrt(points.length)
  const { scenario, load, tpotFactor, ttft, best, difference } = verdict
  return `| ${scenario} | ${load} | ${tpotFactor}× | ${ttft} | ${best.name} ${best.label} | ${difference.toFixed(1)} | ${mean(points).toFixed(1)} ± ${error.toFixed(1)} |`
}

function cellOf({ scenario, load, tpotFactor, ttft }: Verdict) {
  const cells = cellsOf({ scenarios: [scenario], loads: [load], quick: false })
  const cell = cells.find((one) => one.tpotFactor === tpotFactor && one.ttft.label === ttft)
  if (!cell)
    throw new UserError(`no cell ${scenario} ${load} ${tpotFactor} ${ttft} in the grid; loads: ${LOADS}`)
  return cell
}

function rivalOf({ best }: Verdict) {
  const rival = RIVALS.find(({ name, label }) => name === best.name && label === best.label)
  if (!rival) throw new UserError(`the rival ${best.name} ${best.label} is not in the grid any more`)
  return rival
}

const nameOf = ({ scenario, load, tpotFactor, ttft }: Verdict) =>
  `${scenario} load ${load} TPOT ${tpotFactor}× TTFT ${ttft}`

await main()
