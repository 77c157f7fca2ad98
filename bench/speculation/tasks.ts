/** What is asked in the paired runs: work whose answers repeat their prompts, and work whose answers do not. */
import { readFile } from "node:fs/promises"
import { type Engine, GREEDY, type Sampling } from "../../src/engine/port.ts"
import { Random } from "../../src/random.ts"

/** Random weights with so few words at hand fall into loops. */
const FEW_WORDS: Sampling["logitBias"] = [20, 21, 22].map((token) => [token, 9])

export interface Task {
  name: string
  /** Whether drafting is expected to pay; the others must not lose. */
  repeats: boolean
  prompts: readonly Int32Array[]
  /** Of the `i`th request; the same with and without speculation. */
  sampling(i: number): Sampling
}

/** Prompts of about `tokens` tokens, `count` a task: for real weights text, for random ones noise. */
export async function tasksFor(engine: Engine, tokens: number, count: number): Promise<Task[]> {
  const greedy = () => ({ ...GREEDY, ignoreEos: true })
  const sampled = (temperature: number) => (i: number) => ({ ...greedy(), temperature, seed: 1 + i })
  const noises = Array.from({ length: count }, (_, i) => noise(engine, tokens, i))
  if (engine.model.random) {
    return [
      {
        name: "loops",
        repeats: true,
        prompts: noises,
        sampling: () => ({ ...greedy(), logitBias: FEW_WORDS }),
      },
      { name: "noise", repeats: false, prompts: noises, sampling: sampled(2) },
    ]
  }
  const here = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), "utf8")
  const [code, prose] = [await here("src/core/cost.ts"), await here("docs/evaluation.md")]
  const ask = (text: string) => async (_: unknown, i: number) => {
    const chat = `<|im_start|>user\n${text.replace("$", String(i))}<|im_end|>\n<|im_start|>assistant\n`
    return engine.tokenizer.encode(chat, { special: true, addBos: false })
  }
  // Three characters a token, and the template's own tokens beside.
  const piece = (text: string, i: number) => text.slice(i * 700, i * 700 + 3 * (tokens - 45))
  const prompts = (text: (i: number) => string) =>
    Promise.all(Array.from({ length: count }, (_, i) => ask(text(i))(null, i)))
  const rewrite = "Rewrite this code exactly, but rename `model` to `costModel`:\n\n"
  const quote = "Quote the most important sentences of this text word for word:\n\n"
  const story =
    "Write a wild story, full of surprising words, that begins with a clock which strikes $ o'clock."
  return [
    {
      name: "code edit",
      repeats: true,
      prompts: await prompts((i) => rewrite + piece(code, i)),
      sampling: greedy,
    },
    {
      name: "summary with quotes",
      repeats: true,
      prompts: await prompts((i) => quote + piece(prose, i)),
      sampling: greedy,
    },
    { name: "story", repeats: false, prompts: await prompts(() => story), sampling: sampled(1) },
  ]
}

function noise(engine: Engine, tokens: number, i: number): Int32Array {
  const random = new Random("noise", i)
  const most = Math.min(2000, engine.model.vocabSize - 10)
  return Int32Array.from({ length: tokens }, () => random.integer(30, most))
}
