/** `slos-serve simulate`: one run of any fleet under any policy on virtual time, and everything about it. */
import { type Command, InvalidArgumentError } from "commander"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { classesIn, type Plan, readPlan } from "../load/plan.ts"
import { SCENARIOS } from "../load/workload.ts"
import { type RunReport, runScenario } from "../study/run.ts"
import { describeRun, percent } from "../study/show.ts"
import type { RunSpec, Split } from "../study/spec.ts"
import { numberIn, wholeNumber } from "./numbers.ts"
import { checkCharts, writeResult } from "./output.ts"
import { policyName, type SharedOptions, scenarioName, sharedOptions, specOf } from "./study-options.ts"
import { refuseTraces } from "./workload-options.ts"

interface Options extends SharedOptions {
  scenario: string
  policy: string
  rate: number
  duration?: number
  requests: number
  leadIn: number
  speculate: string
  learnCost?: boolean
  split?: Split
  plan?: string
  json?: boolean
  out?: string
  svg?: string
}

const EXAMPLES = `
Examples:
  # 4 replicas of OPT-6.7B on A100s, chat at 20 requests/s
  slos-serve simulate --scenario chatbot --replicas 4 --rate 20

  # the same under another policy, with prefill and decode on GPUs apart (DistServe)
  slos-serve simulate --scenario chatbot --replicas 4 --rate 20 --policy vllm --split 1:3

  # Azure's code trace with its own bursts, speculative decoding, all figures as JSON, a chart
  slos-serve simulate --scenario coder --trace azure-code-2023.csv --arrivals trace --rate 2 \\
    --speculate on --json --out run.json --svg run.svg

  # this machine's profile, lengths an eighth, laxer TPOTs
  slos-serve profile --model tiny-bench --out profile.json
  slos-serve simulate --scenario mixed --profile profile.json --slots 32 --scale 8 --tpot-scale 3 --rate 4

  # step times of the GPU not known beforehand, but learnt from the first steps on
  slos-serve simulate --scenario chatbot --rate 10 --learn-cost

  # chats that share system prompts: whose KV is still there, and where requests go
  slos-serve simulate --scenario shared --replicas 4 --rate 8

  # the very requests that a server was sent
  slos-serve replay --scenario mixed --rate 2 --scale 8 --save-plan plan.jsonl --dry-run
  slos-serve simulate --plan plan.jsonl --profile profile.json`

export function register(program: Command): void {
  const command = program
    .command("simulate")
    .description("play a workload through a simulated fleet and report which SLOs were kept")
    .option("--scenario <name>", Object.keys(SCENARIOS).join(", "), "mixed")
    .option("--policy <name>", POLICY_NAMES.join(", "), "slos-serve")
    .option("--replicas <n>", "number of GPUs (replicas)", wholeNumber(1, 1024), 1)
    .option("--rate <n>", "requests per second over the fleet; a session is one", numberIn(1e-4, 10_000), 4)
    .option("--duration <s>", "span of the arrivals (default: that of --requests)", numberIn(0.1, 1e6))
    .option("--requests <n>", "number of requests", wholeNumber(1, 1e6), 2000)
    .option("--lead-in <share>", "first share of the span that is not counted", numberIn(0, 0.9), 0.1)
    .option("--speculate <on|off>", "speculative decoding", onOff, "off")
    .option("--learn-cost", "the planner is not told what steps take: it begins with a slow guess and learns")
    .option("--split <P:D>", "P replicas prefill, D decode (DistServe)", splitOf)
    .option("--plan <file>", "play this plan (slos-serve replay --save-plan) instead of a scenario")
  sharedOptions(command)
    .option("--json", "print the report as JSON")
    .option("--out <file>", "write the report as JSON")
    .option("--svg <file>", "write the timeline as a chart")
    .addHelpText("after", EXAMPLES)
    .action((options: Options) => run(options))
}

function onOff(text: string): string {
  if (text === "on" || text === "off") return text
  throw new InvalidArgumentError("It must be on or off.")
}

function splitOf(text: string): Split {
  const match = /^(\d+):(\d+)$/.exec(text)
  const split = { prefill: Number(match?.[1]), decode: Number(match?.[2]) }
  if (split.prefill >= 1 && split.decode >= 1) return split
  throw new InvalidArgumentError("It must be such as 1:3: replicas that prefill, replicas that decode.")
}

async function run(options: Options): Promise<void> {
  const plan = options.plan === undefined ? undefined : readPlan(options.plan)
  if (plan !== undefined) refuseTraces(options.trace)
  const context = plan === undefined ? {} : { planned: classesIn(plan) }
  const spec: RunSpec = {
    ...specOf(options, scenarioName(options.scenario), policyName(options.policy), context),
    ratePerSec: options.rate,
    durationS: options.duration ?? options.requests / options.rate,
    leadIn: options.leadIn,
    speculate: options.speculate === "on",
    ...(options.learnCost && { learnCost: true }),
    split: options.split ?? null,
    ...(plan !== undefined && { plan: options.plan!, ...planned(plan) }),
  }
  checkSplit(spec)
  await checkCharts(options.svg)
  const report = runScenario(spec, { timeline: true })
  const json = `${JSON.stringify({ spec, report }, null, 2)}\n`
  if (options.out !== undefined) writeResult(options.out, json)
  if (options.svg !== undefined) writeResult(options.svg, await timelineSvg(spec, report))
  process.stdout.write(options.json ? json : `${describeRun(spec, report)}\n`)
  if (!options.json && options.learnCost) process.stdout.write(`${comparison(spec)}\n`)
}

/** What the same planner keeps that is told what steps take. */
function comparison(spec: RunSpec): string {
  const { attainment } = runScenario({ ...spec, learnCost: false })
  return `told what steps take, it keeps ${percent(attainment.attained / Math.max(1, attainment.total))}`
}

/** What a saved plan decides, whatever the options say. */
function planned({ header }: Plan): Pick<RunSpec, "scenario" | "ratePerSec" | "durationS"> {
  const { scenario, ratePerSec, durationMs } = header
  return { scenario, ratePerSec, durationS: durationMs / 1000 }
}

async function timelineSvg(spec: RunSpec, report: RunReport): Promise<string> {
  const { timelineChart } = await import("../study/charts.ts")
  return timelineChart(spec, report)
}

function checkSplit({ split, replicas }: RunSpec): void {
  if (split === null || split.prefill + split.decode === replicas) return
  throw new UserError(
    `--split ${split.prefill}:${split.decode} is ${split.prefill + split.decode} replicas, --replicas is ${replicas}; make them equal`,
  )
}
