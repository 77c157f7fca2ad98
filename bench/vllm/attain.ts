/** Attainment against rate of a real vLLM on the CPU, under its own schedulers and under ours, on the same arrivals:
 *
 *     node bench/vllm/attain.ts                       # goes on where an earlier run was interrupted; --show makes the tables alone
 *
 * It needs the environment that `npm run test:vllm` makes, or --python. Time is the engine process's CPU time and what steps wait
 * for their plans; idle time is jumped over. Results are added to <out>/attain.jsonl, and shown in attain.md and attain-<model>.svg.
 * --record FOLDER keeps what the planners were told and decided. */
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { cacheFolder } from "../../src/models/cache.ts"
import { attainmentChart, type ChartPoint } from "../real/chart.ts"

const HERE = import.meta.dirname
const LONG = "summarize"
const ORDER = ["fcfs", "priority", "edf-drop", "slos-serve"]
/** Of make-model.py. */
const WITHOUT_WEIGHTS = new Set(["tiny", "llama8b"])
const percent = (value: number) => `${(100 * value).toFixed(1)}%`

interface Count {
  requests: number
  kept: number
}

interface WindowRow extends Count {
  kind: "window"
  model: string
  seed: number
  relative: number
  rate: number
  system: string
  seconds: number
  classes: Record<string, Count>
  steps: number
  planning?: {
    planned_steps: number
    own_steps: number
    mismatches: number
    wait_p50_ms: number
    wait_p99_ms: number
  }
}

interface SpeedRow {
  kind: "speed"
  model: string
  prompt_ms: Record<string, number>
  /** So many decodes take `decode_ms` together. */
  decodes: number
  decode_ms: number
}

const { values: options } = parseArgs({
  options: {
    models: { type: "string", default: "tiny,smollm2" },
    python: { type: "string" },
    out: { type: "string", default: join(HERE, "../results/vllm") },
    "time-budget-min": { type: "string", default: "100000" },
    seconds: { type: "string" },
    rates: { type: "string" },
    seeds: { type: "string" },
    budgets: { type: "string" },
    systems: { type: "string" },
    device: { type: "string" },
    "train-seconds": { type: "string" },
    asynchronous: { type: "boolean", default: false },
    record: { type: "string" },
    "free-plans": { type: "boolean" },
    show: { type: "boolean", default: false },
  },
})

const models = options.models.split(",")
const raw = join(options.out, "attain.jsonl")
mkdirSync(options.out, { recursive: true })
if (!options.show) for (const [at, model] of models.entries()) measure(model, models.length - at)
await show()

/** `shares`: models that the time that is left is for. */
function measure(model: string, shares: number): void {
  const leftMin = Number(options["time-budget-min"]) - performance.now() / 60_000
  const passed = (
    ["seconds", "rates", "seeds", "budgets", "systems", "record", "device", "train-seconds"] as const
  ).flatMap((name) => (options[name] === undefined ? [] : [`--${name}`, options[name]]))
  const { status } = spawnSync(
    pythonProgram(),
    [
      ...[join(HERE, "attain.py"), "--name", model, "--model", modelFolder(model), "--out", raw],
      ...["--load-format", WITHOUT_WEIGHTS.has(model) ? "dummy" : "auto"],
      ...["--time-budget-min", String(leftMin / shares), ...passed],
      ...(options["free-plans"] ? ["--free-plans"] : []),
      ...(options.asynchronous ? ["--asynchronous"] : []),
    ],
    { stdio: "inherit", env: { ...process.env, SLOS_SERVE_NODE: process.execPath } },
  )
  if (status !== 0) throw new Error(`attain.py ended with ${status}`)
}

function pythonProgram(): string {
  const found = options.python ?? globSync(join(cacheFolder(), "vllm-0.32-*/bin/python"))[0]
  if (found !== undefined) return found
  console.error(
    "error: there is no environment with vLLM; make it with `npm run test:vllm`, or give --python",
  )
  process.exit(2)
}

/** In the cache folder; made where it is not. A path is taken as it is. */
function modelFolder(model: string): string {
  if (existsSync(join(model, "config.json"))) return model
  const folder = join(cacheFolder(), "vllm-models", model)
  if (existsSync(join(folder, "tokenizer.json"))) return folder
  const make = [join(HERE, "make-model.py"), model, folder]
  const made = WITHOUT_WEIGHTS.has(model)
    ? spawnSync(pythonProgram(), make, { stdio: "inherit" })
    : spawnSync(uvProgram(), ["run", ...make], { stdio: "inherit" })
  if (made.status === 0) return folder
  console.error(
    `error: the model ${model} could not be made (uv run bench/vllm/make-model.py ${model} ${folder})`,
  )
  process.exit(2)
}

/** As it is installed, or as the plug-in's tests installed it. */
function uvProgram(): string {
  const own = join(cacheFolder(), "uv", "bin", "uv")
  return spawnSync("uv", ["--version"]).status !== 0 && existsSync(own) ? own : "uv"
}

