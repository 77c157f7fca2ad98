/** The real benchmark's workload on virtual time: attainment against rate per policy, for tuning and to see how
 * far simulation is from the real engine. Same plans, same classes, a cost model from a profile. */
import { Command } from "commander"
import { mean, sampleStandardDeviation } from "simple-statistics"
import { listOf, numberIn, wholeNumber } from "../src/cli/numbers.ts"
import { readModel, type SharedOptions, sharedOptions, specOf } from "../src/cli/study-options.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import type { Share } from "../src/load/statistics.ts"
import { APPS } from "../src/load/workload.ts"
import { runScenario } from "../src/study/run.ts"
import { analyse, type Interval, type Point } from "./real/statistics.ts"

interface Result {
  attained: number
  total: number
  byApp: Map<string, Share>
}

interface Options extends SharedOptions {
  policies: PolicyName[]
  rates: string
  seeds: number
  duration: number
  scenario: string
  apps?: true
  truth?: string
}

/** This machine's noise and zero-load prefill, and objectives that it can keep. */
const DEFAULTS = {
  arrivals: "gamma",
  noise: 0.15,
  tpotScale: 1.5,
  scale: 8,
  zeroLoadMs: 8,
  zeroLoadPrefillMsPerToken: 0.45,
}

const command = new Command("bench/simulate.ts")
  .option("--policies <list>", "scheduling policies", listOf(POLICY_NAMES), POLICY_NAMES)
  .option("--rates <list>", "", "2,4,6,8")
  .option("--seeds <n>", "arrival windows", wholeNumber(1, 1e6), 5)
  .option("--duration <s>", "of the arrivals of one run", numberIn(1, 1e6), 60)
  .option("--scenario <name>", "", "all")
  .option("--apps", "attainment by app")
  .option("--truth <file>", "steps take what this profile says, and the planner believes --profile")
const program = sharedOptions(command)
for (const [name, value] of Object.entries(DEFAULTS)) program.setOptionValueWithSource(name, value, "default")
const options = program.parse().opts<Options>()
// Lengths are known as in the real benchmark, whose clients force every one with max_tokens.
const believed = specOf({ ...options, replicas: 1, knownLengths: true }, options.scenario, "slos-serve")
const spec = {
  ...believed,
  ...(options.truth !== undefined && { truth: readModel(options.truth, "--truth") }),
}

function run(policy: PolicyName, ratePerSec: number, seed: number): Result {
  const report = runScenario({ ...spec, policy, ratePerSec, durationS: options.duration, seed, leadIn: 0 })
  const { attained, total } = report.attainment
  return { attained, total, byApp: new Map(Object.entries(report.byClass)) }
}

const rates = options.rates.split(",").map(Number)
const seeds = Array.from({ length: options.seeds }, (_, i) => i + 1)
const points: Point[] = []
console.log(["policy".padEnd(20), ...rates.map((rate) => String(rate).padStart(7))].join(""))
for (const policy of options.policies) {
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
  const present = APPS.filter((app) => results.some((runs) => runs.some(({ byApp }) => byApp.has(app))))
  for (const app of present) {
    const share = (runs: Result[]) => {
      const sum = (of: keyof Share) => runs.reduce((total, r) => total + (r.byApp.get(app)?.[of] ?? 0), 0)
      return sum("attained") / Math.max(1, sum("total"))
    }
    console.log([`  ${app}`.padEnd(20), ...results.map((runs) => cell(share(runs)))].join(""))
  }
}

const ours = "slos-serve"
const rivals = options.policies.includes(ours) && seeds.length > 1 ? options.policies : []
for (const rival of rivals.filter((policy) => policy !== ours)) {
  const cells = rates.map((rate) => {
    const shares = (system: string) =>
      points.filter((p) => p.system === system && p.ratePerSec === rate).map((p) => p.attained / p.total)
    const theirs = shares(rival)
    const less = shares(ours).map((share, i) => 100 * (share - theirs[i]!))
    return `${mean(less).toFixed(1)} ± ${(sampleStandardDeviation(less) / Math.sqrt(less.length)).toFixed(1)}`
  })
  console.log(`${ours} less ${rival}, points, ± standard error over windows: ${cells.join(", ")}`)
}

const { capacities, ratio } = analyse(points)
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
