/** `slos-serve replay`: drive a server with a trace or scenario and report which SLOs were kept. */
import type { Command } from "commander"
import { UserError } from "../errors.ts"
import { ARRIVALS, type ArrivalName } from "../load/arrivals.ts"
import { readClasses, type ZeroLoad } from "../load/classes.ts"
import { probeModel, TARGET_KINDS, type Target, type TargetKind } from "../load/client.ts"
import { formatPlan, type Plan, readPlan } from "../load/plan.ts"
import { type Progress, type ReplayOptions, replay } from "../load/replay.ts"
import { formatRecords, formatScore, summaryJson } from "../load/report.ts"
import { type GoodputLimits, score } from "../load/score.ts"
import { readTrace, type Trace } from "../load/trace.ts"
import { TRACE_FORMATS } from "../load/trace-formats.ts"
import { APPS, type AppName, appOf, makePlan, SCENARIOS } from "../load/workload.ts"
import { measureZeroLoad } from "../load/zero-load.ts"
import { writeResult } from "./output.ts"

interface Options {
  url: string
  targetKind: string
  model?: string
  apiKey?: string
  scenario: string
  rate: string
  duration: string
  numPrompts?: string
  seed: string
  scale: string
  arrivals?: string
  burstiness?: string
  trace: string[]
  classes?: string
  zeroLoadMs?: string
  zeroLoadPrefillMsPerToken?: string
  maxSequenceTokens: string
  tokenRange: string
  maxConcurrency?: string
  timeout: string
  sendClass: boolean
  goodput?: string[]
  plan?: string
  savePlan?: string
  dryRun?: boolean
  out?: string
  tokenTimes?: boolean
  json?: boolean
}

const EXAMPLES = `
Examples:
  # a mixed workload for a minute on this machine's server, lengths an eighth of the published ones
  slos-serve replay --url http://127.0.0.1:8080 --scenario mixed --request-rate 2 --duration 60 --scale 8 \\
    --classes "chat=ttft:1000,tpot:200;code=ttft:1000,tpot:150;summarize=ttft:2000,tpot:200;\\
reasoning=ttft:1000,thinking:150,tpot:200;tools=ttft:1000,tpot:150;tools_final=ttft:1000,tpot:200"

  # Azure's code trace with its own bursts, and TTFT as five zero-load prefill times
  slos-serve replay --scenario code --trace AzureLLMInferenceTrace_code.csv --arrivals trace \\
    --request-rate 3 --scale 8 --zero-load-ms 20 --zero-load-prefill-ms-per-token 1.2

  # the same arrivals and lengths against two servers
  slos-serve replay --scenario mixed --request-rate 2 --save-plan plan.jsonl --dry-run
  slos-serve replay --plan plan.jsonl --url http://127.0.0.1:8080 --out ours.jsonl
  slos-serve replay --plan plan.jsonl --url http://127.0.0.1:8081 --target-kind llama-server --out theirs.jsonl

Traces: lengths, times, shared prefixes and conversations are read from these published formats:
${TRACE_FORMATS.map(({ name, kind, published }) => `  ${name} (${kind}): ${published}`).join("\n")}
Without a trace, lengths and bursts come from generators fitted to the published ones.`

const LEAST_PROBE_TOKENS = 64
const MOST_PROBE_TOKENS = 512
const PROBES = 3

