/** Overhead of our loop over the bare engine: decode steps of 32 sequences by engine.execute alone, and through
 * the driver with 32 streaming sessions (planning, detokenizing, formatting of chunks; no sockets). */
import { Command, Option } from "commander"
import { median, quantile } from "simple-statistics"
import { wholeNumber } from "../src/cli/numbers.ts"
import type { CostModel } from "../src/core/cost.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import type { Batch, BatchItem } from "../src/core/protocol.ts"
import { openLlama } from "../src/engine/llama/engine.ts"
import { type Engine, GREEDY } from "../src/engine/port.ts"
import { resolveModel } from "../src/models/resolve.ts"
import { Random } from "../src/random.ts"
import { ReplicaDriver, type StepReport } from "../src/replica/driver.ts"
import { Answer } from "../src/text/answer.ts"

const SAMPLING = { ...GREEDY, ignoreEos: true }
const WARM_UP_STEPS = 20

interface Options {
  model: string
  threads: number
  sequences: number
  prompt: number
  output: number
  rounds: number
  policy: PolicyName
}

async function main(): Promise<void> {
  const options = new Command("bench/overhead.ts")
    .option("--model <name>", "as for serve", "tiny-bench")
    .option("--threads <n>", "of the engine", wholeNumber(1, 512), 1)
    .option("--sequences <n>", "decoded in every step", wholeNumber(1, 256), 32)
    .option("--prompt <tokens>", "of each sequence", wholeNumber(1, 1 << 16), 128)
    .option("--output <tokens>", "decode steps a round", wholeNumber(2, 1 << 16), 120)
    .option("--rounds <n>", "alternating rounds of each kind", wholeNumber(1, 1000), 5)
    .addOption(new Option("--policy <name>", "scheduling policy").choices(POLICY_NAMES).default("slos-serve"))
    .parse()
    .opts<Options>()
  const { bare, driven } = await rounds(options)
  const both = bare.map((round, i) => median(driven[i]!.periodsUs) / median(round.periodsUs) - 1)
  const bareUs = bare.flatMap((round) => round.periodsUs)
  const drivenUs = driven.flatMap((round) => round.periodsUs)
  const outside = driven.flatMap(({ periodsUs, engineUs }) => periodsUs.map((us, i) => us - engineUs[i]!))
  const planUs = driven.flatMap((round) => round.planUs)
  const result = {
    model: options.model,
    threads: options.threads,
    sequences: options.sequences,
    policy: options.policy,
    steps: { bare: bareUs.length, driven: drivenUs.length },
    bareStepMs: ms(median(bareUs)),
    drivenStepMs: ms(median(drivenUs)),
    overheadPercent: percent(median(both)),
    overheadPercentByRound: both.map(percent),
    // Steadier than the ratio of periods on a machine whose speed drifts.
    outsideEnginePercentOfBareStep: percent(median(outside) / median(bareUs)),
    outsideEngineMs: { p50: ms(median(outside)), p99: ms(quantile(outside, 0.99)) },
    planMs: { p50: ms(median(planUs)), p99: ms(quantile(planUs, 0.99)) },
  }
  console.log(JSON.stringify(result, null, 2))
}

/** Rounds of the bare engine and of the driven one by turns. */
async function rounds(options: Options): Promise<{ bare: Round[]; driven: DrivenRound[] }> {
  const { sequences, prompt, output } = options
  const { path } = await resolveModel(options.model)
  const open = () =>
    openLlama({
      modelPath: path,
      threads: options.threads,
      maxSequences: sequences,
      contextTokens: prompt + output + 16,
      maxBatchTokens: 512,
    })
  // Two engines: neither finds slots or KV of the other's requests.
  const engines = { bare: await open(), driven: await open() }
  const prompts = Array.from({ length: sequences }, (_, i) => {
    const random = new Random("prompt", i)
    return Int32Array.from({ length: prompt }, () => random.integer(32, 256))
  })
  const [bare, driven]: [Round[], DrivenRound[]] = [[], []]
  await bareRound(engines.bare, prompts, WARM_UP_STEPS)
  for (let i = 0; i < options.rounds; i++) {
    const round = await bareRound(engines.bare, prompts, output)
    bare.push(round)
    driven.push(await drivenRound(engines.driven, prompts, output, options.policy, median(round.engineUs)))
  }
  await engines.bare.close()
  await engines.driven.close()
  return { bare, driven }
}

const ms = (us: number) => Number((us / 1000).toFixed(4))
const percent = (share: number) => Number((100 * share).toFixed(2))

