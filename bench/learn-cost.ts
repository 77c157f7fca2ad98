/** What it costs not to know step times beforehand: planners that begin with a slow guess of a GPU and learn from their own steps,
 * against planners that are told, on the same arrivals. Requests count from the first one on. */
import Table from "cli-table3"
import { Command } from "commander"
import { wholeNumber } from "../src/cli/numbers.ts"
import { classesOf } from "../src/cli/study-options.ts"
import type { CudaGraphs } from "../src/core/graphs.ts"
import { HARDWARE, type Hardware } from "../src/sim/presets.ts"
import { runScenario } from "../src/study/run.ts"
import { RUN_DEFAULTS, type RunSpec } from "../src/study/spec.ts"
import { gainText, type Played, shareOf, writeRows } from "./bursts.ts"

/** What the planner is told of step times: all, nothing, or all but that the engine has CUDA graphs. */
type Knows = "told" | "learns" | "blind"

interface Case {
  hardware: string
  scenario: string
  rates: readonly number[]
  /** Steps are padded to graphs as vLLM's are by default, which no published fit has: assumed. */
  graphs?: boolean
}
interface Row extends Played {
  hardware: string
  scenario: string
  rate: number
  knows: Knows
  /** Of the first fortieth of the requests: while the guess still counts. */
  keptFirst: number
  ofFirst: number
}

const CASES: readonly Case[] = [
  { hardware: "opt-6.7b-a100", scenario: "chatbot", rates: [4, 7, 10] },
  { hardware: "opt-6.7b-a100", scenario: "mixed", rates: [2, 3] },
  { hardware: "opt-6.7b-a100", scenario: "chatbot", rates: [4, 7], graphs: true },
  { hardware: "r1-distill-qwen-7b-a100", scenario: "reasoning", rates: [3], graphs: true },
  { hardware: "r1-distill-qwen-7b-a100", scenario: "reasoning", rates: [1, 2, 3] },
  { hardware: "qwen2.5-32b-4xa100", scenario: "chatbot", rates: [4, 7, 10] },
]
const GRAPHS: CudaGraphs = {
  sizes: [
    1,
    2,
    4,
    ...Array.from({ length: 31 }, (_, i) => 8 * (i + 1)),
    ...Array.from({ length: 17 }, (_, i) => 256 + 16 * i),
  ],
  ...{ decodes: "full", mixed: "piecewise", decodeTokens: 1, piecewiseUs: 3000, eagerUs: 6000 },
}

const { seeds, requests, noise, onlyGraphs, out } = new Command("bench/learn-cost.ts")
  .description("attainment with step times learnt from a guess on, against known ones")
  .option("--seeds <n>", "arrivals of each rate", wholeNumber(1, 1000), 3)
  .option("--requests <n>", "requests of a run", wholeNumber(10, 1e5), 600)
  .option("--noise <percent>", "spread of step times", wholeNumber(0, 100), 5)
  .option("--only-graphs", "only engines with CUDA graphs")
  .option("--out <file>", "write rows as JSON")
  .parse()
  .opts<{ seeds: number; requests: number; noise: number; onlyGraphs?: boolean; out?: string }>()

function specOf({ hardware, scenario, graphs }: Case, rate: number, seed: number, knows: Knows): RunSpec {
  const preset = HARDWARE[hardware]!
  const truth = graphs ? { ...preset.cost, graphs: GRAPHS } : preset.cost
  const used: Hardware = knows === "blind" ? preset : { ...preset, cost: truth }
  return {
    ...RUN_DEFAULTS,
    ...{ scenario, policy: "slos-serve", hardware: used, ratePerSec: rate, durationS: requests / rate, seed },
    ...{ leadIn: 0, noiseSigma: noise / 100, learnCost: knows === "learns", truth },
    classes: classesOf({ tpotScale: 1 }),
    maxSequenceTokens: preset.contextTokens - 1,
  }
}

function play(one: Case, rate: number, seed: number, knows: Knows): Row {
  const spec = specOf(one, rate, seed, knows)
  const first: { kept: number; of: number } = { kept: 0, of: 0 }
  const { attainment } = runScenario(spec, {
    onEffect: (effect) => {
      if (effect.type !== "finished" || effect.outcome.arrivalUs > spec.durationS * 1e6 * 0.025) return
      first.of++
      if (effect.outcome.attained) first.kept++
    },
  })
  return {
    ...{ hardware: one.hardware + (one.graphs ? " with graphs" : ""), scenario: one.scenario, rate, seed },
    ...{ knows, kept: attainment.attained, of: attainment.total },
    ...{ keptFirst: first.kept, ofFirst: first.of },
  }
}

const rows: Row[] = []
const table = new Table({
  head: [
    "",
    "rate/s",
    "told",
    "learns",
    "against told",
    "first, told",
    "first, learns",
    "not told of graphs",
  ],
  style: { head: [], border: [] },
})
for (const one of CASES.filter(({ graphs }) => graphs === true || !onlyGraphs))
  for (const rate of one.rates) {
    const ways: Knows[] = one.graphs ? ["told", "learns", "blind"] : ["told", "learns"]
    const runs = Array.from({ length: seeds }, (_, seed) =>
      ways.map((knows) => play(one, rate, seed + 1, knows)),
    ).flat()
    rows.push(...runs)
    const of = (knows: Knows) => runs.filter((run) => run.knows === knows)
    const share = (knows: Knows) => `${shareOf(of(knows), "kept", "of").toFixed(1)}%`
    const first = (knows: Knows) => `${shareOf(of(knows), "keptFirst", "ofFirst").toFixed(1)}%`
    table.push([
      ...[`${runs[0]!.scenario} on ${runs[0]!.hardware}`, rate, share("told"), share("learns")],
      ...[gainText(of("learns"), of("told")), first("told"), first("learns")],
      one.graphs ? share("blind") : "",
    ])
  }
writeRows(out, rows)
console.log(`${table.toString()}\n${seeds} seeds, ${requests} requests each, noise ${noise}%`)
