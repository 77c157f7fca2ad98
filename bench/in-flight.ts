/** What is kept of bursts by planners that must be one batch ahead (vLLM), with and without plans renewed for what has arrived, against
 * those that plan each batch when it begins, and rivals that need no plan: simulated engines, the same arrivals. A renewed plan costs what
 * its answer takes, and the engine waits meanwhile. */
import Table from "cli-table3"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { ReplicaConfig } from "../src/core/replica.ts"
import { type FleetOptions, simulateFleet } from "../src/sim/fleet.ts"
import {
  type BurstOptions,
  bestOf,
  burstCommand,
  cellsOf,
  gainText,
  type Played,
  shareOf,
  writeRows,
} from "./bursts.ts"
import { arrivalsOf, ENGINES, type Engine, truthOf } from "./engines.ts"

const options = burstCommand("bench/in-flight.ts", {
  ...{ seeds: 16, requests: 150, noise: 10, rates: ["55", "85", "100"] },
})
  .description("attainment with a batch planned ahead, and plans renewed for arrivals")
  .option(
    "--answer-us <n>",
    "what a plan takes that is asked for in another's place",
    wholeNumber(1, 1e6),
    1000,
  )
  .option(
    "--answers <list>",
    "a plan may be renewed that lasts so many answers",
    listOf(["1", "3", "5", "10", "20", "30"]),
    ["10"],
  )
  .option("--learn", "planners are not told what steps take: they begin with a guess")
  .parse()
  .opts<BurstOptions & { answerUs: number; answers: string[]; learn?: boolean }>()
const { seeds, requests, noise, answerUs, answers, learn } = options

interface System {
  name: string
  policy: PolicyName
  budget?: number
  depth: number
  /** Plans may be renewed that last so many answers. */
  answers?: number
}

const renewalFrom = (from: number) => ({ fromUs: from * answerUs, answerUs })

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

interface Row extends Played {
  engine: string
  percent: number
  system: string
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
  const fleet: FleetOptions = {
    ...{ replicas: [config], seed, noiseSigma: noise / 100 },
    requests: arrivalsOf(engine, percent / 100, { seed, requests }),
    ...(answers !== undefined && { renewal: renewalFrom(answers) }),
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
  const { steps, renewed } = simulateFleet(fleet)
  const of = { engine: engine.name, percent, seed, system: name, ...(budget !== undefined && { budget }) }
  return { ...of, ...counts, steps, renewed }
}

const AHEAD = "ours, depth 2"

const rows: Row[] = []
const names = [...new Set(ENGINES.flatMap(systemsOf).map(({ name }) => name))]
const table = new Table({ head: ["", "load", ...names], style: { head: [], border: [] } })
for (const { engine, percent } of cellsOf(options)) {
  const runs = systemsOf(engine).flatMap((system) =>
    Array.from({ length: seeds }, (_, seed) => play(engine, percent, seed + 1, system)),
  )
  rows.push(...runs)
  const of = (name: string) => bestOf(runs.filter(({ system }) => system === name))
  const cells = names.map((name) => {
    const best = of(name)
    const text = `${shareOf(best, "kept", "of").toFixed(1)} (${shareOf(best, "keptLong", "ofLong").toFixed(0)})`
    return name === AHEAD ? text : `${text}\n${gainText(best, of(AHEAD))}`
  })
  table.push([engine.name, `${percent}%`, ...cells])
}
writeRows(options.out, rows)
console.log(
  `${table.toString()}\nrequests in time, percent (of the longest prompts), and against ${AHEAD}; ` +
    `${seeds} × ${requests} requests, noise ${noise}%`,
)
