/** Is ours at least as good as the best simple rival everywhere? A map over TPOT (from below the shortest possible step to
 * twenty times it), TTFT (from just above a prompt's zero-load prefill to none) and load: attainment of ours minus that of
 * the best rival, whose settings are the best for each cell. On virtual time; goes on where it was interrupted. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Command, InvalidArgumentError } from "commander"
import { wholeNumber } from "../src/cli/numbers.ts"
import { writeResult } from "../src/cli/output.ts"
import { createProgress } from "../src/cli/progress.ts"
import { UserError } from "../src/errors.ts"
import { runTasks } from "../src/study/pool.ts"
import {
  earlierOf,
  type Findings,
  parseFindings,
  resultOf,
  summary,
  toJson,
  verdictOf,
} from "./slo-range/findings.ts"
import { CAPACITIES, type Cell, cellsOf, LOADS, OURS, RIVALS, sliceOf, taskOf } from "./slo-range/grid.ts"
import { heatMap } from "./slo-range/heat-map.ts"

interface Options {
  scenarios: string[]
  loads: number[]
  quick?: true
  cells: { i: number; n: number }
  requests: number
  seeds?: number
  rivals?: string
  workers: number
  out: string
}

const SCENARIOS = Object.keys(CAPACITIES)

async function main(): Promise<void> {
  const options = new Command("bench/slo-range.ts")
    .option("--scenarios <list>", `of ${SCENARIOS.join(", ")}`, scenariosIn, ["chatbot", "coder"])
    .option("--loads <list>", "multiples of the scenario's capacity", loadsIn, [...LOADS])
    .option("--quick", "every other TPOT and TTFT, and one seed")
    .option("--cells <i/n>", "the i-th of n slices of the cells only", sliceIn, { i: 1, n: 1 })
    .option("--requests <n>", "of one run", wholeNumber(20, 1e5), 400)
    .option("--seeds <n>", "arrival windows, pooled (default: 3)", wholeNumber(1, 100))
    .option(
      "--rivals <file>",
      "take the rivals from the results.json of an earlier run: only ours runs, far faster",
    )
    .option("--workers <n>", "threads", wholeNumber(0, 256), 2)
    .option("--out <folder>", "results folder", "bench/results/slo-range")
    .parse()
    .opts<Options>()
  const findings = await measure(options)
  await write(options.out, findings)
  console.log(summary(findings))
}

async function measure(options: Options): Promise<Findings> {
  const { scenarios, loads, quick = false, requests, workers, out } = options
  const seeds = Array.from({ length: options.seeds ?? (quick ? 1 : 3) }, (_, i) => i + 1)
  const cells = sliceOf(cellsOf({ scenarios, loads, quick }), options.cells)
  const earlier = earlierIn(options.rivals, { requests, seeds })
  // Before any work: every cell must be there.
  const known = earlier && cells.map((cell) => earlierOf(earlier, cell, options.rivals!))
  const contenders = known === null ? [OURS, ...RIVALS] : [OURS]
  const progress = createProgress(process.stderr)
  process.once("SIGINT", () => {
    progress.end()
    process.stderr.write("interrupted; the same command goes on from here\n")
    process.exit(130)
  })
  progress.stage("SLO range", cells.map(nameOf), 0)
  const results = await runTasks(
    cells.map((cell) => taskOf(cell, contenders, { requests, seeds })),
    { workers, cache: join(out, ".cache"), onEvent: progress.event },
  )
  progress.end()
  return {
    command: `node bench/slo-range.ts ${process.argv.slice(2).join(" ")}`.trim(),
    requests,
    seeds,
    cells: cells.map((cell, i) => {
      const result = resultOf(cell, contenders, results[i]!)
      return known === null ? result : { ...result, rivals: known[i]!.rivals }
    }),
  }
}

/** Findings whose rivals met the same requests; null when none are given. */
function earlierIn(path: string | undefined, asked: Pick<Findings, "requests" | "seeds">): Findings | null {
  if (path === undefined) return null
  const earlier = parseFindings(readResults(path), path)
  const { requests, seeds } = earlier
  if (JSON.stringify({ requests, seeds }) === JSON.stringify(asked)) return earlier
  throw new UserError(
    `${path}: made with ${requests} requests and seeds ${seeds.join(", ")}, not ${asked.requests} and ` +
      `${asked.seeds.join(", ")}; give the same --requests and --seeds`,
  )
}

function readResults(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    throw new UserError(`cannot read --rivals ${path} (${(error as NodeJS.ErrnoException).code})`)
  }
}

async function write(folder: string, findings: Findings): Promise<void> {
  writeResult(join(folder, "results.json"), toJson(findings))
  writeResult(join(folder, "results.md"), summary(findings))
  const maps = Map.groupBy(findings.cells.map(verdictOf), ({ scenario, load }) => `${scenario}-load-${load}`)
  for (const [name, cells] of maps) {
    const { scenario, load } = cells[0]!
    writeResult(join(folder, `${name}.svg`), await heatMap(cells, `${scenario} at ${load} × capacity`))
  }
}

const nameOf = ({ scenario, load, tpotFactor, ttft }: Cell) =>
  `${scenario} load ${load} TPOT ${tpotFactor}× TTFT ${ttft.label}`

function scenariosIn(text: string): string[] {
  return text.split(",").map((part) => {
    const name = part.trim()
    if (SCENARIOS.includes(name)) return name
    throw new InvalidArgumentError(`It must be of ${SCENARIOS.join(", ")}, with commas between.`)
  })
}

function loadsIn(text: string): number[] {
  const loads = text.split(",").map(Number)
  if (loads.every((load) => load > 0 && load <= 100)) return loads
  throw new InvalidArgumentError("It must be numbers above 0, with commas between, for example 0.5,1.")
}

function sliceIn(text: string): { i: number; n: number } {
  const [, i, n] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).map(Number)
  if (i !== undefined && n !== undefined && i >= 1 && i <= n) return { i, n }
  throw new InvalidArgumentError("It must be i/n with i from 1 to n, for example 1/4.")
}

try {
  await main()
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(`error: ${error.message}`)
  process.exitCode = 2
}
