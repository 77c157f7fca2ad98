/** What speculation costs and brings on the real engine: step times over (sequences, draft) with a fit of
 * k1·tokens + k2·draft steps + b, and paired runs of whole answers with and without. Works on a CPU with tiny
 * models, and on a GPU with `--model random-8b --draft random-draft --library cuda`. Writes JSON. */
import { readFile, writeFile } from "node:fs/promises"
import Table from "cli-table3"
import { Command } from "commander"
import { fcnnlsVector } from "ml-fcnnls"
import { median, quantile } from "simple-statistics"
import { expectedTokens } from "../src/core/acceptance.ts"
import type { BatchItem, RequestId } from "../src/core/types.ts"
import type { Speculation } from "../src/engine/drafter.ts"
import { GREEDY, type Sampling, type StepRow } from "../src/engine/engine.ts"
import { type LlamaEngine, openLlama } from "../src/engine/llama.ts"
import { resolveModel } from "../src/models/resolve.ts"
import { Random, shuffle } from "../src/random.ts"

interface Options {
  model: string
  /** A model, or nothing: prompt lookup. */
  draft?: string
  gpuLayers?: string
  library: string
  threads: string
  sequences: string
  drafts: string
  context: string
  repeats: string
  output: string
  pairSequences: string
  pairDrafts: string
  pairs: string
  out?: string
}

