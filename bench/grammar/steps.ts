/** What a schema costs: decode steps of 32 sequences by the bare engine, free and under schemas, step by step in turn: no
 * machine is as fast a minute later. With `--distinct` every sequence has a schema of its own. */
import { Command } from "commander"
import { mean, median, quantile, sampleStandardDeviation } from "simple-statistics"
import { wholeNumber } from "../../src/cli/numbers.ts"
import { openLlama } from "../../src/engine/llama/engine.ts"
import { type Engine, GREEDY } from "../../src/engine/port.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { outputGrammar } from "../../src/text/constraint/grammar.ts"

/** Free, schema and recursive are decoded side by side. */
const KINDS = 3

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
    .option("--rounds <n>", "answers of each kind, one after the other", wholeNumber(1, 1000), 4)
    .option("--distinct", "a schema of its own for each sequence")
    .parse()
    .opts<Options>()
  const { path } = await resolveModel(options.model)
  const engine = await openLlama({
    modelPath: path,
    threads: options.threads,
    maxSequences: KINDS * options.sequences,
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
  const times: Record<string, number[]> = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]))
  for (let round = 0; round <= options.rounds; round++) {
    const answers = await Promise.all(
      Object.entries(kinds).map(([kind, grammars]) => Answers.open(engine, kind, grammars, round)),
    )
    for (const one of answers) await one.prefill()
    for (let step = 0; step < options.output; step++) {
      // Whose step comes first is next to be last.
      answers.push(answers.shift()!)
      for (const one of answers) {
        const us = await one.step()
        // The first round is for warming up.
        if (round > 0) times[one.kind]!.push(us)
      }
    }
    for (const one of answers) await one.close()
  }
  await engine.close()
  const report = Object.entries(times).map(([kind, all]) => {
    const lost = all.map((us, i) => us / times.free![i]! - 1)
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
      /** Of the free step beside it: the median, a standard error of the mean, and of all the time. */
      lostPercent: percent(median(lost)),
      errorPercent: percent(sampleStandardDeviation(lost) / Math.sqrt(lost.length)),
      lostPercentOfTime: percent(mean(all) / mean(times.free!) - 1),
    }
  })
  process.stdout.write(`${JSON.stringify({ ...options, report }, null, 2)}\n`)
}

/** Answers of one kind on their way. */
class Answers {
  readonly kind: string
  readonly #engine: Engine
  readonly #ids: readonly number[]
  readonly #promptTokens: number
  #position = 0

  static async open(engine: Engine, kind: string, grammars: readonly (string | null)[], round: number) {
    const text = "A long list of people, as JSON:\n"
    const prompt = await engine.tokenizer.encode(text, { special: true, addBos: true })
    const ids = grammars.map((grammar, i) => {
      const id = ++lastId
      const sampling = {
        ...GREEDY,
        temperature: 1,
        topK: 40,
        seed: 1000 * round + i,
        grammar,
        ignoreEos: true,
      }
      engine.open(id, prompt, sampling)
      return id
    })
    return new Answers(engine, kind, ids, prompt.length)
  }

  private constructor(engine: Engine, kind: string, ids: readonly number[], promptTokens: number) {
    this.#engine = engine
    this.kind = kind
    this.#ids = ids
    this.#promptTokens = promptTokens
  }

  /** One by one: all prompts may not fit one batch. */
  async prefill(): Promise<void> {
    for (const id of this.#ids) await this.#execute([id], this.#promptTokens)
    this.#position = this.#promptTokens
  }

  /** How long it took, µs. */
  async step(): Promise<number> {
    const from = performance.now()
    await this.#execute(this.#ids, 1)
    this.#position++
    return 1000 * (performance.now() - from)
  }

  async close(): Promise<void> {
    await this.#engine.execute({
      number: ++batches,
      items: [],
      evict: [],
      release: [...this.#ids],
      predictedUs: 0,
    })
  }

  async #execute(ids: readonly number[], tokens: number): Promise<void> {
    const items = ids.map((id) => ({ id, position: this.#position, tokens, sample: true, draft: 0 }))
    const done = await this.#engine.execute({
      number: ++batches,
      items,
      evict: [],
      release: [],
      predictedUs: 0,
    })
    if (!done.ok) throw new Error(done.message)
    if (done.rows.some((row) => row.end)) throw new Error("an answer ended: it is not measured to the end")
  }
}

let lastId = 0
let batches = 0
const grammarOf = (wanted: object) =>
  outputGrammar({
    text: { kind: "schema", what: "bench", schema: wanted, param: "schema" },
    calls: [],
    parallel: false,
  })
const percent = (share: number) => Math.round(1000 * share) / 10
const ms = (us: number) => Math.round(us / 10) / 100

await main()
