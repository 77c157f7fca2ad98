/** What a schema costs: decode steps of 32 sequences by the bare engine, free and under schemas, in turn. With
 * `--distinct` every sequence has a schema of its own. */
import { Command } from "commander"
import { median, quantile } from "simple-statistics"
import { wholeNumber } from "../../src/cli/numbers.ts"
import { openLlama } from "../../src/engine/llama/engine.ts"
import { type Engine, GREEDY } from "../../src/engine/port.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { outputGrammar } from "../../src/text/constraint/grammar.ts"

interface Options {
  model: string
  threads: number
  sequences: number
  output: number
  rounds: number
  distinct?: boolean
}

/** Long enough that no answer ends: a list of records, with bounds of every kind. */
function schema(name: string): object {
  const properties = {
    [name]: { type: "string", maxLength: 40 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    height_m: { type: "number", minimum: 0.5, maximum: 2.5 },
    born: { type: "string", format: "date" },
    notes: { type: "string" },
  }
  const items = { type: "object", properties, required: Object.keys(properties) }
  return { type: "array", items, minItems: 500 }
}

/** Hostile: alternatives that begin alike at every level. */
const RECURSIVE = {
  $ref: "#/$defs/a",
  $defs: {
    a: {
      anyOf: [
        { type: "array", items: { $ref: "#/$defs/a" }, minItems: 1 },
        { type: "array", items: { $ref: "#/$defs/a" }, minItems: 2 },
      ],
    },
  },
}

async function main(): Promise<void> {
  const options = new Command("bench/grammar/steps.ts")
    .option("--model <name>", "as for serve", "smollm2-135m")
    .option("--threads <n>", "of the engine", wholeNumber(1, 512), 1)
    .option("--sequences <n>", "decoded in every step", wholeNumber(1, 256), 32)
    .option("--output <tokens>", "decode steps a round", wholeNumber(2, 1 << 14), 60)
    .option("--rounds <n>", "rounds of each kind, in turn", wholeNumber(1, 1000), 4)
    .option("--distinct", "a schema of its own for each sequence")
    .parse()
    .opts<Options>()
  const { path } = await resolveModel(options.model)
  const engine = await openLlama({
    modelPath: path,
    threads: options.threads,
    maxSequences: options.sequences,
    contextTokens: 64 + options.output,
    maxBatchTokens: Math.max(options.sequences, 512),
    library: "cpu",
  })
  const names = Array.from({ length: options.sequences }, (_, i) => (options.distinct ? `name_${i}` : "name"))
  const kinds: Record<string, (string | null)[]> = {
    free: names.map(() => null),
    schema: names.map((name) => grammarOf(schema(name))),
    recursive: names.map(() => grammarOf(RECURSIVE)),
  }
  for (const grammar of new Set(Object.values(kinds).flat()))
    if (grammar !== null) await engine.constraints.hold(grammar)
  const times: Record<string, number[][]> = {}
  for (let round = 0; round <= options.rounds; round++)
    for (const [kind, grammars] of Object.entries(kinds)) {
      const stepsUs = await decode(engine, grammars, options.output, round)
      // The first is for warming up.
      if (round > 0) times[kind] = [...(times[kind] ?? []), stepsUs]
    }
  await engine.close()
  const report = Object.entries(times).map(([kind, rounds]) => {
    const all = rounds.flat()
    const lost = rounds.map((round, i) => mean(round) / mean(times.free![i]!) - 1)
    return {
      kind,
      steps: all.length,
      stepMs: {
        mean: ms(mean(all)),
        p50: ms(median(all)),
        p99: ms(quantile(all, 0.99)),
        longest: ms(Math.max(...all)),
      },
      tokensPerSecond: Math.round((1e6 * options.sequences) / mean(all)),
      lostPercent: Math.round(1000 * median(lost)) / 10,
      lostPercentByRound: lost.map((value) => Math.round(1000 * value) / 10),
    }
  })
  process.stdout.write(`${JSON.stringify({ ...options, report }, null, 2)}\n`)
}

async function decode(
  engine: Engine,
  grammars: readonly (string | null)[],
  output: number,
  round: number,
): Promise<number[]> {
  const prompt = await engine.tokenizer.encode("A long list of people, as JSON:\n", {
    special: true,
    addBos: true,
  })
  const ids = grammars.map((grammar, i) => {
    const id = ++lastId
    const sampling = { ...GREEDY, temperature: 1, topK: 40, seed: 1000 * round + i, grammar, ignoreEos: true }
    engine.open(id, prompt, sampling)
    return id
  })
  const stepsUs: number[] = []
  let position = 0
  for (let step = 0; step <= output; step++) {
    const tokens = step === 0 ? prompt.length : 1
    const items = ids.map((id) => ({ id, position, tokens, sample: true, draft: 0 }))
    const from = performance.now()
    // A prompt of every sequence may not fit one batch.
    for (const part of step === 0 ? items.map((item) => [item]) : [items]) {
      const done = await engine.execute({
        number: ++batches,
        items: part,
        evict: [],
        release: [],
        predictedUs: 0,
      })
      if (!done.ok) throw new Error(done.message)
      if (done.rows.some((row) => row.end)) throw new Error("an answer ended: it is not measured to the end")
    }
    if (step > 0) stepsUs.push(1000 * (performance.now() - from))
    position += tokens
  }
  await engine.execute({ number: ++batches, items: [], evict: [], release: ids, predictedUs: 0 })
  return stepsUs
}

let lastId = 0
let batches = 0
const grammarOf = (wanted: object) =>
  outputGrammar({ text: { kind: "schema", name: "bench", schema: wanted }, calls: [], parallel: false })
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length
const ms = (us: number) => Math.round(us / 10) / 100

await main()
