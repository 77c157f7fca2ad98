/** How fast the simulator is: requests of the chatbot scenario (about 200 output tokens each) simulated per second of
 * CPU time, all threads of the process counted, whatever else the machine does. Making the plan is not part of it. */
import { writeFileSync } from "node:fs"
import { Command } from "commander"
import { numberIn, wholeNumber } from "../src/cli/numbers.ts"
import { policyName, scenarioName } from "../src/cli/study-options.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import { readClasses } from "../src/load/classes.ts"
import { simulateFleet } from "../src/sim/fleet.ts"
import { HARDWARE, SCENARIO_HARDWARE } from "../src/sim/presets.ts"
import { replicaConfig } from "../src/study/run.ts"
import { RUN_DEFAULTS, type RunSpec } from "../src/study/spec.ts"
import { Workload } from "../src/study/workload.ts"

interface Row {
  policy: PolicyName
  replicas: number
  requests: number
  meanOutputTokens: number
  meanBatchItems: number
  steps: number
  /** The best and the middle one of the rounds. */
  bestPerCpuS: number
  medianPerCpuS: number
}

interface Options {
  scenario: string
  policies: string
  replicas: string
  rate: number
  requests: number
  rounds: number
  speculate?: true
  json?: true
  out?: string
}

/** One run from start to end. */
function play(spec: RunSpec) {
  const workload = new Workload(spec)
  const config = replicaConfig(spec)
  let tokens = 0
  let finished = 0
  const before = process.cpuUsage()
  const { steps, batchTokens } = simulateFleet({
    replicas: Array.from({ length: spec.replicas }, () => config),
    requests: workload.first,
    noiseSigma: spec.noiseSigma,
    seed: spec.seed,
    router: { kind: "offer" },
    follow: (id, nowUs) => workload.follow(id, nowUs),
    onEffect: (effect) => {
      if (effect.type !== "finished") return
      finished++
      tokens += effect.outcome.outputTokens
    },
  })
  const { user, system } = process.cpuUsage(before)
  return { perCpuS: (finished / (user + system)) * 1e6, finished, tokens, steps, batchTokens }
}

function measure(spec: RunSpec, rounds: number): Row {
  play(spec)
  const runs = Array.from({ length: rounds }, () => play(spec))
  const { finished, tokens, steps } = runs[0]!
  const speeds = runs.map(({ perCpuS }) => perCpuS).sort((a, b) => b - a)
  return {
    policy: spec.policy,
    replicas: spec.replicas,
    requests: finished,
    meanOutputTokens: tokens / finished,
    meanBatchItems: tokens / steps,
    steps,
    bestPerCpuS: speeds[0]!,
    medianPerCpuS: speeds[speeds.length >> 1]!,
  }
}

const options = new Command("bench/simulator-speed.ts")
  .option("--scenario <name>", "", "chatbot")
  .option("--policies <names>", "", "slos-serve,vllm,sarathi,edf,qoserve")
  .option("--replicas <list>", "", "1,4")
  .option("--rate <n>", "requests per second and replica", numberIn(1e-4, 10_000), 4)
  .option("--requests <n>", "of a run", wholeNumber(1, 1e7), 5000)
  .option("--rounds <n>", "runs of each, after one to warm up", wholeNumber(1, 1000), 5)
  .option("--speculate")
  .option("--json", "print JSON")
  .option("--out <file>", "write the JSON to a file")
  .parse()
  .opts<Options>()

function specOf(policy: PolicyName, replicas: number): RunSpec {
  const scenario = scenarioName(options.scenario)
  const hardware = HARDWARE[SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
  const ratePerSec = options.rate * replicas
  return {
    ...RUN_DEFAULTS,
    ...{ scenario, policy, hardware, replicas, ratePerSec },
    durationS: options.requests / ratePerSec,
    classes: readClasses(undefined),
    speculate: options.speculate === true,
    maxSequenceTokens: hardware.contextTokens - 1,
  }
}

const rows: Row[] = []
for (const name of options.policies.split(","))
  for (const replicas of options.replicas.split(",").map(wholeNumber(1, 1024)))
    rows.push(measure(specOf(policyName(name), replicas), options.rounds))
const json = JSON.stringify(rows, null, 2)
if (options.out !== undefined) writeFileSync(options.out, `${json}\n`)
if (options.json) console.log(json)
else console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(shown))))

function shown([name, value]: [string, unknown]): [string, unknown] {
  return [name, typeof value === "number" ? Number(value.toPrecision(4)) : value]
}