export function register(program: Command): void {
  program
    .command("replay")
    .description("send a trace or scenario to a server at a rate, and report which SLOs were kept")
    .option("--url <url>", "server to drive (without /v1)", "http://127.0.0.1:8080")
    .option(
      "--target-kind <kind>",
      `which extras the server understands: ${TARGET_KINDS.join(", ")}`,
      "slos-serve",
    )
    .option("--model <name>", "model name to ask for (default: the first of /v1/models)")
    .option("--api-key <key>", "bearer token")
    .option("--scenario <name>", `workload: ${Object.keys(SCENARIOS).join(", ")}`, "mixed")
    .option("--request-rate, --rate <n>", "requests per second; a tool session is one request", "1")
    .option("--duration <seconds>", "span of the arrivals", "60")
    .option("--num-prompts <n>", "number of requests; sets the duration")
    .option("--seed <n>", "same seed, same plan", "1")
    .option("--scale <n>", "divide all lengths by this", "1")
    .option("--arrivals <process>", `${ARRIVALS.join(", ")} (default: gamma)`)
    .option(
      "--burstiness <n>",
      "of gamma arrivals: 1 = Poisson, smaller = more bursty (default: 0.5 for mixed and all, else 1)",
    )
    .option("--trace <file|app=file>", "lengths (and times) of an app; repeatable", collect, [])
    .option(
      "--classes <file|list>",
      "SLO classes: YAML file as for serve, or name=ttft:500,tpot:100,thinking:50;… (ms; ttft:5x)",
    )
    .option("--zero-load-ms <ms>", "fixed part of the zero-load prefill time (default: measured first)")
    .option("--zero-load-prefill-ms-per-token <ms>", "its part per prompt token")
    .option("--max-sequence-tokens <n>", "longest prompt + output, after scaling", "2048")
    .option("--token-range <from:to>", "prompts are drawn from these token ids", "32:256")
    .option("--max-concurrency <n>", "most requests in flight (waiting in the generator counts as latency)")
    .option("--timeout <seconds>", "give a request up after this", "600")
    .option("--no-send-class", "do not name the classes to the server (it has none of these names)")
    .option("--goodput <limit...>", "limits such as ttft:500 tpot:50 e2el:10000 (ms), as in vllm bench serve")
    .option("--plan <file>", "replay this plan instead of making one")
    .option("--save-plan <file>", "write the plan")
    .option("--dry-run", "make (and save) the plan, send nothing")
    .option("--out <file>", "write one JSON line a round")
    .option("--token-times", "with --out: every token's time")
    .option("--json", "print the result as JSON (keys of vllm bench serve)")
    .addHelpText("after", EXAMPLES)
    .action((options: Options) => run(options))
}

function collect(value: string, before: string[]): string[] {
  return [...before, value]
}

async function run(options: Options): Promise<void> {
  const plan = options.plan === undefined ? planOf(options) : readPlan(options.plan)
  const settings = {
    classes: readClasses(options.classes),
    zeroLoad: zeroLoadOf(options),
    tokenRange: tokenRangeOf(options.tokenRange),
    maxConcurrency:
      options.maxConcurrency === undefined
        ? undefined
        : positive(options.maxConcurrency, "--max-concurrency"),
    timeoutMs: positive(options.timeout, "--timeout") * 1000,
    sendClass: options.sendClass,
    nonce: `${Date.now()}-${process.pid}`,
  }
  const limits = goodputOf(options.goodput)
  if (options.savePlan !== undefined) writeResult(options.savePlan, formatPlan(plan))
  if (options.dryRun === true) {
    if (options.savePlan === undefined) process.stdout.write(formatPlan(plan))
    return
  }
  const target = await targetOf(options)
  const zeroLoad = settings.zeroLoad ?? (await zeroLoadAt(target, plan, settings))
  const interrupted = new AbortController()
  process.once("SIGINT", () => interrupted.abort())
  const showProgress = process.stderr.isTTY === true && options.json !== true
  const result = await replay(plan, {
    ...settings,
    zeroLoad,
    target,
    signal: interrupted.signal,
    ...(showProgress ? { onProgress: printProgress } : {}),
  })
  if (showProgress) process.stderr.write("\r\u001b[K")
  const scored = score(plan.header, result, limits)
  if (options.out !== undefined)
    writeResult(options.out, formatRecords(result.records, { tokenTimes: options.tokenTimes === true }))
  if (options.json === true) {
    process.stdout.write(
      `${JSON.stringify(summaryJson(plan.header, scored, target, settings.maxConcurrency), null, 2)}\n`,
    )
  } else {
    process.stdout.write(`${formatScore(plan.header, scored)}\n`)
  }
  if (scored.problems.some((problem) => problem.startsWith("invalid"))) process.exitCode = 1
}

function printProgress(progress: Progress): void {
  const { elapsedMs, sent, finished, attained, total } = progress
  process.stderr.write(
    `\r\u001b[K${(elapsedMs / 1000).toFixed(0)} s  sent ${sent}  finished ${finished} of ${total}  in time ${attained}`,
  )
}

function planOf(options: Options): Plan {
  const scenario = options.scenario
  const ratePerSec = number(options.rate, "--request-rate")
  const arrivals = options.arrivals ?? "gamma"
  if (!ARRIVALS.includes(arrivals as ArrivalName)) {
    throw new UserError(`unknown --arrivals "${arrivals}"; known: ${ARRIVALS.join(", ")}`)
  }
  const durationSec =
    options.numPrompts === undefined
      ? number(options.duration, "--duration")
      : positive(options.numPrompts, "--num-prompts") / ratePerSec
  return makePlan({
    scenario,
    ratePerSec,
    durationMs: durationSec * 1000,
    seed: number(options.seed, "--seed"),
    scale: number(options.scale, "--scale"),
    arrivals: arrivals as ArrivalName,
    burstiness:
      options.burstiness === undefined
        ? scenario === "mixed" || scenario === "all"
          ? 0.5
          : 1
        : number(options.burstiness, "--burstiness"),
    maxSequenceTokens: number(options.maxSequenceTokens, "--max-sequence-tokens"),
    traces: tracesOf(options.trace, scenario),
  })
}

