/** Prompts whose answers are known to the token: asked for before anything is done to the server, and of a real engine only
 * those that come out the same when they are computed anew from several places on. */
import { openLlama } from "../../../src/engine/llama/engine.ts"
import { type Engine, GREEDY } from "../../../src/engine/port.ts"
import { resolveModel } from "../../../src/models/resolve.ts"
import { answers } from "../answers.ts"
import { follow } from "./stream.ts"

export interface Transcript {
  prompt: string
  tokens: number
  text: string
}

const SUBJECTS = ["the sea", "bread", "a city", "stars", "two friends", "paper", "a late train", "tomatoes"]
const MANNERS = ["Tell me about", "What is best about", "Write a letter on", "Sing of"]
const [LEAST_TOKENS, TOKENS_STEP] = [80, 40]
/** Shares of an answer after which it is computed anew. */
const CUTS = [0.1, 0.35, 0.6, 0.9]

export interface Asked {
  prompt: string
  tokens: number
}

export const ASKED: readonly Asked[] = MANNERS.flatMap((manner, m) =>
  SUBJECTS.map((subject, s) => ({
    prompt: `${manner} ${subject}, please.`,
    tokens: LEAST_TOKENS + TOKENS_STEP * ((m + s) % 6),
  })),
)

/** What a server answers that nothing happens to. Throws where it does not answer twice alike. */
export async function recorded(url: string, asked: readonly Asked[]): Promise<Transcript[]> {
  const found: Transcript[] = []
  for (const one of asked) {
    const [first, again] = await Promise.all([follow(url, one), follow(url, one)])
    if (first.end !== "ok" || first.tokens !== one.tokens)
      throw new Error(
        `no answer of ${one.tokens} tokens without faults: ${first.end}, ${first.tokens} tokens`,
      )
    if (first.text !== again.text) throw new Error(`answered differently without faults: ${one.prompt}`)
    found.push({ ...one, text: first.text })
  }
  return found
}

/** Those of the prompts whose greedy answer is the same however it is cut: with random weights near ties are common, and a
 * prompt computed in one pass rounds otherwise than token after token. */
export async function exactOf(model: string, asked: readonly Asked[]): Promise<Asked[]> {
  const { path } = await resolveModel(model)
  const options = { modelPath: path, threads: 1, maxSequences: 4, contextTokens: 1024, maxBatchTokens: 256 }
  const engine = await openLlama({ ...options, kvType: "f32", flashAttention: false, library: "cpu" })
  const exact: Asked[] = []
  for (const one of asked) if (await isExact(engine, one)) exact.push(one)
  await engine.close()
  return exact
}

async function isExact(engine: Engine, { prompt, tokens }: Asked): Promise<boolean> {
  const encoded = await engine.tokenizer.encode(prompt, { special: false, addBos: false })
  const asked = { ...GREEDY, ignoreEos: true }
  const [whole] = await answers(engine, encoded, asked, [[]], tokens)
  const known = CUTS.map((share) => whole!.slice(0, Math.floor(share * tokens)))
  const again = await answers(engine, encoded, asked, known, tokens)
  return again.every((answer) => answer.every((token, i) => token === whole![i]))
}
