/** What a second batch in flight could win, and what it costs. Win: between two steps of the embedded engine the driver turns
 * tokens into text and plans; with the next batch at hand the engine would go on at once (an upper bound: nothing is taken off
 * for it). Cost: planned ahead, a batch cannot wait for arrivals; simulated, on the same arrivals, step times known to 5%. */
import { writeFileSync } from "node:fs"
import Table from "cli-table3"
import { Command } from "commander"
import { mean, median, quantile } from "simple-statistics"
import { wholeNumber } from "../src/cli/numbers.ts"
import { classesOf } from "../src/cli/study-options.ts"
import type { CostModel } from "../src/core/cost.ts"
import { fakeEngine } from "../src/engine/fake/engine.ts"
import { type Engine, GREEDY } from "../src/engine/port.ts"
import { ReplicaDriver } from "../src/replica/driver.ts"
import { HARDWARE } from "../src/sim/presets.ts"
import { runScenario } from "../src/study/run.ts"
import { RUN_DEFAULTS } from "../src/study/spec.ts"
import { Answer } from "../src/text/answer.ts"

const { seconds, seeds, out } = new Command("bench/depth.ts")
  .description("a second batch in flight: the most that it could win, and what it costs")
  .option("--seconds <n>", "of decoding at each size", wholeNumber(1, 600), 5)
  .option("--seeds <n>", "arrival windows of each simulated rate", wholeNumber(1, 1000), 3)
  .option("--out <file>", "write rows as JSON")
  .parse()
  .opts<{ seconds: number; seeds: number; out?: string }>()

interface Gap {
  sequences: number
  stepMs: number
  /** From the end of a step to the beginning of the next, ms. */
  p50: number
  p99: number
  /** More steps a second, had the engine never waited, percent. */
  mostPercent: number
}

const SIZES = [
  { sequences: 16, stepMs: 10 },
  { sequences: 64, stepMs: 10 },
  { sequences: 64, stepMs: 30 },
  { sequences: 256, stepMs: 30 },
]

/** Decodes of so many streams on an engine whose steps sleep. */
async function gapsOf({ sequences, stepMs }: (typeof SIZES)[number]): Promise<Gap> {
  const steps = Math.ceil((1000 * seconds) / stepMs)
  const cost: CostModel = {
    ...{
      pieces: [{ step: 1000 * stepMs, tokens: 1 }],
      residualSigma: 0.05,
      fastPassTokens: 1,
      unifiedKv: true,
    },
  }
  const contextTokens = steps + 64
  const engine = timed(
    fakeEngine({
      ...{ cost, time: "real" },
      limits: {
        ...{
          kvTokens: sequences * contextTokens,
          blockTokens: 16,
          maxSequences: sequences,
          minChunkTokens: 1,
        },
        ...{ maxBatchTokens: 16 * sequences, contextTokens, unifiedKv: true },
      },
    }),
    sequences,
  )
  const driver = new ReplicaDriver({
    engine,
    config: { limits: engine.limits, cost, policy: "slos-serve", apps: 1 },
  })
  await Promise.all(Array.from({ length: sequences }, () => stream(driver, engine, steps)))
  await driver.close()
  const gaps = engine.gapsMs.slice(10)
  const row = { sequences, stepMs, p50: median(gaps), p99: quantile(gaps, 0.99) }
  return { ...row, mostPercent: (100 * mean(gaps)) / mean(engine.stepsMs) }
}

/** The same engine, and how long it waited between two steps that all streams were in. */
function timed(engine: Engine, sequences: number): Engine & { gapsMs: number[]; stepsMs: number[] } {
  const gapsMs: number[] = []
  const stepsMs: number[] = []
  let endedMs = -1
  const execute: Engine["execute"] = async (batch) => {
    const beganMs = performance.now()
    const full = batch.items.length === sequences
    if (full && endedMs >= 0) gapsMs.push(beganMs - endedMs)
    const output = await engine.execute(batch)
    endedMs = full ? performance.now() : -1
    if (full) stepsMs.push(endedMs - beganMs)
    return output
  }
  const { model, limits, tokenizer, constraints } = engine
  const rest = { open: engine.open.bind(engine), close: engine.close.bind(engine) }
  return { model, limits, tokenizer, constraints, ...rest, execute, gapsMs, stepsMs }
}

/** One stream to its end, its deltas formatted as for a client. */
function stream(driver: ReplicaDriver, engine: Engine, tokens: number): Promise<void> {
  return new Promise((resolve) => {
    const prompt = Int32Array.from({ length: 16 }, (_, i) => 40 + i)
    const sink = { delta: (delta: object) => void JSON.stringify(delta), end: () => {} }
    const answer = new Answer(engine.tokenizer, sink, {
      ...{ promptTokens: prompt.length, thinking: false, thinkingTokens: null },
      text: { stops: [], think: null, calls: null },
    })
    driver.submit({
      ...{ app: 0, session: -1, prompt, prefix: [], maxOutputTokens: tokens, sampling: GREEDY },
      slo: { ttftUs: 600e6, ttftSlowdown: 0, tpotUs: 100e3, thinkingTpotUs: 1e6, maxGapUs: Infinity },
      ...{ tier: "slo", thinking: false, onTokens: (row) => answer.onTokens(row) },
      onEnd: (end) => {
        answer.onEnd(end)
        resolve()
      },
    })
  })
}

interface Attained {
  scenario: string
  rate: number
  depth: number
  percent: number
}

const RATES = [
  { scenario: "chatbot", rates: [4, 7, 10] },
  { scenario: "coder", rates: [2, 3] },
]

function attained(scenario: string, rate: number, depth: number): Attained {
  const hardware = HARDWARE["opt-6.7b-a100"]!
  const shares = Array.from({ length: seeds }, (_, seed) => {
    const { attainment } = runScenario({
      ...{
        ...RUN_DEFAULTS,
        scenario,
        policy: "slos-serve",
        hardware,
        ratePerSec: rate,
        seed: seed + 1,
        depth,
      },
      ...{
        durationS: 300 / rate,
        classes: classesOf({ tpotScale: 1 }),
        maxSequenceTokens: hardware.contextTokens - 1,
      },
    })
    return attainment.attained / attainment.total
  })
  return { scenario, rate, depth, percent: 100 * mean(shares) }
}

const gaps: Gap[] = []
for (const size of SIZES) gaps.push(await gapsOf(size))
const lost = RATES.flatMap(({ scenario, rates }) =>
  rates.flatMap((rate) => [1, 2, 3].map((depth) => attained(scenario, rate, depth))),
)
if (out !== undefined) writeFileSync(out, `${JSON.stringify({ gaps, lost }, null, 1)}\n`)

const won = new Table({ head: ["streams", "step ms", "between steps p50", "p99 ms", "most to win"] })
for (const { sequences, stepMs, p50, p99, mostPercent } of gaps)
  won.push([sequences, stepMs, p50.toFixed(3), p99.toFixed(3), `${mostPercent.toFixed(1)}%`])
console.log(won.toString())
const kept = new Table({ head: ["scenario", "requests/s", "depth 1", "depth 2", "depth 3"] })
for (const { scenario, rates } of RATES)
  for (const rate of rates) {
    const row = lost.filter((one) => one.scenario === scenario && one.rate === rate)
    kept.push([scenario, rate, ...row.map(({ percent }) => `${percent.toFixed(1)}%`)])
  }
console.log(kept.toString())
