/** A process with an engine of one library, which computes what it is told and says what CPU time that took (library.ts). */
import { type LlamaEngine, openLlama } from "../engine/llama/engine.ts"
import { GREEDY } from "../engine/port.ts"

export type SpeedAsk = { type: "open"; library: string; modelPath: string } | { type: "measure" }

/** CPU time, ms. */
export interface Speed {
  promptMs: number
  decodesMs: number
}

const PROMPT_TOKENS = 512
const PIECE_TOKENS = 128
/** Requests that decode together, after so many tokens, and how often. */
const [SEQUENCES, CONTEXT_TOKENS, DECODES] = [8, 64, 16]

let engine: LlamaEngine
let nextId = 1

async function execute(items: { id: number; position: number; tokens: number }[], release: number[] = []) {
  const step = { number: 0, evict: [], release, predictedUs: 0 }
  const output = await engine.execute({
    ...step,
    items: items.map((item) => ({ ...item, sample: item.tokens === 1, draft: 0 })),
  })
  if (!output.ok) throw new Error(output.message)
}

async function measure(): Promise<Speed> {
  const ids = Array.from({ length: SEQUENCES }, () => nextId++)
  const words = Int32Array.from({ length: PROMPT_TOKENS }, (_, i) => 32 + ((i * 97 + nextId) % 200))
  const prompt = async (id: number, to: number) => {
    for (let position = 0; position < to; position += PIECE_TOKENS)
      await execute([{ id, position, tokens: Math.min(PIECE_TOKENS, to - position) }])
  }
  const whole = nextId++
  engine.open(whole, words, { ...GREEDY, ignoreEos: true })
  const promptMs = await cpuMs(() => prompt(whole, PROMPT_TOKENS - 1))
  await execute([], [whole])
  const short = words.slice(0, CONTEXT_TOKENS)
  for (const id of ids) engine.open(id, short, { ...GREEDY, ignoreEos: true })
  for (const id of ids) await prompt(id, CONTEXT_TOKENS - 1)
  const decodesMs = await cpuMs(async () => {
    for (let i = 0; i < DECODES; i++)
      await execute(ids.map((id) => ({ id, position: CONTEXT_TOKENS - 1 + i, tokens: 1 })))
  })
  await execute([], ids)
  return { promptMs, decodesMs: decodesMs / DECODES }
}

async function cpuMs(work: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

process.on("message", async (ask: SpeedAsk) => {
  if (ask.type === "measure") {
    process.send!(await measure())
    return
  }
  const { library, modelPath } = ask
  engine = await openLlama({
    ...{ modelPath, library, threads: 1, maxSequences: SEQUENCES, maxBatchTokens: PIECE_TOKENS },
    contextTokens: 2 * PROMPT_TOKENS,
  })
  process.send!("ready")
})
process.on("disconnect", () => process.exit(0))
