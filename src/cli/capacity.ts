/** `slos-serve capacity`: what rate a fleet holds within its SLOs, under which policy, and a report of it all. */
import { join } from "node:path"
import { type Command, InvalidArgumentError, Option } from "commander"
import { UserError } from "../errors.ts"
import { SCENARIOS } from "../load/workload.ts"
import { PAPER_SCENARIOS } from "../study/as-paper.ts"
import { type PlannerLatency, plannerLatency } from "../study/planner-latency.ts"
import type { Study } from "../study/results.ts"
import type { RunSpec } from "../study/spec.ts"
import type { StudyOptions } from "../study/stage.ts"
import { runStudy, SYSTEM_NAMES } from "../study/study.ts"
import { systemOf } from "../study/systems.ts"
import { describeStudy } from "../study/tables.ts"
import type { Size } from "../study/tasks.ts"
import { numberIn, wholeNumber } from "./numbers.ts"
import { checkCharts, checkWritable, writeResult } from "./output.ts"
import { createProgress } from "./progress.ts"
import { type SharedOptions, scenarioName, sharedOptions, specOf } from "./study-options.ts"

interface Options extends SharedOptions {
  scenarios: string
  policies: string
  replicas: number
  speculate: boolean[]
  seeds: number
  requests?: number
  span?: number
  leadIn?: number
  tune: boolean
  quick?: boolean
  workers?: number
  mostReplicas: number
  json?: boolean
  out?: string
  report?: string
}

/** The paper's six (docs/design.md, Workloads), and prompts that share their beginnings where that scenario is known. */
const STANDARD = [...PAPER_SCENARIOS, ...(Object.hasOwn(SCENARIOS, "shared") ? ["shared"] : [])]

/** Sizes of one run over 4 GPUs: spans of several times a request, and all of it within about an hour on two cores. A
 * reasoning request takes minutes among 500 others: that scenario is measured on one GPU, with a long span and lead-in.
 */
const SIZES: Record<string, Size> = {
  tools: { requests: 600, spanS: 150 },
  shared: { requests: 1000, spanS: 200 },
  reasoning: { requests: 300, spanS: 1000 },
}
const USUAL_SIZE: Size = { requests: 1500, spanS: 100 }
const LATENCY_REQUESTS = 300
const LATENCY_LOAD = 1.2
const QUICK_SHARE = 0.4
const LONG = "reasoning"
const LONG_LEAD_IN = 0.3

const EXAMPLES = `
Examples:
  # what 4 GPUs hold of chat, ours against two rivals, each with its best knobs
  slos-serve capacity --scenarios chatbot --policies slos-serve,vllm-v1,sarathi --replicas 4

  # everything: all scenarios and policies, with and without speculation; about an hour on two cores, and the same command goes
  # on where it was interrupted
  slos-serve capacity --report out/ --trace chat=azure-conv-2023.csv --trace code=azure-code-2023.csv \\
    --trace summarize=arxiv-summarization-lengths.csv

  # the same in a few minutes
  slos-serve capacity --quick --report out/

  # this machine's profile, its own SLOs
  slos-serve capacity --scenarios all --profile profile.json --slots 32 --scale 8 --tpot-scale 3 --replicas 1

Policies: ${SYSTEM_NAMES.map((name) => `${name} (${systemOf(name)!.title})`).join(", ")}.`

export function register(program: Command): void {
  const command = program
    .command("capacity")
    .description("find the highest rate at which 90% of the requests keep every SLO, per scenario and policy")
    .option("--scenarios <list>", `of ${Object.keys(SCENARIOS).join(", ")} (default: ${STANDARD.join(", ")})`)
    .option("--policies <list>", `of ${SYSTEM_NAMES.join(", ")} (default: all)`)
    .option("--replicas <n>", `GPUs (default: 4; ${LONG}: 1)`, wholeNumber(1, 1024))
    .addOption(
      new Option("--speculate <list>", "off, on or both").argParser(ways).default([false, true], "both"),
    )
    .option(
      "--seeds <n>",
      "arrival windows measured, after tuning on others (default: 3)",
      wholeNumber(1, 100),
    )
    .option("--requests <n>", "least requests of one run", wholeNumber(50, 1e6))
    .option(
      "--span <s>",
      "least span of one run's arrivals; make it long against a request",
      numberIn(0, 1e6),
    )
    .option("--lead-in <share>", "first share of a run that is not counted", numberIn(0, 0.9))
    .option("--no-tune", "policies with their defaults and --set, no knobs tried")
    .option("--quick", `shorter runs, one seed: a few minutes, coarser figures; too short for ${LONG}`)
    .option("--most-replicas <n>", "largest fleet of the report's fleet sizes", wholeNumber(1, 64), 64)
    .option(
      "--workers <n>",
      "threads (default: one a core; the results do not depend on it)",
      wholeNumber(0, 256),
    )
  sharedOptions(command)
    .option("--json", "print the results as JSON")
    .option("--out <file>", "write the results as JSON")
    .option("--report <dir>", "write index.html, results.json and results.md, with curves and ablations")
    .addHelpText("after", EXAMPLES)
    .action((options: Options) => run(options))
}

