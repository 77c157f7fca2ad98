/** `slos-serve advise`: how many replicas keep the SLOs of a server's last minutes, of a trace, or of a scenario. */
import { readFileSync } from "node:fs"
import type { Command } from "commander"
import { UserError } from "../errors.ts"
import { SCENARIOS } from "../load/workload.ts"
import { type Advice, adviseNow, atOnce, leastRequests, Search } from "../scale/advice.ts"
import { attainmentOf, type Forecast } from "../scale/play.ts"
import { parseRecording, type RecordedFleet } from "../scale/recording-file.ts"
import { runScenario } from "../study/run.ts"
import type { RunSpec } from "../study/spec.ts"
import { advicePicture, describeAdvice } from "./advise-show.ts"
import { numberIn, wholeNumber } from "./numbers.ts"
import { checkCharts, checkWritable, writeResult } from "./output.ts"
import { policyName, type SharedOptions, scenarioName, sharedOptions, specOf } from "./study-options.ts"

interface Options extends SharedOptions {
  url?: string
  recording?: string
  scenario?: string
  policy: string
  rate: number
  requests: number
  target: number
  window: number
  coldStart: number
  replicas: number
  mostReplicas: number
  json?: boolean
  out?: string
  svg?: string
}

const EXAMPLES = `
Examples:
  # how many replicas the last five minutes of a running server take
  slos-serve advise --url http://gateway:8080

  # 95% instead of 90%, for load that is still rising, when a replica takes two minutes to come
  slos-serve advise --url http://gateway:8080 --target 0.95 --cold-start 120

  # keep a busy hour, and ask about it later
  curl -s http://gateway:8080/v1/slo/arrivals > busy.jsonl
  slos-serve advise --recording busy.jsonl --window 3600 --svg advice.svg

  # no server yet: chat at 20 requests/s on A100s, or a published trace
  slos-serve advise --scenario chatbot --rate 20
  slos-serve advise --scenario coder --trace azure-code-2023.csv --arrivals superposed --rate 8

  # this machine's own speed
  slos-serve profile --model smollm2-135m --out profile.json
  slos-serve advise --scenario mixed --scale 8 --tpot-scale 3 --profile profile.json --rate 10`

export function register(program: Command): void {
  const command = program
    .command("advise")
    .description(
      "play recorded or expected arrivals with fewer and more replicas: which number keeps the SLOs, and by how much",
    )
    .option("--url <url>", "a running server (without /v1): its last arrivals, its cost model, its replicas")
    .option("--recording <file>", "the same, kept from GET /v1/slo/arrivals")
    .option("--scenario <name>", `instead: ${Object.keys(SCENARIOS).join(", ")}`)
    .option("--rate <n>", "with --scenario: requests per second over the fleet", numberIn(1e-4, 10_000), 4)
    .option("--requests <n>", "with --scenario: number of requests played", wholeNumber(20, 1e6), 1000)
    .option("--policy <name>", "with --scenario: scheduling policy", "slos-serve")
    .option("--target <share>", "share of the requests that is to keep every SLO", numberIn(0.5, 0.999), 0.9)
    .option("--window <s>", "of a recording: its last so many seconds", numberIn(1, 86_400), 300)
    .option(
      "--cold-start <s>",
      "of a recording: time until a new replica serves; load that clearly rises is foreseen so far ahead",
      numberIn(0, 3600),
      0,
    )
    .option("--replicas <n>", "that serve now (default: the recording's; 1)", wholeNumber(1, 1024))
    .option("--most-replicas <n>", "no more are tried", wholeNumber(1, 1024), 64)
  sharedOptions(command)
    .option("--json", "print the result as JSON")
    .option("--out <file>", "write the result as JSON")
    .option("--svg <file>", "write a picture")
    .addHelpText("after", EXAMPLES)
    .action((options: Options) => run(options))
}

