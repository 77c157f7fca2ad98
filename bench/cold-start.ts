/** What it costs to begin with a wrong belief of step times, against rivals that need none: the first requests of an engine, by a planner
 * that is told what steps take, by planners that begin with a guess and learn, and by vLLM's own schedulers with their best budget, on the
 * same arrivals. Engines and requests are those of bench/vllm/attain.ts: bursts of three classes, objectives by the engine's own speed. */
import { writeFileSync } from "node:fs"
import Table from "cli-table3"
import { Command } from "commander"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { ReplicaConfig } from "../src/core/replica.ts"
import { type Coefficients, STEP_FEATURES } from "../src/fit/guess.ts"
import type { StepFitOptions } from "../src/fit/step-fit.ts"
import { simulateFleet } from "../src/sim/fleet.ts"
import { arrivalsOf, ENGINES, type Engine, truthOf } from "./engines.ts"

const OFF = 3

const { seeds, requests, noise, rates, depth, only, out } = new Command("bench/cold-start.ts")
  .description("the first requests of an engine whose step times are believed wrongly, or not known")
  .option("--seeds <n>", "arrivals of each rate", wholeNumber(1, 1000), 10)
  .option("--requests <n>", "requests of a run", wholeNumber(5, 1e5), 100)
  .option("--noise <percent>", "spread of step times", wholeNumber(0, 100), 5)
  .option(
    "--rates <list>",
    "of what the engine could compute, percent",
    listOf(["20", "30", "50", "70", "90", "110"]),
    ["30", "50", "70", "90"],
  )
  .option("--depth <n>", "batches in flight of planned engines", wholeNumber(1, 4), 1)
  .option("--only <text>", "engines whose name has it")
  .option("--out <file>", "write rows as JSON")
  .parse()
  .opts<{
    seeds: number
    requests: number
    noise: number
    rates: string[]
    depth: number
    only?: string
    out?: string
  }>()

interface System {
  name: string
  policy: PolicyName
  budget?: number
  guess?: Coefficients
}

function scaled(engine: Engine, factor: number): Coefficients {
  const piece = engine.pieces[0] as Record<string, number>
  const last = engine.pieces.at(-1) as Record<string, number>
  const none = {
    step: 0,
    tokens: 0,
    sequences: 0,
    fastPairs: 0,
    slowPairs: 0,
    specSteps: 0,
    piecewise: 0,
    eager: 0,
  }
  const found = STEP_FEATURES.map((feature) => [
    feature,
    factor * Math.max(piece[feature] ?? 0, last[feature] ?? 0, 1e-4),
  ])
  return { ...none, ...Object.fromEntries(found) }
}

function systemsOf(engine: Engine): System[] {
  const rivals = (["vllm", "vllm-priority"] as const).flatMap((policy) =>
    engine.work.budgets.map((budget): System => ({ name: policy, policy, budget })),
  )
  const policy = "slos-serve" as const
  return [
    ...rivals,
    { name: "edf-drop told", policy: "edf-drop" },
    { name: "told", policy },
    { name: "guess", policy, guess: engine.guess },
    { name: `${OFF}x dear`, policy, guess: scaled(engine, OFF) },
    { name: `${OFF}x cheap`, policy, guess: scaled(engine, 1 / OFF) },
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
  keptFirst: number
  ofFirst: number
}

function play(engine: Engine, percent: number, seed: number, { name, policy, budget, guess }: System): Row {
  const cost = truthOf(engine)
  const config: ReplicaConfig = {
    ...{ limits: engine.work.limits, cost, policy, apps: 3 },
    ...(budget !== undefined && { options: { tokenBudget: budget } }),
    ...(policy === "slos-serve" && depth > 1 && { depth }),
  }
  const learnCost: StepFitOptions | undefined = guess && { guess }
  const all = arrivalsOf(engine, percent / 100, { seed, requests })
  const first = Math.ceil(requests / 5)
  const row = {
    engine: engine.name,
    percent,
    seed,
    system: name,
    ...(budget && { budget }),
    kept: 0,
    of: 0,
    keptFirst: 0,
    ofFirst: 0,
  }
  simulateFleet({
    ...{ replicas: [config], truth: cost, requests: all, seed, noiseSigma: noise / 100 },
    ...(learnCost && { learnCost }),
    onEffect: (effect) => {
      if (effect.type !== "finished") return
      const ok = effect.outcome.attained ? 1 : 0
      row.of++
      row.kept += ok
      if (effect.id >= first) return
      row.ofFirst++
      row.keptFirst += ok
    },
  })
  return row
}

const rows: Row[] = []
const head = ["", "load", "FCFS", "priority", "edf-drop", "told", "guess", `${OFF}x dear`, `${OFF}x cheap`]
const table = new Table({ head, style: { head: [], border: [] } })
for (const engine of ENGINES.filter(({ name }) => only === undefined || name.includes(only)))
  for (const percent of rates.map(Number)) {
    const systems = systemsOf(engine)
    const runs = systems.flatMap((system) =>
      Array.from({ length: seeds }, (_, seed) => play(engine, percent, seed + 1, system)),
    )
    rows.push(...runs)
    const share = (those: Row[], kept: "kept" | "keptFirst", of: "of" | "ofFirst") =>
      (100 * those.reduce((sum, row) => sum + row[kept], 0)) /
      Math.max(
        1,
        those.reduce((sum, row) => sum + row[of], 0),
      )
    const cells = [...new Set(systems.map(({ name }) => name))].map((name) => {
      const budgets = [...new Set(runs.filter(({ system }) => system === name).map(({ budget }) => budget))]
      const ways = budgets.map((budget) => runs.filter((row) => row.system === name && row.budget === budget))
      const best = ways.reduce((a, b) => (share(b, "kept", "of") > share(a, "kept", "of") ? b : a))
      return `${share(best, "kept", "of").toFixed(1)} (${share(best, "keptFirst", "ofFirst").toFixed(0)})`
    })
    table.push([engine.name, `${percent}%`, ...cells])
  }
if (out !== undefined) writeFileSync(out, `[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`)
console.log(
  `${table.toString()}\nrequests in time, percent (of the first fifth); ${seeds} × ${requests} requests, noise ${noise}%`,
)
