/** Grammars followed in the thread of a test. */
import { CallingFollower } from "./calling-follower.ts"
import { boundsOf, markBytes, partMark, TokenLengths } from "./counted.ts"
import { Follower } from "./follower.ts"
import { FreeText, Spellings } from "./free-text.ts"
import { tokenBytes, type Vocabulary, vocabularySize } from "./vocabulary.ts"
import { loadXGrammar } from "./xgrammar.ts"
import { held, zonesHeader, zonesOf } from "./zones.ts"

/** Free text in which a brace begins two digits and a brace; and what fits it, as far as it has come. */
export const FREE_TEXT = `${zonesHeader({
  ...{ from: 0, zones: [{ calm: true, until: [["{", held(0)]] }], parts: [0] },
})}root ::= "${partMark(0)}" [0-9] [0-9] "}"`
export const FITS_FREE_TEXT = /^([^{]|\{[0-9]{2}\})*(\{[0-9]{0,2})?$/s

/** A vocabulary of every byte, of these texts, and of one end token, the last. */
export function vocabularyWith(texts: readonly string[]): Vocabulary {
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte))
  const tokens = [...bytes, ...texts.map((text) => new TextEncoder().encode(text)), new Uint8Array(0)]
  const starts = new Uint32Array(tokens.length + 1)
  for (const [token, { length }] of tokens.entries()) starts[token + 1] = starts[token]! + length
  return { bytes: Uint8Array.from(Buffer.concat(tokens)), starts, ends: [tokens.length - 1] }
}

export interface Judge {
  vocabulary: Vocabulary
  /** At the beginning of an answer. Throws for what is no grammar. */
  start(grammar: string): Promise<Follower | CallingFollower>
  /** Whether a text is let through to its end: byte by byte, or in the longest tokens that it is made of. */
  accepts(grammar: string, text: string, how?: "bytes" | "longest"): Promise<boolean>
}

export async function judge(texts: readonly string[] = []): Promise<Judge> {
  const vocabulary = vocabularyWith(texts)
  const size = vocabularySize(vocabulary)
  const library = loadXGrammar()
  const tokens = Array.from({ length: size }, (_, token) => tokenBytes(vocabulary, token))
  const all = [...tokens, ...markBytes()] as unknown as string[]
  const info = await library.TokenizerInfo.createTokenizerInfo(all, "raw", false, all.length, vocabulary.ends)
  const compiler = await library.GrammarCompiler.createGrammarCompiler(info, false)
  const lengths = new TokenLengths(vocabulary)
  const spellings = new Spellings(vocabulary)
  const known = new Map<string, FreeText>()
  const longest = texts.toSorted((a, b) => b.length - a.length)

  const start = async (grammar: string) => {
    let text = known.get(grammar)
    if (text === undefined) {
      const compiled = await compiler.compileGrammar(grammar)
      const course = { library, compiled, bounds: boundsOf(grammar), vocabulary, lengths }
      const zones = zonesOf(grammar)
      if (zones === null) return Follower.start(course)
      text = new FreeText(zones, course, spellings)
      known.set(grammar, text)
    }
    return new CallingFollower(text)
  }
  const split = (text: string): number[] => {
    const out: number[] = []
    while (text !== "") {
      const token = longest.find((one) => text.startsWith(one))
      const piece = token ?? String.fromCodePoint(text.codePointAt(0)!)
      if (token !== undefined) out.push(256 + texts.indexOf(token))
      else out.push(...new TextEncoder().encode(piece))
      text = text.slice(piece.length)
    }
    return out
  }
  return {
    vocabulary,
    start,
    async accepts(grammar, text, how = "bytes") {
      const follower = await start(grammar)
      const path = how === "bytes" ? [...new TextEncoder().encode(text)] : split(text)
      try {
        for (const token of [...path, vocabulary.ends[0]!]) if (!(await follower.take(token))) return false
        return true
      } finally {
        follower.dispose()
      }
    },
  }
}