async function show(): Promise<void> {
  const lines = existsSync(raw) ? readFileSync(raw, "utf8").trim().split("\n") : []
  const rows = lines.filter((line) => line !== "").map((line) => JSON.parse(line) as WindowRow | SpeedRow)
  const parts: string[] = [
    "# Attainment of a real vLLM\n",
    "Made by `node bench/vllm/attain.ts`; docs/vllm.md says how.\n",
  ]
  for (const model of [...new Set(rows.map((row) => row.model))]) {
    const speed = rows.find((row): row is SpeedRow => row.kind === "speed" && row.model === model)
    const windows = paired(
      rows.filter((row): row is WindowRow => row.kind === "window" && row.model === model),
    )
    if (windows.length === 0) continue
    parts.push(section(model, speed, windows))
    const svg = await attainmentChart(
      pointsOf(windows),
      `${model}: share of requests with every token in time`,
    )
    writeFileSync(join(options.out, `attain-${model}.svg`), svg)
  }
  writeFileSync(join(options.out, "attain.md"), parts.join("\n"))
  process.stdout.write(parts.join("\n"))
}

/** Windows that every system has had: what is compared is compared on the same arrivals. */
function paired(windows: readonly WindowRow[]): WindowRow[] {
  const systems = new Set(windows.map(({ system }) => system))
  const keyOf = ({ relative, seed }: WindowRow) => `${relative} ${seed}`
  const had = new Map<string, Set<string>>()
  for (const row of windows) had.set(keyOf(row), (had.get(keyOf(row)) ?? new Set()).add(row.system))
  return windows.filter((row) => had.get(keyOf(row))!.size === systems.size)
}

/** Of each budget's windows at a rate the best budget: rivals are tuned for every rate by themselves. */
function tuned(windows: readonly WindowRow[]): Map<string, { budget: string; rows: WindowRow[] }> {
  const best = new Map<string, { budget: string; rows: WindowRow[] }>()
  for (const system of new Set(windows.map((row) => row.system))) {
    const [, family = system, budget = ""] = /^(fcfs|priority)-(\d+)$/.exec(system) ?? []
    const rows = windows.filter((row) => row.system === system)
    const before = best.get(family)
    if (before === undefined || share(rows) > share(before.rows)) best.set(family, { budget, rows })
  }
  return best
}

function share(counts: readonly Count[]): number {
  const sum = (field: keyof Count) => counts.reduce((total, count) => total + count[field], 0)
  return sum("kept") / Math.max(1, sum("requests"))
}

function byRate(windows: readonly WindowRow[]): [number, WindowRow[]][] {
  const rates = [...new Set(windows.map(({ relative }) => relative))].sort((a, b) => a - b)
  return rates.map((rate) => [rate, windows.filter(({ relative }) => relative === rate)])
}

function section(model: string, speed: SpeedRow | undefined, windows: readonly WindowRow[]): string {
  const rows = byRate(windows).map(([, at]) => {
    const best = tuned(at)
    const cells = ORDER.map((family) => {
      const found = best.get(family)
      if (found === undefined) return ""
      const long = share(found.rows.map((row) => row.classes[LONG]!))
      const budget = found.budget === "" ? "" : ` (${found.budget})`
      return `${percent(share(found.rows))}${budget}, long ${percent(long)}`
    })
    const seeds = new Set(at.map(({ seed }) => seed)).size
    const requests = best.get("slos-serve")?.rows.reduce((sum, row) => sum + row.requests, 0) ?? 0
    return `| ${at[0]!.rate} | ${seeds} × ${at[0]!.seconds} s, ${requests} | ${cells.join(" | ")} |`
  })
  const planned = windows.flatMap(({ planning }) => (planning === undefined ? [] : [planning]))
  const waits = planned.filter(({ wait_p50_ms }) => wait_p50_ms !== null)
  const prompts = Object.entries(speed?.prompt_ms ?? {}).map(([size, ms]) => `${size}: ${ms.toFixed(0)}`)
  return [
    `## ${model}\n`,
    `Alone, ms: prompts ${prompts.join(", ")}; a decode step of ${speed?.decodes} requests ${speed?.decode_ms.toFixed(1)}. "long": the requests with the longest prompts.\n`,
    `| requests/s | windows, requests | FCFS (best budget) | priority = deadline (best budget) | edf-drop | slos-serve |`,
    "| --- | --- | --- | --- | --- | --- |",
    ...rows,
    "",
    `Steps of the plug-in not as planned: ${planned.reduce((n, { mismatches }) => Math.max(n, mismatches), 0)}; scheduled by vLLM itself: ${planned.reduce((n, { own_steps }) => Math.max(n, own_steps), 0)}.`,
    waits.length === 0
      ? "What steps waited for plans was not counted.\n"
      : `Waits for plans, ms, median of windows: p50 ${median(waits.map((one) => one.wait_p50_ms))}, p99 ${median(waits.map((one) => one.wait_p99_ms))}.\n`,
  ].join("\n")
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
}

function pointsOf(windows: readonly WindowRow[]): ChartPoint[] {
  return byRate(windows).flatMap(([, at]) =>
    [...tuned(at)].map(([system, { rows }]) => {
      const each = rows.map((row) => share([row]))
      const [low, high] = [Math.min(...each), Math.max(...each)]
      return { system, ratePerSec: at[0]!.rate, attainment: share(rows), low, high }
    }),
  )
}
