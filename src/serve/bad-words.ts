/** Words that an answer shall not have, as the model's tokens: each with a blank before it and without, since vocabularies
 * have other tokens for a word within a text than at its beginning. vLLM leaves out those with a blank that take more or
 * fewer tokens, and lets such words come. */
import { setImmediate } from "node:timers/promises"
import type { Sampling, Tokenizer } from "../engine/port.ts"
import type { Generation } from "../replica/generation.ts"

type Sequences = readonly (readonly number[])[]

/** Read at one go: a millisecond, about. */
const WORDS_AT_ONCE = 50

export class BadWords {
  readonly #tokenizer: Tokenizer
  /** The prompts of a request have them in common. */
  readonly #read = new WeakMap<readonly string[], Promise<Sequences>>()

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
  }

  /** Sampling without them. */
  async keepOut({ badWords }: Generation, sampling: Sampling): Promise<Sampling> {
    if (badWords === undefined) return sampling
    const read = this.#read.get(badWords) ?? badWordTokens(this.#tokenizer, badWords)
    this.#read.set(badWords, read)
    return { ...sampling, badWords: await read }
  }
}

export async function badWordTokens(tokenizer: Tokenizer, words: readonly string[]): Promise<Sequences> {
  const found = new Map<string, readonly number[]>()
  for (const [i, word] of words.entries()) {
    const bare = word.replace(/^ +/, "")
    // Of blanks alone nothing would be left.
    for (const text of bare === "" ? [word] : [bare, ` ${bare}`]) {
      const tokens = await tokenizer.encode(text, { special: false, addBos: false })
      if (tokens.length > 0) found.set(tokens.join(), [...tokens])
    }
    if (i % WORDS_AT_ONCE === WORDS_AT_ONCE - 1) await setImmediate()
  }
  return [...found.values()]
}
