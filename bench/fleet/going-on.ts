/** Streams that go on on another engine: how many of them say what they would have said, by how exact the engine is,
 * and what it costs to bring an engine and a text to where the other one stopped. */
import { Command } from "commander"
import { median } from "simple-statistics"
import { wholeNumber } from "../../src/cli/numbers.ts"
import { progressOf, type SeenStep } from "../../src/core/seen.ts"
import { fakeEngine } from "../../src/engine/fake/engine.ts"
import { openLlama } from "../../src/engine/llama/engine.ts"
import { type Engine, GREEDY, type Sampling } from "../../src/engine/port.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { PrefixHasher } from "../../src/serve/prefix.ts"
import { Answer } from "../../src/text/answer.ts"
import { answers } from "./answers.ts"

const SEQUENCES = 4
const OUTPUT_TOKENS = 96
/** Tokens that had come when the first engine was lost. */
const CUTS = [1, 8, 24, 40, 56, 72, 80, 88]
const SUBJECTS = [
  "the sea and its tides",
  "how bread is baked",
  "a city in winter",
  "why stars shine",
  "two friends and a dog",
  "the history of paper",
  "a train that is late",
  "growing tomatoes",
]
const SAMPLINGS: Record<string, Partial<Sampling>> = {
  greedy: {},
  seeded: { temperature: 0.8, topP: 0.95, seed: 7 },
  penalized: { repeatPenalty: 1.2, frequencyPenalty: 0.1, repeatLastTokens: 64 },
}
const COST_TOKENS = [256, 1024, 4096, 8000]

interface Options {
  models: string[]
  threads: number
  prompts: number
}

async function main(): Promise<void> {
  const options = new Command("bench/fleet/going-on.ts")
    .option("--models <names>", "as for serve, by commas", (text: string) => text.split(","), [
      "tiny-f32",
      "smollm2-135m",
    ])
    .option("--threads <n>", "of the engines", wholeNumber(1, 512), 1)
    .option("--prompts <n>", `of each model, at most ${SUBJECTS.length}`, wholeNumber(1, SUBJECTS.length), 8)
    .parse()
    .opts<Options>()
  console.log(JSON.stringify(await costs(options)))
  for (const model of options.models)
    for (const kvType of ["f32", "f16"] as const)
      console.log(JSON.stringify(await exactness(model, kvType, options)))
}

/** Answers whole on one engine, and cut and gone on with on another. */
async function exactness(model: string, kvType: "f32" | "f16", { threads, prompts }: Options) {
  const [first, second] = [await open(model, kvType, threads), await open(model, kvType, threads)]
  const found: Record<string, object> = {}
  for (const [name, sampling] of Object.entries(SAMPLINGS)) {
    let [same, cuts, together] = [0, 0, 0]
    const until: number[] = []
    for (const subject of SUBJECTS.slice(0, prompts)) {
      const prompt = await first.tokenizer.encode(`Tell me about ${subject}.`, {
        special: false,
        addBos: false,
      })
      const asked = { ...GREEDY, ignoreEos: true, ...sampling }
      const [whole] = await answers(first, prompt, asked, [[]], OUTPUT_TOKENS)
      // What batching alone makes of an answer, without any cut: other shapes are other roundings.
      const [beside] = await answers(second, prompt, asked, [[], [], [], []], OUTPUT_TOKENS)
      if (beside!.every((token, place) => token === whole![place])) together++
      const known = CUTS.map((cut) => whole!.slice(0, cut))
      for (const [i, tokens] of (await answers(second, prompt, asked, known, OUTPUT_TOKENS)).entries()) {
        const at = tokens.findIndex((token, place) => token !== whole![place])
        cuts++
        if (at < 0) same++
        else until.push(at - CUTS[i]!)
      }
    }
    const differing = until.length === 0 ? null : median(until)
    const uncut = { answers: prompts, sameInABatchOfFour: together }
    found[name] = { cuts, same, medianTokensBeforeTheyDiffer: differing, uncut }
  }
  await first.close()
  await second.close()
  return { model, kvType, threads, ...found }
}