/** Acceptances for which speedups are computed from the step times. */
const ALPHAS = [0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
/** Leaves a model no choice: every draft of it is accepted, so that the most rows are sampled. */
const FORCED: Partial<Sampling> = { logitBias: [[20, 1000]] }

interface GridCell {
  sequences: number
  draft: number
  steps: number
  medianUs: number
  p10Us: number
  p90Us: number
  /** Medians of the parts. */
  draftUs: number
  decodeUs: number
  sampleUs: number
}

interface PairCell {
  task: string
  sequences: number
  draft: number
  /** Medians over the pairs. */
  tokensPerSecPerRequest: number
  withoutPerSecPerRequest: number
  speedup: number
  speedups: number[]
  /** Of drafted tokens; drafted tokens a step and request. */
  acceptance: number
  draftedPerStep: number
}

async function main(): Promise<void> {
  const options = new Command("bench/speculation.ts")
    .option("--model <name>", "as for serve", "tiny-target")
    .option("--draft <name>", "draft model (default: prompt lookup)")
    .option("--gpu-layers <n>", "")
    .option("--library <name>", "auto, cpu, cuda, vulkan or a folder", "auto")
    .option("--threads <n>", "", "1")
    .option("--sequences <list>", "", "1,2,4,8,16,32")
    .option("--drafts <list>", "", "0,1,2,3,4,6,8")
    .option("--context <tokens>", "of every request", "256")
    .option("--repeats <n>", "steps of each shape", "12")
    .option("--output <tokens>", "of every answer of the paired runs", "96")
    .option("--pair-sequences <list>", "", "1,8")
    .option("--pair-drafts <list>", "", "2,4")
    .option("--pairs <n>", "0 leaves the paired runs out", "3")
    .option("--out <file>", "JSON")
    .parse()
    .opts<Options>()
  const { path } = await resolveModel(options.model, { fallback: false })
  const speculate: Speculation =
    options.draft === undefined
      ? "lookup"
      : { draftModel: (await resolveModel(options.draft, { fallback: false })).path }
  const [sequences, drafts] = [numbers(options.sequences), numbers(options.drafts)]
  const [context, repeats, output] = [options.context, options.repeats, options.output].map(Number) as [
    number,
    number,
    number,
  ]
  const most = Math.max(...drafts, ...numbers(options.pairDrafts))
  const grows = (repeats + 2) * drafts.reduce((sum, draft) => sum + draft + 1, 0)
  const maxSequences = Math.max(...sequences, ...numbers(options.pairSequences))
  const from = performance.now()
  const engine = await openLlama({
    modelPath: path,
    threads: Number(options.threads),
    maxSequences,
    contextTokens: context + Math.max(grows, output + 2 * most) + 16,
    maxBatchTokens: Math.max(512, maxSequences * (1 + most)),
    library: options.library,
    speculate,
    maxSpeculation: 1 + most,
    ...(options.gpuLayers !== undefined && { gpuLayers: Number(options.gpuLayers) }),
  })
  const bench = new Bench(engine)
  log(`${engine.model.name}, ${engine.model.parameters / 1e6}M, loaded in ${ms(performance.now() - from)}`)
  const cells: GridCell[] = []
  for (const n of sequences) cells.push(...(await bench.grid(n, drafts, context, repeats)))
  const fit = fitSteps(cells)
  const speedups = speedupsOf(cells)
  show(cells, fit)
  const pairs: PairCell[] = []
  if (Number(options.pairs) > 0) {
    const tasks = await tasksFor(engine, context)
    for (const [task, prompts] of tasks)
      for (const n of numbers(options.pairSequences))
        for (const draft of numbers(options.pairDrafts)) {
          const pair = await bench.pairs(task, prompts, n, draft, output, Number(options.pairs))
          log(
            `${task}, ${n} sequences, draft ${draft}: ${pair.speedup.toFixed(2)}× at acceptance ${pair.acceptance.toFixed(2)}`,
          )
          pairs.push(pair)
        }
    showPairs(pairs)
  }
  await engine.close()
  const drafter = options.draft ?? "lookup"
  const result = { options, drafter, model: engine.model, limits: engine.limits, cells, fit, speedups, pairs }
  if (options.out) await writeFile(options.out, `${JSON.stringify(result, null, 1)}\n`)
}

/** Drives the engine without a scheduler. */
class Bench {
  readonly #engine: LlamaEngine
  #nextId = 1
  #batches = 0

  constructor(engine: LlamaEngine) {
    this.#engine = engine
  }

  /** Times of steps of `n` requests at a context: every draft length in turn, in random order against drift. */
  async grid(n: number, drafts: number[], context: number, repeats: number): Promise<GridCell[]> {
    const random = new Random("grid", n)
    const held = await this.#open(
      Array.from({ length: n }, () => noise(random, context)),
      FORCED,
    )
    const seen = new Map(drafts.map((draft) => [draft, [] as { us: number; parts: number[] }[]]))
    for (let repeat = -2; repeat < repeats; repeat++) {
      for (const draft of shuffle([...drafts], random)) {
        const { durationUs } = await this.#step(held, draft)
        const { draftUs, decodeUs, sampleUs } = this.#engine.timing
        if (repeat >= 0) seen.get(draft)!.push({ us: durationUs, parts: [draftUs, decodeUs, sampleUs] })
      }
    }
    await this.#release(held)
    return drafts.map((draft) => cellOf(n, draft, seen.get(draft)!))
  }

  /** Whole answers to the same prompts with and without drafts, in turn (ABBA). */
  async pairs(
    task: string,
    prompts: readonly Int32Array[],
    n: number,
    draft: number,
    output: number,
    pairs: number,
  ): Promise<PairCell> {
    const rates: [without: number, with_: number][] = []
    let [drafted, accepted, turns] = [0, 0, 0]
    for (let pair = 0; pair < pairs; pair++) {
      const chosen = Array.from({ length: n }, (_, i) => prompts[(pair * n + i) % prompts.length]!)
      const rate: [number, number] = [0, 0]
      for (const speculates of pair % 2 === 0 ? [0, 1] : [1, 0]) {
        const run = await this.#answers(chosen, speculates ? draft : 0, output)
        rate[speculates as 0 | 1] = run.tokensPerSec
        drafted += run.drafted
        accepted += run.accepted
        if (speculates) turns += run.turns
      }
      rates.push(rate)
    }
    const speedups = rates.map(([without, with_]) => with_ / without)
    return {
      ...{ task, sequences: n, draft, speedups },
      tokensPerSecPerRequest: median(rates.map(([, with_]) => with_)),
      withoutPerSecPerRequest: median(rates.map(([without]) => without)),
      speedup: median(speedups),
      acceptance: accepted / Math.max(1, drafted),
      draftedPerStep: drafted / Math.max(1, turns),
    }
  }

  /** Every request goes on until it has its tokens; its rate is over its own decode time. */
  async #answers(prompts: readonly Int32Array[], draft: number, output: number) {
    const going = await this.#open(prompts, {})
    const all = new Map(going)
    const done = new Map([...going.keys()].map((id) => [id, 0]))
    const rates: number[] = []
    let [us, drafted, accepted, turns] = [0, 0, 0, 0]
    while (going.size > 0) {
      const { rows, durationUs } = await this.#step(going, draft)
      us += durationUs
      for (const row of rows) {
        turns++
        drafted += row.drafted
        accepted += row.tokens.length - 1
        done.set(row.id, done.get(row.id)! + row.tokens.length)
        if (done.get(row.id)! < output) continue
        rates.push((1e6 * done.get(row.id)!) / us)
        all.set(row.id, going.get(row.id)!)
        going.delete(row.id)
      }
    }
    await this.#release(all)
    return { tokensPerSec: median(rates), drafted, accepted, turns }
  }

  /** Computes prompts; answers how many tokens of each request have their KV in place. */
  async #open(prompts: readonly Int32Array[], sampling: Partial<Sampling>): Promise<Map<RequestId, number>> {
    const held = new Map<RequestId, number>()
    for (const prompt of prompts) {
      const id = this.#nextId++
      this.#engine.open(id, prompt, { ...GREEDY, ignoreEos: true, ...sampling })
      const chunk = this.#engine.limits.maxBatchTokens
      for (let at = 0; at < prompt.length; at += chunk) {
        const tokens = Math.min(chunk, prompt.length - at)
        const sample = at + tokens === prompt.length
        await this.#execute([{ id, position: at, tokens, sample, draft: 0 }])
      }
      held.set(id, prompt.length)
    }
    return held
  }

  async #step(held: Map<RequestId, number>, draft: number): Promise<{ rows: StepRow[]; durationUs: number }> {
    const items = [...held].map(([id, position]) => ({ id, position, tokens: 1, sample: true, draft }))
    const output = await this.#execute(items)
    for (const { id, tokens } of output.rows) held.set(id, held.get(id)! + tokens.length)
    return output
  }

  async #release(held: ReadonlyMap<RequestId, number>): Promise<void> {
    await this.#execute([], [...held.keys()])
  }

  async #execute(items: BatchItem[], release: RequestId[] = []) {
    const output = await this.#engine.execute({
      ...{ number: ++this.#batches, items, evict: [], release, predictedUs: 0 },
    })
    if (!output.ok) throw new Error(`step failed: ${output.message}`)
    return output
  }
}

