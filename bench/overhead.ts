/** Overhead of our loop over the bare engine: decode steps of 32 sequences by engine.execute alone, and through
 * the driver with 32 streaming sessions (planning, detokenizing, formatting of chunks; no sockets). */
import { Command } from "commander"
import { median, quantile } from "simple-statistics"
import type { CostModel } from "../src/core/cost.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { Batch, BatchItem } from "../src/core/types.ts"
import { type Engine, GREEDY } from "../src/engine/engine.ts"
import { openLlama } from "../src/engine/llama.ts"
import { resolveModel } from "../src/models/resolve.ts"
import { Random } from "../src/random.ts"
import { ReplicaDriver, type StepReport } from "../src/serve/driver.ts"
import { Session } from "../src/serve/session.ts"

const SAMPLING = { ...GREEDY, ignoreEos: true }

async function main(): Promise<void> {
  const options = new Command("bench/overhead.ts")
    .option("--model <name>", "as for serve", "tiny-bench")
    .option("--threads <n>", "", "1")
    .option("--sequences <n>", "", "32")
    .option("--prompt <tokens>", "", "128")
    .option("--output <tokens>", "decode steps a round", "120")
    .option("--rounds <n>", "alternating rounds of each kind", "5")
    .option("--policy <name>", "", "slos-serve")
    .parse()
    .opts<Record<"model" | "threads" | "sequences" | "prompt" | "output" | "rounds" | "policy", string>>()
  const [sequences, prompt, output] = [options.sequences, options.prompt, options.output].map(Number) as [
    number,
    number,
    number,
  ]
  const { path } = await resolveModel(options.model)
  const open = () =>
    openLlama({
      modelPath: path,
      threads: Number(options.threads),
      maxSequences: sequences,
      contextTokens: prompt + output + 16,
      maxBatchTokens: 512,
    })
  // Two engines: neither finds slots or KV of the other's requests.
  const [bare, driven] = [await open(), await open()]
  const prompts = Array.from({ length: sequences }, (_, i) => {
    const random = new Random("prompt", i)
    return Int32Array.from({ length: prompt }, () => random.integer(32, 256))
  })
  const bareUs: number[] = []
  const bareEngineUs: number[] = []
  const drivenUs: number[] = []
  const drivenEngineUs: number[] = []
  const planUs: number[] = []
  const [bareRounds, drivenRounds]: [number[], number[]] = [[], []]
  await bareRound(bare, prompts, 20)
  for (let round = 0; round < Number(options.rounds); round++) {
    const alone = await bareRound(bare, prompts, output)
    bareUs.push(...alone.periodsUs)
    bareEngineUs.push(...alone.engineUs)
    const through = await drivenRound(
      driven,
      prompts,
      output,
      options.policy as PolicyName,
      median(alone.engineUs),
    )
    drivenUs.push(...through.periodsUs)
    drivenEngineUs.push(...through.engineUs)
    planUs.push(...through.planUs)
    bareRounds.push(median(alone.periodsUs))
    drivenRounds.push(median(through.periodsUs))
  }
  await bare.close()
  await driven.close()
  const ratios = bareRounds.map((value, i) => drivenRounds[i]! / value - 1)
  const outside = drivenUs.map((value, i) => value - drivenEngineUs[i]!)
  console.log(
    JSON.stringify(
      {
        model: options.model,
        threads: Number(options.threads),
        sequences,
        policy: options.policy,
        steps: { bare: bareUs.length, driven: drivenUs.length },
        bareStepMs: ms(median(bareUs)),
        drivenStepMs: ms(median(drivenUs)),
        overheadPercent: percent(median(ratios)),
        overheadPercentByRound: ratios.map(percent),
        // Steadier than the ratio of periods on a machine whose speed drifts.
        outsideEnginePercentOfBareStep: percent(median(outside) / median(bareUs)),
        outsideEngineMs: { p50: ms(median(outside)), p99: ms(quantile(outside, 0.99)) },
        planMs: { p50: ms(median(planUs)), p99: ms(quantile(planUs, 0.99)) },
      },
      null,
      2,
    ),
  )
}

const ms = (us: number) => Number((us / 1000).toFixed(4))
const percent = (share: number) => Number((100 * share).toFixed(2))

interface Round {
  /** Time from the end of one full decode step to the end of the next, µs. */
  periodsUs: number[]
  /** The engine's share of the same steps, µs. */
  engineUs: number[]
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
): Promise<Round & { planUs: number[] }> {
  const cost: CostModel = {
    pieces: [{ step: decodeUs / 2, tokens: decodeUs / 2 / prompts.length }],
    residualSigma: 0.1,
    fastPassTokens: engine.limits.minChunkTokens,
    unifiedKv: engine.limits.unifiedKv,
  }
  // Prompts in few, long batches: only steps that decode every sequence count.
  const config = { limits: engine.limits, cost, policy, apps: 1, options: { maxBatchUs: 20 * decodeUs } }
  const driver = new ReplicaDriver({ engine, config })
  const result: Round & { planUs: number[] } = { periodsUs: [], engineUs: [], planUs: [] }
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
  let bytes = 0
  await Promise.all(
    prompts.map(
      (prompt) =>
        new Promise<void>((resolve, reject) => {
          const sink = {
            delta: (delta: object) => {
              bytes += `data: ${JSON.stringify(delta)}\n\n`.length
            },
            end: () => {},
          }
          const session = new Session(engine.tokenizer, sink, {
            promptTokens: prompt.length,
            thinking: false,
            thinkingTokens: null,
            text: { stops: [], think: null, tools: false },
          })
          driver.submit({
            app: 0,
            session: -1,
            prompt,
            prefix: [],
            maxOutputTokens: steps,
            sampling: SAMPLING,
            slo: { ttftUs: 600e6, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6 },
            tier: "slo",
            thinking: false,
            onTokens: (row) => session.onTokens(row),
            onEnd: (end) => {
              session.onEnd(end)
              if (end.reason === "length") resolve()
              else reject(new Error(`ended by ${end.reason}: ${end.message ?? ""}`))
            },
          })
        }),
    ),
  )
  if (bytes === 0 || result.periodsUs.length === 0)
    throw new Error("no step decoded every sequence: give a longer --output")
  // The next round's driver counts its requests from 1 again: nothing of this one may be left.
  await driver.drain()
  await engine.execute({ number: 0, items: [], evict: [], release: [...inEngine], predictedUs: 0 })
  return result
}

await main()
