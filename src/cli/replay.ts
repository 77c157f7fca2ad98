/** `slos-serve replay`: drive a server with a trace or scenario and report which SLOs were kept. */
import { type Command, Option } from "commander"
import { UserError } from "../errors.ts"
import { ARRIVALS, type ArrivalName } from "../load/arrivals.ts"
import { readClasses, type ZeroLoad } from "../load/classes.ts"
import { probeModel, TARGET_KINDS, type Target, type TargetKind } from "../load/client.ts"
import { classesIn, formatPlan, type Plan, readPlan } from "../load/plan.ts"
import { type Progress, type ReplayOptions, replay } from "../load/replay.ts"
import { formatRecords, formatScore, summaryJson } from "../load/report.ts"
import { type GoodputLimits, score } from "../load/score.ts"
import { TRACE_FORMATS } from "../load/trace-formats.ts"
import { makePlan, SCENARIOS } from "../load/workload.ts"
import { measureZeroLoad } from "../load/zero-load.ts"
import { numberIn, wholeNumber } from "./numbers.ts"
import { checkWritable, writeResult } from "./output.ts"
import { collect, readTraces, refuseTraces, type ZeroLoadOptions, zeroLoadOf } from "./workload-options.ts"

interface Options extends ZeroLoadOptions {
  url: string
  targetKind: TargetKind
  model?: string
  apiKey?: string
  scenario: string
  rate: number
  duration: number
  numPrompts?: number
  seed: number
  scale: number
  arrivals: ArrivalName
  burstiness?: number
  trace: string[]
  classes?: string
  maxSequenceTokens: number
  tokenRange: string
  maxConcurrency?: number
  timeout: number
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
Without a trace, lengths and bursts come from generators fitted to the published ones. reasoning, tools and shared (chats
behind 50 system prompts, a few of them most used) are always synthetic; their times may follow a trace of chat.`

const LEAST_PROBE_TOKENS = 64
const MOST_PROBE_TOKENS = 512
const PROBES = 3

export function register(program: Command): void {
  program
    .command("replay")
    .description("send a trace or scenario to a server at a rate, and report which SLOs were kept")
    .option("--url <url>", "server to drive (without /v1)", "http://127.0.0.1:8080")
    .addOption(
      new Option("--target-kind <kind>", "which extras the server understands")
        .choices(TARGET_KINDS)
        .default("slos-serve"),
    )
    .option("--model <name>", "model name to ask for (default: the first of /v1/models)")
    .option("--api-key <key>", "bearer token")
    .option("--scenario <name>", `workload: ${Object.keys(SCENARIOS).join(", ")}`, "mixed")
    .option(
      "--request-rate, --rate <n>",
      "requests per second; a session is one request",
      numberIn(1e-4, 10_000),
      1,
    )
    .option("--duration <seconds>", "span of the arrivals", numberIn(0.1, 1e6), 60)
    .option("--num-prompts <n>", "number of requests; sets the duration", wholeNumber(1, 1e6))
    .option("--seed <n>", "same seed, same plan", wholeNumber(0, 2 ** 31), 1)
    .option("--scale <n>", "divide all lengths by this", numberIn(0.01, 1000), 1)
    .addOption(new Option("--arrivals <process>", "arrival process").choices(ARRIVALS).default("gamma"))
    .option(
      "--burstiness <n>",
      "of gamma arrivals: 1 = Poisson, smaller = more bursty (default: 0.5 for mixed and all, else 1)",
      numberIn(0.01, 100),
    )
    .option("--trace <file|app=file>", "lengths (and times) of an app, .gz too; repeatable", collect, [])
    .option(
      "--classes <file|list>",
      "SLO classes: YAML file as for serve, or name=ttft:500,tpot:100,thinking:50,gap:400;… (ms; ttft:5x)",
    )
    .option(
      "--zero-load-ms <ms>",
      "fixed part of the zero-load prefill time (default: measured first)",
      numberIn(0, 1e6),
    )
    .option("--zero-load-prefill-ms-per-token <ms>", "its part per prompt token", numberIn(0, 1e4))
    .option(
      "--max-sequence-tokens <n>",
      "longest history + prompt + output, after scaling: longer requests of a trace are left out",
      wholeNumber(2, 1e7),
      2048,
    )
    .option("--token-range <from:to>", "prompts are drawn from these token ids", "32:256")
    .option(
      "--max-concurrency <n>",
      "most requests in flight (waiting in the generator counts as latency)",
      wholeNumber(1, 1e6),
    )
    .option("--timeout <seconds>", "give a request up after this", numberIn(0.001, 1e6), 600)
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

async function run(options: Options): Promise<void> {
  const plan = options.plan === undefined ? planOf(options) : readPlan(options.plan)
  if (options.plan !== undefined) refuseTraces(options.trace)
  const settings = {
    classes: readClasses(options.classes, classesIn(plan)),
    zeroLoad: zeroLoadOf(options),
    tokenRange: tokenRangeOf(options.tokenRange),
    maxConcurrency: options.maxConcurrency,
    timeoutMs: options.timeout * 1000,
    sendClass: options.sendClass,
    nonce: `${Date.now()}-${process.pid}`,
  }
  const limits = goodputOf(options.goodput)
  if (options.savePlan !== undefined) writeResult(options.savePlan, formatPlan(plan))
  if (options.dryRun === true) {
    if (options.savePlan === undefined) process.stdout.write(formatPlan(plan))
    return
  }
  checkWritable(options.out)
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
  const { scenario, rate, seed, scale, arrivals, maxSequenceTokens } = options
  const durationS = options.numPrompts === undefined ? options.duration : options.numPrompts / rate
  return makePlan({
    scenario,
    ratePerSec: rate,
    durationMs: durationS * 1000,
    seed,
    scale,
    arrivals,
    burstiness: options.burstiness ?? (scenario === "mixed" || scenario === "all" ? 0.5 : 1),
    maxSequenceTokens,
    traces: readTraces(options.trace, scenario, arrivals),
  })
}

async function targetOf(options: Options): Promise<Target> {
  if (options.apiKey !== undefined && !/^[\x21-\x7e]+$/.test(options.apiKey))
    throw new UserError("--api-key must be printable ASCII without blanks; check the variable it comes from")
  if (!/^https?:\/\/[^/]/.test(options.url) || !URL.canParse(options.url)) {
    throw new UserError(`--url ${options.url} is not a URL such as http://127.0.0.1:8080`)
  }
  const url = options.url.replace(/\/+$/, "").replace(/\/v1$/, "")
  const found = await probeModel(url, options.apiKey)
  return {
    url,
    kind: options.targetKind,
    model: options.model ?? found,
    apiKey: options.apiKey,
  }
}

/** Where a class needs it and no option says it: measured before the load. */
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
