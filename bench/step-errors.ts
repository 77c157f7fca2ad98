/** How far steps are off their predictions on a real model under load, and what that does to attainment: windows of one load
 * served by an older checkout and by this one, in turn, each with a profile of its own. */
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import { Command } from "commander"
import { numberIn, wholeNumber } from "../src/cli/numbers.ts"
import { collect } from "../src/cli/workload-options.ts"
import { errorsChart } from "./step-errors/chart.ts"
import { type Findings, findingsOf, repredicted } from "./step-errors/findings.ts"
import type { Step, Window } from "./step-errors/window.ts"

/** What the load of docs/first-results.md had: rate at which a scheduler that predicts well still keeps 90%. */
const RATE_PER_SEC = 0.7
/** SmolLM2 on a CPU. */
const CLASSES =
  "chat=ttft:4000,tpot:600;code=ttft:4000,tpot:400;summarize=ttft:8000,tpot:600;reasoning=ttft:4000,tpot:600,thinking:400;" +
  "tools=ttft:4000,tpot:400;tools_final=ttft:4000,tpot:600"

interface Options {
  before?: string
  model: string
  rate: number
  duration: number
  scale: number
  seeds: number
  threads: number
  classes: string
  trace: string[]
  out: string
}

interface Run {
  side: "before" | "after"
  seed: number
  load: number
  window: Window
}