function ways(text: string): boolean[] {
  const found = { off: [false], on: [true], both: [false, true] }[text]
  if (found !== undefined) return found
  throw new InvalidArgumentError("It must be off, on or both.")
}

async function run(options: Options): Promise<void> {
  const scenarios = listed(options.scenarios, STANDARD).map(scenarioName)
  const systems = listed(options.policies, SYSTEM_NAMES).map(systemName)
  const bases = new Map(scenarios.map((name) => [name, baseOf(options, name, scenarios)]))
  if (options.policies !== undefined)
    checkReplicas(systems, Math.max(...[...bases.values()].map(({ replicas }) => replicas)))
  checkWritable(options.out)
  checkWritable(options.report && join(options.report, "index.html"))
  await checkCharts(options.report)
  const progress = createProgress(process.stderr)
  const study: StudyOptions = {
    scenarios,
    systems,
    speculate: options.speculate,
    base: (name) => bases.get(name)!,
    size: (name) => sizeOf(options, name),
    seeds: Array.from({ length: seedsOf(options) }, (_, i) => options.seed + i),
    tuneSeeds: [options.seed + 1000],
    extras: options.report !== undefined,
    mostReplicas: options.quick ? Math.min(4, options.mostReplicas) : options.mostReplicas,
    tuned: options.tune,
    pool: {
      ...(options.workers !== undefined && { workers: options.workers }),
      ...(options.report !== undefined && { cache: `${options.report}/.cache` }),
      onEvent: progress.event,
    },
    onStage: progress.stage,
  }
  process.once("SIGINT", () => {
    progress.end()
    if (options.report !== undefined)
      process.stderr.write("interrupted; the same command goes on from here\n")
    process.exit(130)
  })
  const results = await runStudy(study)
  progress.end()
  const json = `${JSON.stringify(results, null, 1)}\n`
  if (options.out !== undefined) writeResult(options.out, json)
  if (options.report !== undefined) await writeReport(options.report, results, json)
  process.stdout.write(options.json ? json : `${describeStudy(results)}\n`)
}

async function writeReport(folder: string, results: Study, json: string): Promise<void> {
  const { page } = await import("../study/page.ts")
  const { markdown } = await import("../study/tables.ts")
  const command = `slos-serve ${process.argv.slice(2).join(" ")}`
  writeResult(`${folder}/results.json`, json)
  writeResult(`${folder}/results.md`, markdown(results, command))
  writeResult(`${folder}/index.html`, await page(results, command, latencies(results)))
  process.stderr.write(`report: ${folder}/index.html\n`)
}

/** Decision times at a load just above what one replica holds, the worst that a planner should see. */
function latencies(results: Study): PlannerLatency[] {
  const rows = results.rows.filter((row) => row.system === "slos-serve" && row.ratePerSec > 0)
  return rows.flatMap(({ spec, ratePerSec }) => {
    const rate = (LATENCY_LOAD * ratePerSec) / spec.replicas
    return plannerLatency({ ...spec, replicas: 1, ratePerSec: rate, durationS: LATENCY_REQUESTS / rate })
  })
}

function listed(text: string | undefined, standard: readonly string[]): string[] {
  const names = text?.split(",").map((name) => name.trim()) ?? [...standard]
  return [...new Set(names)]
}

function systemName(name: string): string {
  if (systemOf(name) !== undefined) return name
  throw new UserError(`unknown policy "${name}"; known: ${SYSTEM_NAMES.join(", ")}`)
}

/** A system that needs more GPUs is left out of a scenario, but not of all when it was asked for by name. */
function checkReplicas(systems: readonly string[], replicas: number): void {
  for (const name of systems) {
    const { leastReplicas = 1 } = systemOf(name)!
    if (replicas < leastReplicas)
      throw new UserError(`${name} needs at least ${leastReplicas} GPUs; raise --replicas or leave it out`)
  }
}

function seedsOf({ seeds, quick }: Options): number {
  return seeds ?? (quick ? 1 : 3)
}

function sizeOf(options: Options, scenario: string): Size {
  const usual = SIZES[scenario] ?? USUAL_SIZE
  if (options.requests !== undefined) return { requests: options.requests, spanS: options.span ?? 0 }
  const share = options.quick ? QUICK_SHARE : 1
  return { requests: Math.round(usual.requests * share), spanS: options.span ?? usual.spanS * share }
}

function baseOf(options: Options, scenario: string, scenarios: readonly string[]): RunSpec {
  const replicas = options.replicas ?? (scenario === LONG ? 1 : 4)
  const spec = specOf({ ...options, replicas }, scenario, "slos-serve", { scenarios })
  return { ...spec, leadIn: options.leadIn ?? (scenario === LONG ? LONG_LEAD_IN : spec.leadIn) }
}
