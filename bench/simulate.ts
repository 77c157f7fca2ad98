/** The real benchmark's workload on virtual time: attainment against rate per policy, for tuning and to see how
 * far simulation is from the real engine. Same plans, same classes, a cost model from a profile. */
import { readFileSync } from "node:fs"
import { Command } from "commander"
import { mean } from "simple-statistics"
import type { CostModel } from "../src/core/cost.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import type { PolicyOptions } from "../src/core/policy/policy.ts"
import type { EngineLimits, RequestId } from "../src/core/types.ts"
import { readClasses, roundSlo } from "../src/load/classes.ts"
import type { PlannedRequest } from "../src/load/plan.ts"
import { readTrace, type Trace } from "../src/load/trace.ts"
import { type AppName, makePlan } from "../src/load/workload.ts"
import { Random } from "../src/random.ts"
import { type SimRequest, simulate } from "../src/sim/simulate.ts"
import { analyse, type Interval, type Point } from "./real/statistics.ts"

const APPS = ["chat", "code", "summarize", "reasoning", "tools"]

interface Result {
  attained: number
  total: number
  byApp: Map<string, [attained: number, total: number]>
}

/** Where a simulated round stands in its session. */
interface Played {
  planned: PlannedRequest
  round: number
  history: number
  session: number
  ok: boolean
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

const profile = JSON.parse(readFileSync(options.profile, "utf8")) as { model: CostModel }
const cost = profile.model
const limits: EngineLimits = {
  kvTokens: Number(options.slots) * 1024,
  blockTokens: 16,
  maxSequences: Number(options.slots),
  maxBatchTokens: 512,
  contextTokens: 1024,
  minChunkTokens: cost.fastPassTokens,
  unifiedKv: cost.unifiedKv,
}
const classes = readClasses(options.classes)
for (const slo of Object.values(classes)) {
  if (slo.tpotMs) slo.tpotMs *= Number(options.tpotScale)
  if (slo.thinkingTpotMs) slo.thinkingTpotMs *= Number(options.tpotScale)
}
const traces: Partial<Record<AppName, Trace>> = {}
for (const entry of options.trace as string[]) {
  const [app, file] = entry.split("=") as [AppName, string]
  traces[app] = readTrace(file)
}
const policyOptions = Object.fromEntries(
  (options.set as string[]).map((entry) => {
    const [name, value] = entry.split("=") as [string, string]
    return [name, Number.isNaN(Number(value)) ? value : Number(value)]
  }),
) as Partial<PolicyOptions>

function run(policy: PolicyName, ratePerSec: number, seed: number): Result {
  const plan = makePlan({
    scenario: options.scenario,
    ratePerSec,
    durationMs: Number(options.duration) * 1000,
    seed,
    scale: Number(options.scale),
    arrivals: options.arrivals,
    burstiness: Number(options.burstiness),
    maxSequenceTokens: 1023,
    traces,
  })
  let nextId = 0
  const sessions = new Map<RequestId, Played>()
  const requestOf = (
    planned: PlannedRequest,
    index: number,
    history: number,
    atUs: number,
    session: number,
  ): SimRequest => {
    const round = planned.rounds[index]!
    const promptTokens = history + round.promptTokens
    const zeroLoad = { ms: Number(options.zeroLoadMs), msPerToken: Number(options.zeroLoadPrefillMsPerToken) }
    const slo = roundSlo(round, promptTokens, classes, zeroLoad)
    const id = nextId++
    sessions.set(id, { planned, round: index, history: promptTokens + round.outputTokens, ok: true, session })
    return {
      atUs: Math.round(atUs),
      outputTokens: round.outputTokens,
      thinkingTokens: round.thinkingTokens,
      spec: {
        id,
        app: APPS.indexOf(planned.app),
        session,
        promptTokens,
        maxOutputTokens: round.outputTokens,
        prefix: Array.from({ length: Math.floor(promptTokens / 16) }, (_, i) => session * 100_000 + i),
        slo: {
          ttftUs: slo.ttftMs * 1000,
          ttftSlowdown: 0,
          tpotUs: slo.tpotMs * 1000,
          thinkingTpotUs: slo.thinkingTpotMs * 1000,
        },
        tier: "slo",
        thinking: round.thinkingTokens > 0,
      },
    }
  }
  const random = new Random(seed + 1000)
  const sigma = Number(options.noise)
  const byApp = new Map<string, [number, number]>(APPS.map((app) => [app, [0, 0]]))
  simulate({
    config: { limits, cost, policy, apps: APPS.length, options: policyOptions },
    requests: plan.requests.map((planned, i) => requestOf(planned, 0, 0, planned.atMs * 1000, i)),
    noise: () => Math.exp(sigma * random.normal()),
    onEffect: (effect) => {
      if (effect.type !== "finished") return
      const state = sessions.get(effect.id)!
      state.ok &&= effect.outcome.attained
      if (state.round < state.planned.rounds.length - 1) return
      const counts = byApp.get(state.planned.app)!
      counts[0] += state.ok ? 1 : 0
      counts[1]++
    },
    follow: (id, nowUs) => {
      const { planned, round, history, ok, session } = sessions.get(id)!
      const next = planned.rounds[round + 1]
      if (next === undefined) return null
      const request = requestOf(planned, round + 1, history, nowUs + next.delayMs * 1000, session)
      sessions.get(request.spec.id)!.ok = ok
      return request
    },
  })
  let [attained, total] = [0, 0]
  for (const [a, t] of byApp.values()) {
    attained += a
    total += t
  }
  return { attained, total, byApp }
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
      const sum = (index: 0 | 1) => runs.reduce((total, r) => total + r.byApp.get(app)![index], 0)
      return sum(0) / Math.max(1, sum(1))
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
