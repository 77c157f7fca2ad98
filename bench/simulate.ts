/** The real benchmark's workload on virtual time: attainment against rate per policy, for tuning and to see how
 * far simulation is from the real engine. Same plans, same classes, a cost model from a profile. */
import { Command } from "commander"
import { mean } from "simple-statistics"
import { scenarioName, specOf } from "../src/cli/study-options.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import { APPS } from "../src/load/workload.ts"
import { runScenario } from "../src/study/run.ts"
import type { Share } from "../src/study/tally.ts"
import { analyse, type Interval, type Point } from "./real/statistics.ts"

interface Result {
  attained: number
  total: number
  byApp: Map<string, Share>
}

const program = new Command("bench/simulate.ts")
  .requiredOption("--profile <file>", "JSON of slos-serve profile --out")
  .option("--policies <names>", "", POLICY_NAMES.join(","))
  .option("--rates <list>", "", "2,4,6,8")
  .option("--seeds <n>", "", "5")
  .option("--duration <s>", "", "60")
  .option("--scenario <name>", "", "all")
  .option("--scale <n>", "", "8")
  .option("--arrivals <process>", "gamma, poisson, trace or superposed", "gamma")
  .option("--burstiness <n>", "", "0.5")
  .option("--classes <list>")
  .option("--tpot-scale <n>", "", "1.5")
  .option("--noise <sigma>", "", "0.15")
  .option("--zero-load-ms <ms>", "", "8")
  .option("--zero-load-prefill-ms-per-token <ms>", "", "0.45")
  .option(
    "--trace <app=file>",
    "repeatable",
    (value: string, all: string[]) => [...all, value],
    [] as string[],
  )
  .option("--slots <n>", "", "32")
  .option(
    "--set <name=value>",
    "a policy option; repeatable",
    (value: string, all: string[]) => [...all, value],
    [] as string[],
  )
  .option("--apps", "attainment by app")
  .parse()
const options = program.opts()

const slots = Number(options.slots)
const spec = specOf(
  {
    ...{ profile: options.profile, slots, context: 1024, maxBatchTokens: 512, replicas: 1, seed: 1 },
    ...{
      arrivals: options.arrivals,
      burstiness: Number(options.burstiness),
      noise: Number(options.noise),
      bias: 1,
    },
    ...{ acceptance: 0.7, trace: options.trace, scale: Number(options.scale), classes: options.classes },
    ...{ tpotScale: Number(options.tpotScale), set: options.set, reoffers: 3 },
    zeroLoadMs: Number(options.zeroLoadMs),
    zeroLoadPrefillMsPerToken: Number(options.zeroLoadPrefillMsPerToken),
    // As in the real benchmark, whose clients force every length with max_tokens.
    knownLengths: true,
  },
  scenarioName(options.scenario),
  "slos-serve",
)

function run(policy: PolicyName, ratePerSec: number, seed: number): Result {
  const durationS = Number(options.duration)
  const report = runScenario({ ...spec, policy, ratePerSec, durationS, seed, leadIn: 0 })
  const { kept, total } = report.attainment
  return { attained: kept, total, byApp: new Map(Object.entries(report.byClass)) }
}

const rates = (options.rates as string).split(",").map(Number)
const seeds = Array.from({ length: Number(options.seeds) }, (_, i) => i + 1)
const points: Point[] = []
console.log(["policy".padEnd(20), ...rates.map((rate) => String(rate).padStart(7))].join(""))
for (const policy of (options.policies as string).split(",") as PolicyName[]) {
  const results = rates.map((rate) => seeds.map((seed) => run(policy, rate, seed)))
  for (const [i, runs] of results.entries()) {
    for (const [j, { attained, total }] of runs.entries()) {
      points.push({ system: policy, seed: seeds[j]!, ratePerSec: rates[i]!, attained, total })
    }
  }
  const cell = (value: number) => (100 * value).toFixed(1).padStart(7)
  console.log(
    [policy.padEnd(20), ...results.map((runs) => cell(mean(runs.map((r) => r.attained / r.total))))].join(""),
  )
  if (!options.apps) continue
  for (const app of APPS) {
    const share = (runs: Result[]) => {
      const sum = (of: keyof Share) => runs.reduce((total, r) => total + (r.byApp.get(app)?.[of] ?? 0), 0)
      return sum("kept") / Math.max(1, sum("total"))
    }
    console.log([`  ${app}`.padEnd(20), ...results.map((runs) => cell(share(runs)))].join(""))
  }
}

const { capacities, ratio } = analyse(points)
const ours = "slos-serve"
const range = ({ value, low, high }: Interval) => `${value.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
console.log(
  `\ncapacity at 90%, requests/s (95% interval over ${seeds.length} windows); ${ours} over it, in pairs`,
)
for (const entry of capacities) {
  const bound = { exact: "", atLeast: "at least ", atMost: "at most " }[entry.bound]
  const against = capacities.some(({ system }) => system === ours)
    ? `   ${range(ratio(ours, entry.system))}`
    : ""
  console.log(`${entry.system.padEnd(20)}${bound}${range(entry)}${against}`)
}
