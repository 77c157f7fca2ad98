/** What it costs to begin with a wrong belief of step times, against rivals that need none: the first requests of an engine, by a planner
 * that is told what steps take, by planners that begin with a guess and learn, and by vLLM's own schedulers with their best budget, on the
 * same arrivals. Engines and requests are those of bench/vllm/attain.ts: bursts of three classes, objectives by the engine's own speed. */
import { writeFileSync } from "node:fs"
import Table from "cli-table3"
import { Command } from "commander"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import { type CostModel, shapeOf, stepUs } from "../src/core/cost.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { EngineLimits } from "../src/core/protocol.ts"
import type { ReplicaConfig } from "../src/core/replica.ts"
import { type Coefficients, CPU_GUESS, GPU_GUESS, LAYOUT, STEP_FEATURES } from "../src/fit/guess.ts"
import type { StepFitOptions } from "../src/fit/step-fit.ts"
import { Random } from "../src/random.ts"
import { type FleetOptions, simulateFleet } from "../src/sim/fleet.ts"

interface Engine {
  name: string
  /** What its device makes one guess. */
  guess: Coefficients
  pieces: CostModel["pieces"]
  work: Work
}
interface Kind {
  share: number
  prompt: number
  output: number
}
interface Work {
  kinds: readonly [chat: Kind, code: Kind, long: Kind]
  /** So many decode together where the engine is not idle. */
  decodes: number
  budgets: readonly number[]
  limits: EngineLimits
}

const LIMITS = { blockTokens: 32, minChunkTokens: 1, unifiedKv: true, cachedSequences: 0 }
const ON_CPU: Work = {
  kinds: [
    { share: 0.4, prompt: 64, output: 32 },
    { share: 0.4, prompt: 256, output: 16 },
    { share: 0.2, prompt: 512, output: 32 },
  ],
  decodes: 8,
  budgets: [64, 256, 2048],
  limits: { ...LIMITS, kvTokens: 32_768, maxSequences: 32, maxBatchTokens: 2048, contextTokens: 1024 },
}
const ON_GPU: Work = {
  kinds: [
    { share: 0.4, prompt: 512, output: 128 },
    { share: 0.4, prompt: 2048, output: 64 },
    { share: 0.2, prompt: 6144, output: 128 },
  ],
  decodes: 64,
  budgets: [512, 2048, 8192],
  limits: { ...LIMITS, kvTokens: 400_000, maxSequences: 256, maxBatchTokens: 8192, contextTokens: 8192 },
}
/** Processors: as measured of vLLM 0.32 (bench/results/vllm/first). GPUs: weights read once, arithmetic from some size on. */
const ENGINES: readonly Engine[] = [
  {
    ...{ name: "tiny on a core", guess: CPU_GUESS, work: ON_CPU },
    pieces: [{ step: 12_400, tokens: 225, sequences: 380, fastPairs: 0.02, slowPairs: 0.05 }],
  },
  {
    ...{ name: "SmolLM2 on a core", guess: CPU_GUESS, work: ON_CPU },
    pieces: [{ step: 60_000, tokens: 3400, sequences: 3200, fastPairs: 0.9, slowPairs: 1 }],
  },
  {
    ...{ name: "8B on a fast GPU", guess: GPU_GUESS, work: ON_GPU },
    pieces: [
      { step: 9000, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
      { step: 1000, tokens: 25, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
    ],
  },
  {
    ...{ name: "1B on a fast GPU", guess: GPU_GUESS, work: ON_GPU },
    pieces: [{ step: 3000, tokens: 4, sequences: 8, slowPairs: 0.005, fastPairs: 0.0003 }],
  },
  {
    ...{ name: "32B on older GPUs", guess: GPU_GUESS, work: ON_GPU },
    pieces: [{ step: 45_130, tokens: 105 }],
  },
]
const BURSTINESS = 0.35
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

const truthOf = ({ pieces }: Engine): CostModel => ({ pieces: [...pieces], residualSigma: 0.05, ...LAYOUT })

/** Alone, µs: a prompt of so many tokens, and a step of the usual decodes. */
function speedOf(engine: Engine) {
  const cost = truthOf(engine)
  const time = (items: Parameters<typeof shapeOf>[0]) => stepUs(cost, shapeOf(items, cost))
  const promptUs = (tokens: number) => time([{ position: 0, tokens, sample: true, draft: 0 }])
  const decode = { position: 24, tokens: 1, sample: true, draft: 0 }
  return { promptUs, decodeUs: time(Array.from({ length: engine.work.decodes }, () => decode)) }
}

/** As bench/vllm/workload.py. */
function objectivesOf(engine: Engine): { ttftUs: number; tpotUs: number }[] {
  const { promptUs, decodeUs } = speedOf(engine)
  const [chat, code, long] = engine.work.kinds.map(({ prompt }) => promptUs(prompt)) as [
    number,
    number,
    number,
  ]
  return [
    { ttftUs: Math.max(6 * chat, 12 * decodeUs), tpotUs: 4 * decodeUs },
    { ttftUs: 4 * code + 6 * decodeUs, tpotUs: 6 * decodeUs },
    { ttftUs: 6 * long, tpotUs: 5 * decodeUs },
  ].map(({ ttftUs, tpotUs }) => ({ ttftUs: Math.round(ttftUs), tpotUs: Math.round(tpotUs) }))
}

function ratePerUs(engine: Engine): number {
  const { promptUs, decodeUs } = speedOf(engine)
  const { kinds, decodes } = engine.work
  const each = kinds.reduce(
    (sum, { share, prompt, output }) => sum + share * (promptUs(prompt) + (output * decodeUs) / decodes),
    0,
  )
  return 1 / each
}

function arrivalsOf(engine: Engine, relative: number, seed: number): FleetOptions["requests"] {
  const random = new Random("cold-start", engine.name, seed)
  const objectives = objectivesOf(engine)
  const meanUs = 1 / (relative * ratePerUs(engine))
  let atUs = 0
  return Array.from({ length: requests }, (_, id) => {
    atUs += (random.gamma(BURSTINESS) / BURSTINESS) * meanUs
    const drawn = random.uniform()
    const app = drawn < 0.4 ? 0 : drawn < 0.8 ? 1 : 2
    const { prompt, output } = engine.work.kinds[app]!
    const slo = {
      ...objectives[app]!,
      ttftSlowdown: 0,
      thinkingTpotUs: objectives[app]!.tpotUs,
      maxGapUs: Infinity,
    }
    return {
      ...{ atUs: Math.round(atUs), outputTokens: output, thinkingTokens: 0 },
      spec: {
        id,
        app,
        session: -1,
        promptTokens: prompt,
        maxOutputTokens: output,
        prefix: [],
        slo,
        tier: "slo" as const,
        thinking: false,
      },
    }
  })
}

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
  const all = arrivalsOf(engine, percent / 100, seed)
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
