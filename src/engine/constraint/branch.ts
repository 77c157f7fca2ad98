/** One way through a grammar: XGrammar's matcher, and the count of the bounded string that it is in. */
import { isUtf8 } from "node:buffer"
import type { CompiledGrammar, GrammarMatcher } from "@mlc-ai/web-xgrammar"
import { type Bounds, type Count, countFrom, MOST_BOUNDS, read, type TokenLengths } from "./counted.ts"
import { allows } from "./mask.ts"
import { tokenBytes, type Vocabulary, vocabularySize } from "./vocabulary.ts"
import type { XGrammar } from "./xgrammar.ts"

/** What all ways through a grammar have in common. */
export interface Course {
  library: XGrammar
  compiled: CompiledGrammar
  bounds: readonly Bounds[]
  vocabulary: Vocabulary
  /** Only where there are bounds. */
  lengths: TokenLengths | null
}

/** A held part of a text (zones.ts), and the bytes of it that were read before, a character each. */
export interface Beginning {
  part: number
  text: string
}

/** Whether a part may begin with these bytes. */
export async function beginsWith(course: Course, part: number, text: string): Promise<boolean> {
  const matcher = await course.library.GrammarMatcher.createGrammarMatcher(course.compiled)
  const begins = begin(matcher, course, { part, text })
  matcher.dispose()
  return begins
}

function begin(matcher: GrammarMatcher, { vocabulary }: Course, { part, text }: Beginning): boolean {
  if (!matcher.acceptToken(vocabularySize(vocabulary) + MOST_BOUNDS + part))
    throw new Error("a grammar lacks a part that it names")
  if (text === "") return true
  const utf8 = Buffer.from(text, "latin1")
  return isUtf8(utf8) && matcher._acceptString(utf8.toString("utf8"))
}

/** Where a branch was, to go back to. */
export interface Place {
  taken: number
  count: Count | null
  ended: boolean
  settled: Int32Array | null
}

export class Branch {
  readonly #course: Course
  readonly #matcher: GrammarMatcher
  /** Tokens and marks that the matcher has taken. */
  readonly #taken: number[] = []
  #count: Count | null = null
  #ended = false
  #settled: Int32Array | null = null

  readonly #beginning: Beginning | null

  /** Throws where its part cannot begin so. */
  static async start(course: Course, beginning: Beginning | null = null): Promise<Branch> {
    const matcher = await course.library.GrammarMatcher.createGrammarMatcher(course.compiled)
    if (beginning !== null && !begin(matcher, course, beginning))
      throw new Error("a part of a grammar begins with what it does not allow")
    return new Branch(course, matcher, beginning)
  }

  private constructor(course: Course, matcher: GrammarMatcher, beginning: Beginning | null) {
    this.#course = course
    this.#matcher = matcher
    this.#beginning = beginning
  }

  get place(): Place {
    const count = this.#count && { ...this.#count }
    return { taken: this.#taken.length, count, ended: this.#ended, settled: this.#settled }
  }

  /** False, and where it was, when the grammar does not let the token come. Bounds are not looked at. */
  take(token: number): boolean {
    if (this.#ended || !this.#matcher.acceptToken(token)) return false
    this.#taken.push(token)
    this.#ended = this.#course.vocabulary.ends.includes(token)
    if (this.#count) {
      read(this.#count, tokenBytes(this.#course.vocabulary, token))
      if (this.#count.closed) this.#count = null
    }
    return true
  }

  back({ taken, count, ended, settled }: Place): void {
    if (this.#taken.length > taken) this.#matcher.rollBack(this.#taken.length - taken)
    this.#taken.length = taken
    this.#count = count && { ...count }
    this.#ended = ended
    this.#settled = settled
  }

  /** Tokens that may come next, marks included: bounded strings may begin. */
  async next(): Promise<Int32Array> {
    // XGrammar throws when asked what comes after the end.
    if (this.#ended) return new Int32Array(Math.ceil(vocabularySize(this.#course.vocabulary) / 32) + 3)
    return this.#matcher.getNextTokenBitmask()
  }

  /** Marks among what may come next, the widest bounds first. */
  marksOf(mask: Int32Array): number[] {
    const size = vocabularySize(this.#course.vocabulary)
    const marks = [...this.#course.bounds.keys()].filter((mark) => allows(mask, size + mark))
    return marks.toSorted((a, b) => this.#course.bounds[b]!.max - this.#course.bounds[a]!.max)
  }

  /** Goes on in the bounded string that a mark begins. */
  enter(mark: number): void {
    const token = vocabularySize(this.#course.vocabulary) + mark
    if (!this.#matcher.acceptToken(token)) throw new Error("XGrammar refuses what it has offered")
    this.#taken.push(token)
    this.#count = countFrom(this.#course.bounds[mark]!)
  }

  /** Another that is at the same place. */
  async fork(): Promise<Branch> {
    const branch = await Branch.start(this.#course, this.#beginning)
    for (const token of this.#taken) branch.#matcher.acceptToken(token)
    branch.#taken.push(...this.#taken)
    branch.#count = this.#count && { ...this.#count }
    return branch
  }

  /** Remembers, of a mask of what comes next, what is in the vocabulary and within the bounds of the string that it is
   * in; and answers that. */
  settle(mask: Int32Array): Int32Array {
    const size = vocabularySize(this.#course.vocabulary)
    const words = mask.slice(0, Math.ceil(size / 32))
    if (size % 32 !== 0) words[words.length - 1]! &= (1 << (size % 32)) - 1
    this.#course.lengths?.withoutMarks(words)
    if (this.#count) this.#course.lengths!.restrict(words, this.#count)
    this.#settled = words
    return words
  }

  /** Of the mask last settled. */
  allowed(token: number): boolean {
    return this.#settled !== null && allows(this.#settled, token)
  }

  dispose(): void {
    this.#matcher.dispose()
  }
}