async function open(model: string, kvType: "f32" | "f16", threads: number): Promise<Engine> {
  const { path } = await resolveModel(model)
  return openLlama({
    ...{ modelPath: path, threads, maxSequences: SEQUENCES, contextTokens: 512, maxBatchTokens: 256 },
    ...{ kvType, flashAttention: false, library: "cpu" },
  })
}

let ids = 0
/** What the replica that goes on does before its first step, by the tokens that are out: ms of its event loop, and of
 * the grammar thread. */
async function costs({ threads }: Options) {
  const { path } = await resolveModel("tiny-f32")
  const llama = await openLlama({
    ...{
      modelPath: path,
      threads,
      maxSequences: 2,
      contextTokens: 8192,
      maxBatchTokens: 64,
      library: "cpu",
    },
  })
  const prompt = Int32Array.of(70, 71, 72)
  const rows = []
  for (const count of COST_TOKENS) {
    const output = await textOf(llama, count)
    const seeded = { ...GREEDY, temperature: 1, seed: 3, repeatPenalty: 1.1 }
    const id = ++ids
    const openMs = timed(() => llama.open(id, prompt, seeded, output))
    const steps = [...output].map((token) => [token])
    const answer = new Answer(llama.tokenizer, { delta() {}, end() {} }, ANSWER)
    const textMs = timed(() => steps.map((step) => answer.replay(step)))
    const hashMs = timed(() => new PrefixHasher(16).push(output))
    const seen = steps.map((_, i): SeenStep => ({ atUs: 1000 * i, tokens: 1, answeringFrom: -1 }))
    const progressMs = timed(() => progressOf(specOf(count), { steps: seen, prefix: [] }, () => 0))
    rows.push({ tokens: count, openMs, textMs, hashMs, progressMs, grammarMs: await grammarMs(output) })
  }
  await llama.close()
  return { costs: rows }
}

const ANSWER = {
  ...{ promptTokens: 3, thinking: true, thinkingTokens: null },
  text: { stops: ["\n\nHuman:", "STOP"], think: { opened: false }, calls: null },
}
const specOf = (outputTokens: number) => ({
  ...{
    id: 1,
    app: 0,
    session: -1,
    arrivalUs: 0,
    promptTokens: 3,
    maxOutputTokens: outputTokens + 1,
    prefix: [],
  },
  slo: { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: 1e5, thinkingTpotUs: 1e5, maxGapUs: Infinity },
  ...{ tier: "slo" as const, thinking: true },
})

async function textOf({ tokenizer }: Engine, count: number): Promise<Int32Array> {
  const text = "What was said so far, and then some more of it: 1, 2, 3. ".repeat(count)
  return (await tokenizer.encode(text, { special: false, addBos: false })).slice(0, count)
}

/** From an answer of these tokens to its first mask on a new engine, of bytes. */
async function grammarMs(output: Int32Array): Promise<number> {
  const limits = {
    ...{
      kvTokens: 1 << 20,
      blockTokens: 16,
      maxSequences: 2,
      maxBatchTokens: 1 << 20,
      contextTokens: 1 << 20,
    },
    ...{ minChunkTokens: 1, unifiedKv: true },
  }
  const cost = { pieces: [{ step: 0 }], residualSigma: 0, fastPassTokens: 1, unifiedKv: true }
  const engine = fakeEngine({ cost, limits, time: "real" })
  const grammar = `root ::= "{" ("\\"" [a-z]* "\\": " [0-9]+ ", ")* "}"`
  const release = await engine.constraints.hold(grammar)
  const said = Int32Array.from(Buffer.from(`{${'"count": 12345, '.repeat(output.length)}`)).slice(
    0,
    output.length,
  )
  const id = ++ids
  engine.open(id, Int32Array.of(70), { ...GREEDY, grammar }, said)
  const from = performance.now()
  const item = { id, position: 0, tokens: said.length + 1, sample: true, draft: 0 }
  const step = await engine.execute({ number: 1, items: [item], evict: [], release: [], predictedUs: 0 })
  if (!step.ok) throw new Error(step.message)
  const ms = performance.now() - from
  release()
  await engine.close()
  return Number(ms.toFixed(2))
}

function timed(work: () => unknown): number {
  const from = performance.now()
  work()
  return Number((performance.now() - from).toFixed(2))
}

await main()