async function run(options: Options): Promise<void> {
  const given = [options.url, options.recording, options.scenario].filter((one) => one !== undefined)
  if (given.length !== 1)
    throw new UserError(
      "advise needs one of --url, --recording and --scenario: say whose arrivals are played",
    )
  checkWritable(options.out)
  checkWritable(options.svg)
  await checkCharts(options.svg)
  const { advice, source } =
    options.scenario === undefined ? await ofRecording(options) : ofScenario(options, options.scenario)
  const { target } = options
  const json = `${JSON.stringify({ source, target, ...advice }, null, 2)}\n`
  if (options.out !== undefined) writeResult(options.out, json)
  if (options.svg !== undefined) writeResult(options.svg, await advicePicture(advice, target, source))
  process.stdout.write(options.json ? json : `${describeAdvice(advice, target, source)}\n`)
}

interface Found {
  advice: Advice
  /** Whose arrivals they are, for people. */
  source: string
}

async function ofRecording(options: Options): Promise<Found> {
  const { url, recording: path, target, window: windowS, coldStart: coldStartS, mostReplicas, seed } = options
  const fleet = url === undefined ? readRecording(path!) : await fetchRecording(url)
  const replicas = options.replicas ?? fleet.replicas
  const { recording, setup } = fleet
  if (recording.arrivals.length === 0)
    throw new UserError(`${url ?? path}: nothing was recorded yet; ask again when requests have come`)
  const advice = adviseNow(setup, recording, {
    ...{ target, windowS, coldStartS, mostReplicas: Math.max(mostReplicas, replicas), replicas, seed },
    ...{ most: Number.POSITIVE_INFINITY, whole: true },
  })
  const seconds = advice.spanS.toFixed(0)
  return { advice, source: `the last ${seconds} s of ${url ?? path} (policy ${setup.policy})` }
}

function readRecording(path: string): RecordedFleet {
  try {
    return parseRecording(readFileSync(path, "utf8"), path)
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(`cannot read --recording ${path} (${(error as NodeJS.ErrnoException).code})`)
  }
}

const FETCH_MS = 30_000

async function fetchRecording(url: string): Promise<RecordedFleet> {
  const address = `${url.replace(/\/+$/, "")}/v1/slo/arrivals`
  let text: string
  try {
    const response = await fetch(address, { signal: AbortSignal.timeout(FETCH_MS) })
    text = await response.text()
    if (!response.ok)
      throw new UserError(`${address}: ${response.status}; is it a slos-serve server, and ready?`)
  } catch (error) {
    if (error instanceof UserError) throw error
    const { cause, message } = error as Error & { cause?: { code?: string } }
    throw new UserError(`${address}: no answer (${cause?.code ?? message}); check --url`)
  }
  return parseRecording(text, address)
}

/** A fleet that is being planned: nothing serves yet. */
function ofScenario(options: Options, scenario: string): Found {
  const { rate, requests, target, mostReplicas } = options
  const spec: RunSpec = {
    ...specOf({ ...options, replicas: 1 }, scenarioName(scenario), policyName(options.policy)),
    ...{ ratePerSec: rate, durationS: requests / rate },
  }
  const now = options.replicas ?? 1
  const search = new Search(now, Math.max(mostReplicas, now), target, (replicas) =>
    forecastOf(spec, replicas),
  )
  const best = atOnce(search.run())
  const chosen = search.at(best)
  const enough = chosen.total >= leastRequests(target)
  return {
    advice: {
      ...{
        forecasts: search.forecasts,
        replicas: options.replicas ?? 0,
        best,
        requests: chosen.total,
        enough,
      },
      ...{
        reached: attainmentOf(chosen) >= target,
        measured: null,
        growth: 1,
        each: 1,
        spanS: spec.durationS,
      },
    },
    source: `${scenario} at ${rate}/s on ${spec.hardware.source}`,
  }
}

function forecastOf(spec: RunSpec, replicas: number): Forecast {
  const { attainment, utilization, missedTtftMs } = runScenario({ ...spec, replicas })
  const busy = utilization.reduce((sum, share) => sum + share, 0) / utilization.length
  return {
    ...{ replicas, total: attainment.total, kept: attainment.attained, missedTtftMs },
    idleShare: Math.max(0, 1 - busy),
  }
}
