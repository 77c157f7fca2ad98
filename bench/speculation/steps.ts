/** Step times of a target with its drafter over (sequences, draft), and fits of k1·tokens + k2·draft steps + b with R²
 * (paper §3.1). A minute on a CPU with the generated pair; on a GPU `--model random-8b --draft random-draft
 * --library cuda --sequences 1,8,32,64,128`. Writes raw cells as JSON. What users gain: speculation/paired.ts. */
import { mkdir, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import { dirname } from "node:path"
import Table from "cli-table3"
import { Command } from "commander"
import { fcnnlsVector } from "ml-fcnnls"
import { median, quantile } from "simple-statistics"
import { expectedTokens } from "../../src/core/learn/acceptance.ts"
import type { BatchItem, RequestId } from "../../src/core/protocol.ts"
import type { Speculation } from "../../src/engine/drafter.ts"
import { type LlamaEngine, openLlama } from "../../src/engine/llama/engine.ts"
import { GREEDY, type Sampling, type StepRow } from "../../src/engine/port.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { Random, shuffle } from "../../src/random.ts"

interface Options {
  model: string
  draft: string
  gpuLayers?: string
  library: string
  threads: string
  sequences: string
  drafts: string
  context: string
  repeats: string
  out: string
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

async function main(): Promise<void> {
  const options = new Command("bench/speculation/steps.ts")
    .option("--model <name>", "as for serve", "tiny-target")
    .option("--draft <name>", "draft model; `lookup`: prompt lookup", "tiny-draft")
    .option("--gpu-layers <n>", "")
    .option("--library <name>", "auto, cpu, cuda, vulkan or a folder", "auto")
    .option("--threads <n>", "", "1")
    .option("--sequences <list>", "", "1,2,4,8,16")
    .option("--drafts <list>", "", "0,1,2,3,4,6,8")
    .option("--context <tokens>", "of every request", "256")
    .option("--repeats <n>", "steps of each shape", "12")
    .option("--out <file>", "", "bench/results/speculation/steps.json")
    .parse()
    .opts<Options>()
  const { path } = await resolveModel(options.model, { fallback: false })
  const speculate: Speculation =
    options.draft === "lookup"
      ? "lookup"
      : { draftModel: (await resolveModel(options.draft, { fallback: false })).path }
  const [sequences, drafts] = [numbers(options.sequences), numbers(options.drafts)]
  const [context, repeats] = [Number(options.context), Number(options.repeats)]
  const most = Math.max(...drafts)
  const grows = (repeats + 2) * drafts.reduce((sum, draft) => sum + draft + 1, 0)
  const maxSequences = Math.max(...sequences)
  const from = performance.now()
  const engine = await openLlama({
    modelPath: path,
    threads: Number(options.threads),
    maxSequences,
    contextTokens: context + grows + 16,
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
  await engine.close()
  const { chatTemplate: _, ...model } = engine.model
  const about = {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model,
    options: { ...options, out: undefined },
    model,
    limits: engine.limits,
  }
  await mkdir(dirname(options.out), { recursive: true })
  await writeFile(options.out, `${JSON.stringify({ about, fit, speedups, cells }, null, 1)}\n`)
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