interface Round {
  /** Time from the end of one full decode step to the end of the next, µs. */
  periodsUs: number[]
  /** The engine's share of the same steps, µs. */
  engineUs: number[]
}

interface DrivenRound extends Round {
  planUs: number[]
}

async function bareRound(engine: Engine, prompts: readonly Int32Array[], steps: number): Promise<Round> {
  const step = async (items: BatchItem[], release: number[] = []) => {
    const batch: Batch = { number: 0, items, evict: [], release, predictedUs: 0 }
    const output = await engine.execute(batch)
    if (!output.ok) throw new Error(output.message)
    return output.durationUs
  }
  for (const [id, prompt] of prompts.entries()) {
    engine.open(id, prompt, SAMPLING)
    await step([{ id, position: 0, tokens: prompt.length, sample: true, draft: 0 }])
  }
  const round: Round = { periodsUs: [], engineUs: [] }
  for (let n = 0; n < steps; n++) {
    const items = prompts.map((prompt, id) => ({
      id,
      position: prompt.length + n,
      tokens: 1,
      sample: true,
      draft: 0,
    }))
    const start = performance.now()
    round.engineUs.push(await step(items))
    round.periodsUs.push((performance.now() - start) * 1000)
  }
  await step(
    [],
    prompts.map((_, id) => id),
  )
  return round
}

async function drivenRound(
  engine: Engine,
  prompts: readonly Int32Array[],
  steps: number,
  policy: PolicyName,
  decodeUs: number,
): Promise<DrivenRound> {
  const cost: CostModel = {
    pieces: [{ step: decodeUs / 2, tokens: decodeUs / 2 / prompts.length }],
    residualSigma: 0.1,
    fastPassTokens: engine.limits.minChunkTokens,
    unifiedKv: engine.limits.unifiedKv,
  }
  // Prompts in few, long batches: only steps that decode every sequence count.
  const config = { limits: engine.limits, cost, policy, apps: 1, options: { maxBatchUs: 20 * decodeUs } }
  const driver = new ReplicaDriver({ engine, config })
  const result: DrivenRound = { periodsUs: [], engineUs: [], planUs: [] }
  let last: { number: number; atMs: number } | null = null
  const inEngine = new Set<number>()
  driver.observeSteps(({ batch, planUs, durationUs }: StepReport) => {
    const full = batch.items.length === prompts.length && batch.items.every((item) => item.tokens === 1)
    const atMs = performance.now()
    for (const id of batch.release) inEngine.delete(id)
    for (const { id } of batch.items) inEngine.add(id)
    if (full && last !== null && last.number === batch.number - 1) {
      result.periodsUs.push((atMs - last.atMs) * 1000)
      result.engineUs.push(durationUs)
      result.planUs.push(planUs)
    }
    last = full ? { number: batch.number, atMs } : null
  })
  const counted = await Promise.all(prompts.map((prompt) => drive(driver, engine, prompt, steps)))
  if (counted.includes(0) || result.periodsUs.length === 0)
    throw new Error("no step decoded every sequence: give a longer --output")
  // The next round's driver counts its requests from 1 again: nothing of this one may be left.
  await driver.drain()
  await engine.execute({ number: 0, items: [], evict: [], release: [...inEngine], predictedUs: 0 })
  return result
}

/** One request to its end, its deltas formatted as they are for a client. How many bytes those had. */
function drive(driver: ReplicaDriver, engine: Engine, prompt: Int32Array, steps: number): Promise<number> {
  let bytes = 0
  return new Promise((resolve, reject) => {
    const sink = {
      delta: (delta: object) => {
        bytes += `data: ${JSON.stringify(delta)}\n\n`.length
      },
      end: () => {},
    }
    const answer = new Answer(engine.tokenizer, sink, {
      promptTokens: prompt.length,
      thinking: false,
      thinkingTokens: null,
      text: { stops: [], think: null, calls: null },
    })
    driver.submit({
      app: 0,
      session: -1,
      prompt,
      prefix: [],
      maxOutputTokens: steps,
      sampling: SAMPLING,
      slo: { ttftUs: 600e6, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity },
      tier: "slo",
      thinking: false,
      onTokens: (row) => answer.onTokens(row),
      onEnd: (end) => {
        answer.onEnd(end)
        if (end.reason === "length") resolve(bytes)
        else reject(new Error(`ended by ${end.reason}: ${end.message ?? ""}`))
      },
    })
  })
}

await main()