async function main(): Promise<void> {
  const options = new Command("bench/step-errors.ts")
    .option(
      "--before <checkout>",
      "an older checkout, for example of git worktree add; default: this one alone",
    )
    .option("--model <name>", "as for serve", "smollm2-135m")
    .option("--rate <n>", "requests per second", numberIn(0.01, 1e4), RATE_PER_SEC)
    .option("--duration <s>", "of a window's arrivals", numberIn(1, 1e5), 90)
    .option("--scale <n>", "divide lengths by", numberIn(0.01, 1000), 16)
    .option("--seeds <n>", "arrival windows", wholeNumber(1, 1000), 3)
    .option("--threads <n>", "of the engine", wholeNumber(1, 512), 1)
    .option("--classes <file|list>", "SLO classes", CLASSES)
    .option("--trace <app=file>", "lengths of an app; repeatable", collect, [])
    .option("--out <folder>", "results folder", "bench/results/step-errors")
    .parse()
    .opts<Options>()
  const runs: Run[] = []
  const cache = mkdtempSync(join(tmpdir(), "step-errors-"))
  try {
    for (let seed = 1; seed <= options.seeds; seed++)
      for (const side of sidesOf(options, seed)) runs.push(await run(side, seed, cache, options))
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
  await report(runs, options)
}

/** By turns which one goes first. */
function sidesOf({ before }: Options, seed: number): Run["side"][] {
  if (before === undefined) return ["after"]
  return seed % 2 === 1 ? ["before", "after"] : ["after", "before"]
}

async function run(side: Run["side"], seed: number, cache: string, options: Options): Promise<Run> {
  const out = join(cache, "window.json")
  const load = loadavg()[0]!
  const { before = ".", model, rate, duration, scale, threads, classes, trace } = options
  await promisify(execFile)(process.execPath, [
    "bench/step-errors/window.ts",
    ...["--root", resolve(side === "before" ? before : "."), "--model", model, "--classes", classes],
    ...["--rate", rate, "--duration", duration, "--scale", scale, "--seed", seed, "--threads", threads].map(
      String,
    ),
    // Each window measures anew: a profile is part of what is compared.
    ...["--cache", mkdtempSync(join(cache, "profile-")), "--out", out],
    ...trace.flatMap((entry) => ["--trace", entry]),
  ])
  const window = JSON.parse(readFileSync(out, "utf8")) as Window
  const { over } = findingsOf(window.steps)
  process.stderr.write(
    `window ${seed}, ${side}: ${window.steps.length} steps, ${percent(over["1.2"])} above 1.2, ` +
      `${window.attained} of ${window.requests} in time; profile R² ${window.fit.r2.toFixed(3)}; load ${load.toFixed(1)}\n`,
  )
  return { side, seed, load, window }
}

async function report(runs: readonly Run[], options: Options): Promise<void> {
  const { out } = options
  if (!existsSync(out)) mkdirSync(out, { recursive: true })
  const sides = [...new Set(runs.map(({ side }) => side))]
  const found: Record<string, Findings> = {}
  for (const side of sides)
    found[side] = findingsOf(runs.filter((one) => one.side === side).flatMap(({ window }) => window.steps))
  const sameSteps = await repredictedBy(runs, options)
  const { before: _before, out: _out, trace, ...told } = options
  const result = {
    command: `node bench/step-errors.ts --before <checkout> --seeds ${options.seeds}`,
    options: { ...told, trace: trace.map((entry) => entry.replace(/=.*\//, "=")) },
    cpu: `${cpus().length} × ${cpus()[0]?.model}`,
    windows: runs.map(({ side, seed, load, window: { fit, requests, attained } }) => {
      return { side, seed, load, fit, requests, attained }
    }),
    findings: found,
    sameSteps,
  }
  writeFileSync(join(out, "results.json"), `${JSON.stringify(result, null, 1)}\n`)
  writeFileSync(join(out, "steps.csv.gz"), gzipSync(csv(runs)))
  writeFileSync(join(out, "histogram.svg"), `${await errorsChart(found, titleOf(options))}\n`)
  process.stdout.write(`${table(runs, found)}${sameStepsText(sameSteps)}`)
}

/** All steps of both codes, window by window, predicted by the calibration of each: the machine's luck is the same for both. */
async function repredictedBy(runs: readonly Run[], { before }: Options): Promise<Record<string, Findings>> {
  const roots = { ...(before !== undefined && { before }), after: "." }
  const found: Record<string, Findings> = {}
  for (const [side, root] of Object.entries(roots)) {
    const { Calibration } = await import(join(resolve(root), "src/core/learn/calibration.ts"))
    found[side] = findingsOf(runs.flatMap(({ window }) => repredicted(window.steps, new Calibration())))
  }
  return found
}

function sameStepsText(found: Record<string, Findings>): string {
  const parts = Object.entries(found).map(
    ([side, { over, quantiles }]) =>
      `${side} ${percent(over["1.1"])} above 1.1, ${percent(over["1.2"])} above 1.2, p5 ${quantiles.p5.toFixed(2)}, ` +
      `p95 ${quantiles.p95.toFixed(2)}`,
  )
  return `all steps, predicted by the calibration of each code: ${parts.join("; ")}\n`
}

function titleOf({ model, rate }: Options): string {
  return `${model} at ${rate} requests per second: steps against their predictions`
}

function csv(runs: readonly Run[]): string {
  const columns: (keyof Step)[] = [
    "sequences",
    "tokens",
    "prefill",
    "idleUs",
    "modelUs",
    "predictedUs",
    "us",
    "waitedUs",
    "gcUs",
  ]
  const rows = runs.flatMap(({ side, seed, window }) =>
    window.steps.map((step) => [side, seed, ...columns.map((column) => Number(step[column]))].join()),
  )
  return `${["side", "seed", ...columns].join()}\n${rows.join("\n")}\n`
}

function table(runs: readonly Run[], found: Record<string, Findings>): string {
  const lines = Object.entries(found).map(
    ([side, { steps, over, overByKind, quantiles, correlation, why }]) => {
      const windows = runs.filter((one) => one.side === side).map(({ window }) => window)
      const sum = (pick: (window: Window) => number) =>
        windows.reduce((total, window) => total + pick(window), 0)
      return [
        `${side}: ${steps} steps; above 1.1 ${percent(over["1.1"])}, 1.2 ${percent(over["1.2"])} (decodes ` +
          `${percent(overByKind.decode)}, with prompts ${percent(overByKind.prefill)}), 1.3 ${percent(over["1.3"])}`,
        `  actual / predicted p5 ${quantiles.p5.toFixed(2)}, p50 ${quantiles.p50.toFixed(2)}, p95 ${quantiles.p95.toFixed(2)}, ` +
          `p99 ${quantiles.p99.toFixed(2)}; correlation with the step before ${correlation.toFixed(2)}`,
        `  of those above 1.2: ${percent(why.waited)} waited for a core, ${percent(why.collected)} beside a collection, ` +
          `${percent(why.idle)} after idle time, ${percent(why.slow)} ran slowly all along`,
        `  ${sum(({ attained }) => attained)} of ${sum(({ requests }) => requests)} requests in time`,
      ].join("\n")
    },
  )
  return `${lines.join("\n")}\n`
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`
}

await main()