function tracesOf(specs: string[], scenario: string): Partial<Record<AppName, Trace>> {
  const traces: Partial<Record<AppName, Trace>> = {}
  for (const spec of specs) {
    const match = /^(\w+)=(.+)$/.exec(spec)
    const app = appOf(match?.[1] ?? scenario)
    if (!APPS.includes(app as AppName)) {
      throw new UserError(
        `--trace ${spec}: say whose lengths these are, such as chat=${match?.[2] ?? spec} (apps: ${APPS.join(", ")})`,
      )
    }
    traces[app as AppName] = readTrace(match?.[2] ?? spec)
  }
  return traces
}

async function targetOf(options: Options): Promise<Target> {
  if (!TARGET_KINDS.includes(options.targetKind as TargetKind)) {
    throw new UserError(`unknown --target-kind "${options.targetKind}"; known: ${TARGET_KINDS.join(", ")}`)
  }
  if (!/^https?:\/\/[^/]/.test(options.url) || !URL.canParse(options.url)) {
    throw new UserError(`--url ${options.url} is not a URL such as http://127.0.0.1:8080`)
  }
  const url = options.url.replace(/\/+$/, "").replace(/\/v1$/, "")
  const found = await probeModel(url, options.apiKey)
  return {
    url,
    kind: options.targetKind as TargetKind,
    model: options.model ?? found,
    apiKey: options.apiKey,
  }
}

function zeroLoadOf(options: Options): ZeroLoad | undefined {
  const { zeroLoadMs, zeroLoadPrefillMsPerToken } = options
  if (zeroLoadMs === undefined && zeroLoadPrefillMsPerToken === undefined) return undefined
  return {
    ms: zeroLoadMs === undefined ? 0 : number(zeroLoadMs, "--zero-load-ms"),
    msPerToken:
      zeroLoadPrefillMsPerToken === undefined
        ? 0
        : number(zeroLoadPrefillMsPerToken, "--zero-load-prefill-ms-per-token"),
  }
}

/** Where a class needs it and nobody said it: measured before the load. */
async function zeroLoadAt(
  target: Target,
  plan: Plan,
  { classes, tokenRange }: Pick<ReplayOptions, "classes" | "tokenRange">,
): Promise<ZeroLoad | undefined> {
  const rounds = plan.requests.flatMap((request) => request.rounds)
  const slowdown = (name: string) => classes[name]?.ttftMs === undefined && classes[name]?.ttftSlowdown
  if (!rounds.some((round) => slowdown(round.class))) return undefined
  const longest = rounds.reduce((most, round) => Math.max(most, round.promptTokens), 0)
  const found = await measureZeroLoad(
    target,
    Math.max(LEAST_PROBE_TOKENS, Math.min(longest, MOST_PROBE_TOKENS)),
    PROBES,
    tokenRange,
  )
  process.stderr.write(
    `an idle server's prefill, measured: ${found.ms.toFixed(1)} ms + ${found.msPerToken.toFixed(3)} ms/token\n`,
  )
  return found
}

function tokenRangeOf(text: string): { from: number; to: number } {
  const match = /^(\d+):(\d+)$/.exec(text)
  const range = { from: Number(match?.[1]), to: Number(match?.[2]) }
  if (match === null || range.to <= range.from) {
    throw new UserError(`--token-range ${text}: expected from:to with from < to, such as 32:256`)
  }
  return range
}

function goodputOf(specs: string[] | undefined): GoodputLimits | undefined {
  if (specs === undefined) return undefined
  const limits: GoodputLimits = {}
  for (const spec of specs) {
    const match = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(spec)
    if (match === null) throw new UserError(`--goodput ${spec}: expected ttft:<ms>, tpot:<ms> or e2el:<ms>`)
    limits[match[1] as keyof GoodputLimits] = Number(match[2])
  }
  return limits
}

function number(text: string, flag: string): number {
  const value = Number(text)
  if (text.trim() === "" || !Number.isFinite(value))
    throw new UserError(`${flag} must be a number; it is "${text}"`)
  return value
}

function positive(text: string, flag: string): number {
  const value = number(text, flag)
  if (value <= 0) throw new UserError(`${flag} must be above 0; it is ${text}`)
  return value
}
