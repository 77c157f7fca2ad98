/** What is kept of bursts by planners that must be one batch ahead (vLLM), with and without plans renewed for what has arrived, against
 * those that plan each batch when it begins, and rivals that need no plan: simulated engines, the same arrivals. A renewed plan costs what
 * its answer takes, and the engine waits meanwhile. */
import { writeFileSync } from "node:fs"
import Table from "cli-table3"
import { Command } from "commander"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { ReplicaConfig } from "../src/core/replica.ts"
import { type FleetOptions, simulateFleet } from "../src/sim/fleet.ts"
import { arrivalsOf, ENGINES, type Engine, truthOf } from "./engines.ts"

const { seeds, requests, noise, rates, only, answerUs, answers, learn, out } = new Command(
  "bench/in-flight.ts",
)
  .description("attainment with a batch planned ahead, and plans renewed for arrivals")
  .option("--seeds <n>", "arrivals of each rate", wholeNumber(1, 1000), 16)
  .option("--requests <n>", "requests of a run", wholeNumber(5, 1e5), 150)
  .option("--noise <percent>", "spread of step times", wholeNumber(0, 100), 10)
  .option(
    "--rates <list>",
    "of what the engine could compute, percent",
    listOf(["40", "55", "70", "85", "100"]),
    ["55", "85", "100"],
  )
  .option(
    "--answer-us <n>",
    "what a plan takes that is asked for in another's place",
    wholeNumber(1, 1e6),
    1000,
  )
  .option(
    "--answers <list>",
    "a plan is renewed that lasts so many answers",
    listOf(["1", "3", "5", "10", "20", "30"]),
    ["30"],
  )
  .option("--learn", "planners are not told what steps take: they begin with a guess")
  .option("--only <text>", "engines whose name has it")
  .option("--out <file>", "write rows as JSON")
  .parse()
  .opts<{
    seeds: number
    requests: number
    noise: number
    rates: string[]
    answerUs: number
    answers: string[]
    learn?: boolean
    only?: string
    out?: string
  }>()

interface System {
  name: string
  policy: PolicyName
  budget?: number
  depth: number
  /** Plans are renewed that last so many answers. */
  answers?: number
}

function systemsOf({ work }: Engine): System[] {
  const priorities = work.budgets.map(
    (budget): System => ({ name: "priority", policy: "vllm-priority", budget, depth: 1 }),
  )
  const renewed = (policy: PolicyName, name: string) =>
    answers.map(
      (text): System => ({ name: `${name}, renewed ${text}`, policy, depth: 2, answers: Number(text) }),
    )
  return [
    ...priorities,
    ...renewed("edf-drop", "edf-drop"),
    { name: "ours, depth 1", policy: "slos-serve", depth: 1 },
    { name: "ours, depth 2", policy: "slos-serve", depth: 2 },
    ...renewed("slos-serve", "ours"),
  ]
}

interface Row {
  engine: string
  percent: number
  seed: number
  system: string
  budget?: number
  kept: number
  of: number
  /** Of the class with the longest prompts. */
  keptLong: number
  ofLong: number
  steps: number
  renewed: number
}

function play(engine: Engine, percent: number, seed: number, system: System): Row {
  const { name, policy, budget, depth, answers } = system
  const cost = truthOf(engine)
  const config: ReplicaConfig = {
    ...{ limits: engine.work.limits, cost, policy, apps: 3, depth, engineOwnsKv: depth > 1 },
    ...(budget !== undefined && { options: { tokenBudget: budget } }),
  }
  const counts = { kept: 0, of: 0, keptLong: 0, ofLong: 0 }
  const options: FleetOptions = {
    ...{ replicas: [config], seed, noiseSigma: noise / 100 },
    requests: arrivalsOf(engine, percent / 100, { seed, requests }),
    ...(answers !== undefined && { renewal: { fromUs: answers * answerUs, answerUs } }),
    ...(learn && policy === "slos-serve" && { learnCost: { guess: engine.guess } }),
    onEffect: (effect) => {
      if (effect.type !== "finished") return
      const ok = effect.outcome.attained ? 1 : 0
      counts.of++
      counts.kept += ok
      if (effect.outcome.app !== engine.work.kinds.length - 1) return
      counts.ofLong++
      counts.keptLong += ok
    },
  }
  const { steps, renewed } = simulateFleet(options)
  const of = { engine: engine.name, percent, seed, system: name, ...(budget !== undefined && { budget }) }
  return { ...of, ...counts, steps, renewed }
}

const share = (rows: readonly Row[], kept: "kept" | "keptLong", of: "of" | "ofLong") =>
  (100 * rows.reduce((sum, row) => sum + row[kept], 0)) /
  Math.max(
    1,
    rows.reduce((sum, row) => sum + row[of], 0),
  )

/** Of several budgets the one that keeps most. */
function bestOf(rows: readonly Row[]): readonly Row[] {
  const budgets = [...new Set(rows.map(({ budget }) => budget))].map((budget) =>
    rows.filter((row) => row.budget === budget),
  )
  return budgets.reduce((a, b) => (share(b, "kept", "of") > share(a, "kept", "of") ? b : a))
}

const rows: Row[] = []
const names = [...new Set(ENGINES.flatMap(systemsOf).map(({ name }) => name))]
const table = new Table({ head: ["", "load", ...names], style: { head: [], border: [] } })
for (const engine of ENGINES.filter(({ name }) => only === undefined || name.includes(only)))
  for (const percent of rates.map(Number)) {
    const runs = systemsOf(engine).flatMap((system) =>
      Array.from({ length: seeds }, (_, seed) => play(engine, percent, seed + 1, system)),
    )
    rows.push(...runs)
    const cells = names.map((name) => {
      const best = bestOf(runs.filter(({ system }) => system === name))
      return `${share(best, "kept", "of").toFixed(1)} (${share(best, "keptLong", "ofLong").toFixed(0)})`
    })
    table.push([engine.name, `${percent}%`, ...cells])
  }
if (out !== undefined) writeFileSync(out, `[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`)
console.log(
  `${table.toString()}\nrequests in time, percent (of the longest prompts); ${seeds} × ${requests} requests, noise ${noise}%`,
)
