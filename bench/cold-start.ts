/** What it costs to begin with a wrong belief of step times, against rivals that need none: the first requests of an engine, by a planner
 * that is told what steps take, by planners that begin with a guess and learn, and by vLLM's own schedulers with their best budget, on the
 * same arrivals. Engines and requests are those of bench/vllm/attain.ts: bursts of three classes, objectives by the engine's own speed. */
import Table from "cli-table3"
import { wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { ReplicaConfig } from "../src/core/replica.ts"
import { type Coefficients, STEP_FEATURES } from "../src/fit/guess.ts"
import type { StepFitOptions } from "../src/fit/step-fit.ts"
import { simulateFleet } from "../src/sim/fleet.ts"
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
import { arrivalsOf, type Engine, truthOf } from "./engines.ts"

const OFF = 3

const options = burstCommand("bench/cold-start.ts", {
  ...{ seeds: 10, requests: 100, noise: 5, rates: ["30", "50", "70", "90"] },
})
  .description("the first requests of an engine whose step times are believed wrongly, or not known")
  .option("--depth <n>", "batches in flight of planned engines", wholeNumber(1, 4), 1)
  .parse()
  .opts<BurstOptions & { depth: number }>()
const { seeds, requests, noise, depth } = options

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

interface Row extends Played {
  engine: string
  percent: number
  system: string
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
for (const { engine, percent } of cellsOf(options)) {
  const systems = systemsOf(engine)
  const runs = systems.flatMap((system) =>
    Array.from({ length: seeds }, (_, seed) => play(engine, percent, seed + 1, system)),
  )
  rows.push(...runs)
  const of = (name: string) => bestOf(runs.filter(({ system }) => system === name))
  const cells = [...new Set(systems.map(({ name }) => name))].map((name) => {
    const best = of(name)
    const learns = systems.some((system) => system.name === name && system.guess !== undefined)
    const text = `${shareOf(best, "kept", "of").toFixed(1)} (${shareOf(best, "keptFirst", "ofFirst").toFixed(0)})`
    return learns ? `${text}\n${gainText(best, of("told"))}` : text
  })
  table.push([engine.name, `${percent}%`, ...cells])
}
writeRows(options.out, rows)
console.log(
  `${table.toString()}\nrequests in time, percent (of the first fifth), of those that learn against the one that is told; ` +
    `${seeds} × ${requests} requests, noise ${noise}%`,
)