function cellOf(sequences: number, draft: number, steps: { us: number; parts: number[] }[]): GridCell {
  const times = steps.map(({ us }) => us)
  const part = (i: number) => Math.round(median(steps.map(({ parts }) => parts[i]!)))
  return {
    ...{ sequences, draft, steps: steps.length },
    ...{ medianUs: median(times), p10Us: quantile(times, 0.1), p90Us: quantile(times, 0.9) },
    ...{ draftUs: draft === 0 ? 0 : part(0), decodeUs: part(1), sampleUs: part(2) },
  }
}

/** T = k1·tokens + k2·draft steps + b over the medians (paper §3.1), non-negative; and with a term for the tokens
 * drafted, which a draft model with a large vocabulary needs on a CPU. */
function fitSteps(cells: readonly GridCell[]) {
  const terms = {
    paper: (c: GridCell) => [c.sequences * (1 + c.draft), c.draft, 1],
    withDraftTokens: (c: GridCell) => [c.sequences * (1 + c.draft), c.draft, 1, c.sequences * c.draft],
  }
  return Object.fromEntries(
    Object.entries(terms).map(([name, row]) => {
      const times = cells.map((cell) => cell.medianUs)
      // Relative errors: short steps matter as much as long ones.
      const matrix = cells.map((cell) => row(cell).map((value) => value / cell.medianUs))
      const found = fcnnlsVector(
        matrix,
        cells.map(() => 1),
      ).K.to1DArray()
      const predicted = cells.map((cell) => row(cell).reduce((sum, x, i) => sum + x * found[i]!, 0))
      const mean = times.reduce((sum, t) => sum + t, 0) / times.length
      const squares = (of: (i: number) => number) => times.reduce((sum, _, i) => sum + of(i) ** 2, 0)
      const r2 = 1 - squares((i) => times[i]! - predicted[i]!) / squares((i) => times[i]! - mean)
      const mape = predicted.reduce((sum, p, i) => sum + Math.abs(p / times[i]! - 1), 0) / times.length
      const [k1Us, k2Us, bUs, kDraftTokenUs = 0] = found as [number, number, number, number?]
      return [name, { k1Us, k2Us, bUs, kDraftTokenUs, r2, mape }]
    }),
  )
}

