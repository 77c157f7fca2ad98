/** What a start on a busy machine costs the profile: taken with busy loops beside it, by this checkout and an older one, against
 * profiles that this checkout took without them. By turns, each with an empty cache, as a server's first start does it. */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { promisify } from "node:util"
import { Command } from "commander"
import { max, median, min } from "simple-statistics"
import { wholeNumber } from "../src/cli/numbers.ts"
import { type CostModel, shapeOf, stepUs } from "../src/core/cost.ts"
import { prefillUs } from "../src/core/planner/prefill-time.ts"
import { cacheFolder } from "../src/models/cache.ts"
import { resolveModel } from "../src/models/resolve.ts"

interface Options {
  before: string
  model: string
  loops: number
  rounds: number
  threads: number
  out?: string
}

interface Taken {
  side: "quiet" | "before" | "after"
  r2: number
  mape: number
  /** Told to be poor; null: the code does not judge. */
  poor: boolean | null
  seconds: number
  /** Load of the machine when it began, one minute's mean. */
  load: number
  model: CostModel
}

/** How far predictions are off those of the quiet profile. */
interface Errors {
  r2: number
  mape: number
  poor: boolean | null
  /** Predicted over quiet, median over the batches: what calibration corrects. */
  scale: number
  /** Largest over smallest: what it does not. */
  distortion: number
  /** Objective of a prompt of 37 tokens with a TTFT of five prefill times, ms. */
  ttft37Ms: number
}

const one = { sample: true, draft: 0 }
const decodes = (count: number, position: number) =>
  Array.from({ length: count }, () => ({ position, tokens: 1, ...one }))
/** What schedulers run. */
const BATCHES = [
  decodes(1, 100),
  decodes(1, 500),
  decodes(4, 200),
  decodes(16, 200),
  decodes(24, 500),
  [{ position: 0, tokens: 16, ...one }],
  [{ position: 0, tokens: 37, ...one }],
  [{ position: 0, tokens: 128, ...one }],
  [{ position: 300, tokens: 64, sample: false, draft: 0 }],
  [{ position: 0, tokens: 32, ...one }, ...decodes(8, 200)],
  [{ position: 200, tokens: 64, sample: false, draft: 0 }, ...decodes(16, 300)],
]

