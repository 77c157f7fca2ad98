/** What the fake engine answers: plausible English-looking words, a pure function of a seed. */

import { Random } from "../../random.ts"
import { fakeTokenizer } from "./tokenizer.ts"

const WORDS =
  "the of a to and in is it that was for on are with as they be at one have this from by hot word but what some you had each which their time will way about many then them would write like so these her long make thing see him two has look more day could go come did number sound no most people over know water than call first who may down side been now find any new work part take get place made live where after back little only round man year came show every good give our under name".split(
    " ",
  )

/** An endless text; token n depends on the seed and n alone. */
export class FakeText {
  readonly #random: Random
  readonly #tokens: number[] = []
  #sentence = 0

  constructor(seed: number) {
    this.#random = new Random(seed)
  }

  token(index: number): number {
    while (this.#tokens.length <= index) this.#tokens.push(...fakeTokenizer.encodeSync(this.#word(), RAW))
    return this.#tokens[index]!
  }

  #word(): string {
    const word = WORDS[this.#random.below(WORDS.length)]!
    if (this.#sentence > 0) {
      this.#sentence--
      return this.#sentence === 0 ? ` ${word}.` : ` ${word}`
    }
    this.#sentence = 4 + this.#random.below(9)
    const lead = this.#tokens.length === 0 ? "" : " "
    return lead + word[0]!.toUpperCase() + word.slice(1)
  }
}

const RAW = { special: false, addBos: false } as const