/** For each acceptance and number of sequences the best draft length: expected tokens over time, against none. */
function speedupsOf(cells: readonly GridCell[]) {
  const at = (n: number, draft: number) => cells.find((c) => c.sequences === n && c.draft === draft)
  return ALPHAS.flatMap((acceptance) =>
    [...new Set(cells.map((cell) => cell.sequences))].map((sequences) => {
      const alone = at(sequences, 0)?.medianUs ?? Number.NaN
      const options = cells
        .filter((cell) => cell.sequences === sequences)
        .map(({ draft, medianUs }) => ({
          draft,
          speedup: (expectedTokens(acceptance, draft + 1) * alone) / medianUs,
        }))
      return { acceptance, sequences, ...options.reduce((a, b) => (b.speedup > a.speedup ? b : a)) }
    }),
  )
}

/** Prompts that answers repeat (an edit of code, a summary with quotes), and noise. */
async function tasksFor(engine: LlamaEngine, context: number): Promise<[string, Int32Array[]][]> {
  const random = new Random("tasks", 1)
  const noises = Array.from({ length: 8 }, () => noise(random, context))
  if (engine.model.random) return [["noise", noises]]
  const here = (path: string) => readFile(new URL(`../${path}`, import.meta.url), "utf8")
  const [code, prose] = [await here("src/core/cost.ts"), await here("README.md")]
  const asks: [string, string, string][] = [
    ["code edit", "Rewrite this file exactly as it is, but rename `model` to `costModel`:\n\n", code],
    ["summary with quotes", "Quote the most important sentences of this text word for word:\n\n", prose],
  ]
  return Promise.all(
    asks.map(async ([task, ask, text]): Promise<[string, Int32Array[]]> => {
      const prompts: Int32Array[] = []
      for (let i = 0; i < 6; i++) {
        // Three characters a token, and the template's own tokens beside.
        const piece = text.slice(i * 700, i * 700 + 3 * (context - 40))
        const chat = `<|im_start|>user\n${ask}${piece}<|im_end|>\n<|im_start|>assistant\n`
        const tokens = await engine.tokenizer.encode(chat, { special: true, addBos: false })
        prompts.push(tokens.length <= context ? tokens : tokens.slice(-context))
      }
      return [task, prompts]
    }),
  )
}

function noise(random: Random, tokens: number): Int32Array {
  return Int32Array.from({ length: tokens }, () => random.integer(30, 250))
}

function show(cells: readonly GridCell[], fit: ReturnType<typeof fitSteps>): void {
  const table = new Table({
    head: ["sequences", "draft", "step ms", "p10–p90", "draft ms", "decode ms", "choose ms"],
  })
  for (const cell of cells) {
    const { sequences, draft, medianUs, p10Us, p90Us, draftUs, decodeUs, sampleUs } = cell
    const range = `${ms(p10Us / 1e3)}–${ms(p90Us / 1e3)}`
    table.push([
      sequences,
      draft,
      ms(medianUs / 1e3),
      range,
      ...[draftUs, decodeUs, sampleUs].map((us) => ms(us / 1e3)),
    ])
  }
  log(table.toString())
  for (const [name, { k1Us, k2Us, bUs, kDraftTokenUs, r2, mape }] of Object.entries(fit)) {
    const coefficients = [k1Us, k2Us, bUs, kDraftTokenUs].map((us) => us.toFixed(1)).join(", ")
    log(
      `${name}: k1, k2, b, k per draft token = ${coefficients} µs; R² ${r2.toFixed(3)}, mean error ${(100 * mape).toFixed(1)}%`,
    )
  }
}

function showPairs(pairs: readonly PairCell[]): void {
  const table = new Table({
    head: ["task", "sequences", "draft", "tok/s each", "without", "speedup", "acceptance", "drafted"],
  })
  for (const pair of pairs)
    table.push([
      ...[pair.task, pair.sequences, pair.draft],
      ...[pair.tokensPerSecPerRequest, pair.withoutPerSecPerRequest].map((rate) => rate.toFixed(1)),
      ...[pair.speedup, pair.acceptance, pair.draftedPerStep].map((value) => value.toFixed(2)),
    ])
  log(table.toString())
}

function numbers(list: string): number[] {
  return list.split(",").map(Number)
}

function ms(value: number): string {
  return value.toFixed(2)
}

function log(line: string): void {
  process.stdout.write(`${line}\n`)
}

await main()
