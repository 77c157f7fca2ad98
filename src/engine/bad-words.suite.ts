/** One suite for words that answers shall not have, on every engine and drafter. */
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import type { EngineLimits } from "../core/protocol.ts"
import { promptOf, Script } from "./engine.script.ts"
import type { Engine, Sampling } from "./port.ts"

export interface BadWordsSubject {
  name: string
  /** Token by token the same result however a request is batched (docs/design.md, Engine). */
  open(
    sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">,
    speculates: boolean,
  ): Promise<Engine>
}

const TOKENS = 30

export function badWordsSuite({ name, open }: BadWordsSubject): void {
  const opened = (speculates: boolean) =>
    open({ maxSequences: 4, unifiedKv: false, kvTokens: 1024 }, speculates)
  describe(`${name}: bad words`, () => {
    let engine: Engine
    let run: Script
    beforeEach(async () => {
      engine = await opened(false)
      run = new Script(engine)
    })
    afterEach(() => engine.close())

    async function answer(prompt: Int32Array, sampling: Partial<Sampling>, script = run, draft = 0) {
      const id = script.open(prompt, { ignoreEos: true, ...sampling })
      let drafted = 0
      while (script.output(id).length < TOKENS && !script.ended(id))
        for (const row of await script.step([script.speculating(id, 128, draft)])) drafted += row.drafted
      const tokens = script.output(id)
      await script.drop(id)
      return { tokens, drafted }
    }

    const drawings: [string, Partial<Sampling>][] = [
      ["the likeliest", {}],
      ["drawn", { temperature: 1.1, seed: 7 }],
      ["of few", { temperature: 0.8, topK: 3, seed: 8 }],
      ["with penalties", { repeatPenalty: 1.2, frequencyPenalty: 0.2 }],
    ]
    test.each(drawings)("%s: all is as without until one would be complete", async (_, sampling) => {
      const prompt = promptOf(80, 20)
      const { tokens: plain } = await answer(prompt, sampling)
      for (const [from, length] of [
        [0, 1],
        [4, 1],
        [3, 2],
        [10, 5],
      ] as const) {
        const word = plain.slice(from, from + length)
        const at = indexOf(plain, word) + length - 1
        const { tokens } = await answer(prompt, { ...sampling, badWords: [[255, 255, 1], word] })
        // Of one token it is kept out from the first on: what is drawn instead of it is another's share.
        if (length > 1 || !sampling.temperature) {
          expect(tokens.slice(0, at)).toEqual(plain.slice(0, at))
          expect(tokens[at]).not.toBe(plain[at])
        }
        expect(indexOf(tokens, word)).toBe(-1)
        expect(tokens).toHaveLength(TOKENS)
      }
    })

    test("what the prompt ends with begins none", async () => {
      const prompt = promptOf(81, 20)
      const { tokens: plain } = await answer(prompt, {})
      const { tokens } = await answer(prompt, { badWords: [[prompt.at(-1)!, plain[0]!]] })
      expect(tokens[0]).toBe(plain[0])
    })

    test("a grammar goes other ways, and counts more where it has none", async () => {
      const bytesOf = async (text: string) => [
        ...(await engine.tokenizer.encode(text, { special: false, addBos: false })),
      ]
      const said = async (grammar: string, badWords: number[][]) => {
        const release = await engine.constraints.hold(grammar)
        const { tokens } = await answer(promptOf(82, 12), { grammar, badWords, ignoreEos: false })
        release()
        return Buffer.concat(tokens.map((token) => engine.tokenizer.bytes(token))).toString()
      }
      const other = await said('root ::= "yes" | "no"', [await bytesOf("y")])
      // A model may have tokens for more than the letter.
      expect(["yes", "no"]).toContain(other)
      const [y, n] = [await bytesOf("y"), await bytesOf("n")]
      expect([y.length, n.length]).toEqual([1, 1])
      const grammar = 'root ::= [a-z] [a-z] "!"'
      const letters = await Promise.all([..."abcdefghijklmnopqrstuvwxyz!"].map(bytesOf))
      expect(await said(grammar, letters)).toMatch(/^[a-z]{2}!$/)
      const most = letters.filter((letter) => letter[0] !== y[0])
      expect(await said('root ::= [a-z]{1,1} "!"', most)).toBe("y!")
    })

    test.each(drawings)("%s: drafts are verified under them", async (_, sampling) => {
      const prompt = promptOf(83, 40)
      const logitBias = [20, 21, 22].map((token) => [token, 9] as const)
      const badWords = [[20, 21], [22, 22], [20, 20, 20], [101], [32, 116]]
      const held = { ...sampling, logitBias, badWords }
      const { tokens: plain } = await answer(prompt, held)
      const speculating = await opened(true)
      const { tokens, drafted } = await answer(prompt, held, new Script(speculating), 5)
      await speculating.close()
      expect(tokens.slice(0, TOKENS)).toEqual(plain)
      for (const word of badWords) expect(indexOf(tokens, word)).toBe(-1)
      // What is penalized does not repeat, and lookup has nothing to offer.
      if (sampling.repeatPenalty === undefined) expect(drafted).toBeGreaterThan(0)
    })
  })
}

/** Of the first run of these tokens; -1: there is none. */
function indexOf(tokens: readonly number[], word: readonly number[]): number {
  return tokens.findIndex((_, i) => word.every((token, k) => tokens[i + k] === token))
}