async function main(): Promise<void> {
  const options = new Command("bench/busy-profile.ts")
    .requiredOption("--before <checkout>", "an older checkout, for example of git worktree add")
    .option("--model <name>", "as for serve", "smollm2-135m")
    .option("--loops <n>", "busy loops beside the engine", wholeNumber(1, 64), 2)
    .option("--rounds <n>", "profiles of each kind", wholeNumber(1, 100), 5)
    .option("--threads <n>", "engine threads", wholeNumber(1, 512), 1)
    .option("--out <file>", "write the result as JSON")
    .parse()
    .opts<Options>()
  const { path } = await resolveModel(options.model, { fallback: false })
  const taken: Taken[] = []
  for (let round = 0; round < options.rounds; round++) {
    taken.push(await take("quiet", ".", path, options))
    const loops = Array.from({ length: options.loops }, busyLoop)
    try {
      for (const side of round % 2 === 0 ? (["before", "after"] as const) : (["after", "before"] as const))
        taken.push(await take(side, side === "before" ? options.before : ".", path, options))
    } finally {
      for (const loop of loops) loop.kill("SIGKILL")
    }
    for (const { side, r2, mape, seconds, load } of taken.slice(-3))
      process.stderr.write(
        `${round + 1} ${side}: R² ${r2.toFixed(3)}, error ${percent(mape)}, ${seconds.toFixed(0)} s, load ${load.toFixed(1)}\n`,
      )
  }
  const result = resultOf(taken, options)
  if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(result, null, 1)}\n`)
  process.stdout.write(table(result))
}

function busyLoop(): ChildProcess {
  return spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" })
}

/** `slos-serve profile --quick` of a checkout. A profile that it calls poor is printed with exit code 1. */
async function take(side: Taken["side"], root: string, model: string, options: Options): Promise<Taken> {
  const cache = mkdtempSync(join(tmpdir(), "busy-profile-"))
  const load = loadavg()[0]!
  mkdirSync(cache, { recursive: true })
  symlinkSync(join(cacheFolder(), "models"), join(cache, "models"))
  const out = join(cache, "profile.json")
  const args = ["profile", "--quick", "--model", model, "--threads", String(options.threads), "--out", out]
  try {
    await promisify(execFile)(process.execPath, ["src/cli/main.ts", ...args, "--context", "1024"], {
      cwd: resolve(root),
      env: { ...process.env, SLOS_SERVE_CACHE: cache },
    }).catch((error) => {
      if (error.code !== 1) throw error
    })
    const profile = JSON.parse(readFileSync(out, "utf8"))
    const { r2, mape, seconds } = profile
    const poor = profile.faults === undefined ? null : profile.faults.length > 0
    return { side, r2, mape, poor, seconds, load, model: profile.model }
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
}

interface Result {
  command: string
  model: string
  loops: number
  /** Before each quiet profile: the machine was not quiet where this is much above 0. */
  loadWhenQuiet: number[]
  /** Of the quiet profiles against their own median: what no method can do better. */
  quiet: Errors[]
  before: Errors[]
  after: Errors[]
}

function resultOf(taken: readonly Taken[], options: Options): Result {
  const of = (side: Taken["side"]) => taken.filter((profile) => profile.side === side)
  const quiet = of("quiet")
  const reference = BATCHES.map((items) => median(quiet.map(({ model }) => predicted(model, items))))
  const errors = (side: Taken["side"]) => of(side).map((profile) => errorsOf(profile, reference))
  return {
    command: `node bench/busy-profile.ts --before <checkout> --rounds ${options.rounds} --loops ${options.loops}`,
    model: options.model,
    loops: options.loops,
    loadWhenQuiet: quiet.map(({ load }) => load),
    ...{ quiet: errors("quiet"), before: errors("before"), after: errors("after") },
  }
}

function errorsOf({ r2, mape, poor, model }: Taken, reference: readonly number[]): Errors {
  const ratios = BATCHES.map((items, i) => predicted(model, items) / reference[i]!)
  return {
    ...{ r2, mape, poor, scale: median(ratios), distortion: max(ratios) / min(ratios) },
    ttft37Ms: (5 * prefillUs(model, 0, 37, 512)) / 1000,
  }
}

function predicted(model: CostModel, items: (typeof BATCHES)[number]): number {
  return stepUs(model, shapeOf(items, model))
}

function table(result: Result): string {
  const line = (name: string, errors: readonly Errors[]) => {
    const value = (pick: (errors: Errors) => number) => median(errors.map(pick))
    const worst = (pick: (errors: Errors) => number) => max(errors.map(pick))
    const poor = errors.filter((one) => one.poor === true).length
    return [
      name.padEnd(22),
      `R² ${value((e) => e.r2).toFixed(3)}`,
      `fit error ${percent(value((e) => e.mape))} (worst ${percent(worst((e) => e.mape))})`,
      `off by ${value((e) => e.scale).toFixed(2)}× (worst ${worst((e) => e.scale).toFixed(2)}×)`,
      `distorted by ${percent(value((e) => e.distortion) - 1)} (worst ${percent(worst((e) => e.distortion) - 1)})`,
      `37 tokens × 5: ${value((e) => e.ttft37Ms).toFixed(0)} ms (worst ${worst((e) => e.ttft37Ms).toFixed(0)})`,
      `told poor ${poor} of ${errors.length}`,
    ].join("   ")
  }
  const load = result.loadWhenQuiet.map((value) => value.toFixed(1)).join(", ")
  return [
    `${result.model}, ${result.loops} busy loops; load before each quiet profile: ${load}`,
    line("quiet", result.quiet),
    line("busy, before", result.before),
    line("busy, after", result.after),
    "",
  ].join("\n")
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`
}

await main()
