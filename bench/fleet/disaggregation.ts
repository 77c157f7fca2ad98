/** Prefill and decode apart or together, at equal hardware: capacity per GPU of our planner on whole replicas, of our planner
 * with offers on both sides, without them, and of DistServe, each with every split tried. Virtual time. Results are kept one
 * by one, so that it goes on where it stopped. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { readClasses } from "../../src/load/classes.ts"
import { HARDWARE, SCENARIO_HARDWARE } from "../../src/sim/presets.ts"
import { runTasks } from "../../src/study/pool.ts"
import { RUN_DEFAULTS, type RunSpec, type Split } from "../../src/study/spec.ts"
import { splits } from "../../src/study/systems.ts"

const { values } = parseArgs({
  options: {
    scenarios: { type: "string", default: "chatbot,coder,summarizer" },
    replicas: { type: "string", default: "4" },
    seeds: { type: "string", default: "2" },
    span: { type: "string", default: "60" },
    out: { type: "string", default: "bench/results/fleet" },
  },
})
const REPLICAS = Number(values.replicas)
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1)
/** Requests/s of one replica near which a search begins. */
const GUESS: Readonly<Record<string, number>> = { chatbot: 7, coder: 5, summarizer: 1.5 }

interface Cell {
  scenario: string
  system: string
  split: Split | null
}
interface Row extends Cell {
  perGpu: number
  seeds: number[]
}

const SPLITS = splits(REPLICAS).map(({ change }) => change.split!)
const CELLS = values.scenarios.split(",").flatMap((scenario): Cell[] => [
  { scenario, system: "together", split: null },
  ...SPLITS.flatMap((split) => [
    { scenario, system: "apart, offers", split: { ...split, offers: true } },
    { scenario, system: "apart", split },
    { scenario, system: "DistServe", split },
  ]),
])

function baseOf({ scenario, system, split }: Cell): RunSpec {
  const hardware = HARDWARE[SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
  return {
    ...RUN_DEFAULTS,
    ...{ scenario, hardware, split, replicas: REPLICAS, ratePerSec: 1, durationS: 1 },
    policy: system === "DistServe" ? "vllm-prefill-first" : "slos-serve",
    ...(system === "DistServe" && { options: { tokenBudget: 2048 } }),
    classes: readClasses(undefined),
    maxSequenceTokens: hardware.contextTokens - 1,
  }
}

const path = `${values.out}/disaggregation.json`
const keyOf = ({ scenario, system, split }: Cell) => JSON.stringify([scenario, system, split])

function known(): Map<string, Row> {
  try {
    return new Map((JSON.parse(readFileSync(path, "utf8")) as Row[]).map((row) => [keyOf(row), row]))
  } catch {
    return new Map()
  }
}

mkdirSync(values.out, { recursive: true })
const rows = known()
for (const cell of CELLS) {
  if (rows.has(keyOf(cell))) continue
  const task = {
    ...{ kind: "capacity" as const, system: "slos-serve", base: baseOf(cell), fixed: true, spread: true },
    ...{
      size: { requests: 1000, spanS: Number(values.span) },
      tuneSeeds: [],
      seeds: SEEDS,
      speculate: [false],
    },
    guess: (GUESS[cell.scenario] ?? 4) * REPLICAS * (cell.split === null ? 1 : 0.6),
  }
  // The policy of a fixed task is its system's.
  if (cell.system === "DistServe") task.system = "distserve"
  const [results] = await runTasks([task], { workers: 0 })
  const { ratePerSec, perSeed } = results![0]!
  const perGpu = (rate: number) => Number((rate / REPLICAS).toPrecision(4))
  rows.set(keyOf(cell), { ...cell, perGpu: perGpu(ratePerSec), seeds: perSeed.map(perGpu) })
  writeFileSync(path, `${JSON.stringify([...rows.values()], null, 1)}\n`)
  const split = cell.split === null ? "" : ` ${cell.split.prefill}:${cell.split.decode}`
  console.log(
    `${cell.scenario}, ${cell.system}${split}: ${perGpu(ratePerSec)}/s a GPU (${perSeed.map(perGpu)})`,
  )
}
