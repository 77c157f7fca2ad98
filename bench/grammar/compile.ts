/** How long schemas take to be compiled, with a model's vocabulary: from the schema to the end of the hold, each twice
 * (the first is cold code), and the longest pause of the event loop meanwhile. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Command } from "commander"
import { openLlama } from "../../src/engine/llama/engine.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { outputGrammar } from "../../src/text/constraint/grammar.ts"

const string = { type: "string" }
const list = (count: number, make: (i: number) => [string, unknown]) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => make(i)))
const SCHEMAS: Record<string, unknown> = {
  "any object": { type: "object" },
  record: {
    type: "object",
    properties: { name: string, age: { type: "integer" }, tags: { type: "array", items: string } },
    required: ["name", "age"],
  },
  tree: {
    $ref: "#/$defs/n",
    $defs: {
      n: {
        type: "object",
        properties: { value: string, next: { anyOf: [{ $ref: "#/$defs/n" }, { type: "null" }] } },
      },
    },
  },
  "alternatives that begin alike, recursive": {
    $ref: "#/$defs/a",
    $defs: {
      a: {
        anyOf: [
          { type: "array", items: { $ref: "#/$defs/a" } },
          { type: "array", items: { $ref: "#/$defs/a" }, minItems: 1 },
        ],
      },
    },
  },
  "100 properties": {
    type: "object",
    properties: list(100, (i) => [`property_${i}`, { type: ["string", "number"] }]),
  },
  "20 bounded strings": {
    type: "object",
    properties: list(20, (i) => [`text_${i}`, { type: "string", maxLength: 100 + i }]),
  },
  "20 ranges of numbers": {
    type: "object",
    properties: list(20, (i) => [`number_${i}`, { type: "number", minimum: -i, maximum: 3.25 * i + 1 }]),
  },
  "1000 items": { type: "array", items: string, maxItems: 1000 },
  formats: {
    type: "array",
    prefixItems: ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"].map(
      (format) => ({
        type: "string",
        format,
      }),
    ),
  },
  "1000 enum values": { enum: Array.from({ length: 1000 }, (_, i) => `value number ${7919 * i}`) },
  "5000 enum values": { enum: Array.from({ length: 5000 }, (_, i) => `value number ${7919 * i}`) },
}

async function main(): Promise<void> {
  const { model } = new Command("bench/grammar/compile.ts")
    .option("--model <name>", "as for serve", "smollm2-135m")
    .parse()
    .opts<{ model: string }>()
  const { path } = await resolveModel(model)
  const sizes = { threads: 1, maxSequences: 1, contextTokens: 64, maxBatchTokens: 64 }
  const engine = await openLlama({ modelPath: path, ...sizes, library: "cpu" })
  const startMs = await timeMs(() => engine.constraints.hold('root ::= "first"'))
  const rows = []
  for (const [name, schema] of Object.entries(SCHEMAS)) {
    const times: number[] = []
    const pauses: number[] = []
    for (const attempt of [1, 2]) {
      // Another grammar to the engine.
      const named = { $comment: name, ...(schema as object), title: `${attempt}` }
      const grammar = `${outputGrammar({ text: { kind: "schema", what: name, schema: named, param: "schema" }, calls: [], parallel: false })}# ${attempt}\n`
      const delay = monitorEventLoopDelay({ resolution: 1 })
      delay.enable()
      times.push(await timeMs(() => engine.constraints.hold(grammar).then((release) => release())))
      delay.disable()
      pauses.push(Math.round(delay.max / 1e5) / 10)
    }
    rows.push({ schema: name, firstMs: times[0], secondMs: times[1], longestPauseMs: Math.max(...pauses) })
  }
  await engine.close()
  process.stdout.write(
    `${JSON.stringify({ model, vocabulary: engine.model.vocabSize, startMs, rows }, null, 1)}\n`,
  )
}

async function timeMs(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now()
  await work()
  return Math.round(10 * (performance.now() - from)) / 10
}

await main()
