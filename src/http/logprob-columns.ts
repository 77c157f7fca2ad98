/** Log-probabilities as completions have them: in columns, with where the text of each token begins. Places are counted in
 * characters (code points), as Python's clients index texts. */
import type { TextLogprob } from "../text/answer.ts"

export interface LogprobColumns {
  tokens: string[]
  token_logprobs: (number | null)[]
  top_logprobs: (Record<string, number> | null)[]
  text_offset: number[]
}

/** Of one choice, from its beginning to its end. */
export class ColumnWriter {
  /** Characters that are whole, so far. */
  #characters = 0
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true })

  /** `echo`: the text before the answer. */
  constructor(echo: string) {
    this.#characters = [...echo].length
  }

  answer(entries: readonly TextLogprob[]): LogprobColumns {
    return columnsOf(
      entries,
      entries.map(({ bytes }) => {
        const at = this.#characters
        this.#characters += [...this.#decoder.decode(bytes, { stream: true })].length
        return at
      }),
    )
  }
}

/** Of a prompt's tokens; its first one follows nothing. */
export function promptColumns(text: string, entries: readonly TextLogprob[]): LogprobColumns {
  const columns = columnsOf(entries, offsetsIn(text, entries))
  columns.token_logprobs[0] = null
  columns.top_logprobs[0] = null
  return columns
}

export function joinColumns(first: LogprobColumns, second: LogprobColumns): LogprobColumns {
  return {
    tokens: [...first.tokens, ...second.tokens],
    token_logprobs: [...first.token_logprobs, ...second.token_logprobs],
    top_logprobs: [...first.top_logprobs, ...second.top_logprobs],
    text_offset: [...first.text_offset, ...second.text_offset],
  }
}

function columnsOf(entries: readonly TextLogprob[], offsets: number[]): LogprobColumns {
  return {
    tokens: entries.map(spelt),
    token_logprobs: entries.map(({ logprob }) => logprob),
    top_logprobs: entries.map((entry) =>
      // The token itself always, even where it is not among the likeliest. The engine was asked for one more than is wanted.
      Object.fromEntries([...entry.top.slice(0, -1), entry].map((other) => [spelt(other), other.logprob])),
    ),
    text_offset: offsets,
  }
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** As OpenAI writes tokens: those that are no whole characters by their bytes, so that no two are the same. */
export function spelt({ bytes, control }: Omit<TextLogprob, "logprob" | "top">): string {
  if (control !== undefined) return control
  try {
    return strict.decode(bytes)
  } catch {
    return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`
  }
}

/** Where each token begins in the text that was read as these tokens. A control token has no text, unless it is spelt there;
 * some tokenizers set a blank before the first. */
function offsetsIn(text: string, entries: readonly TextLogprob[]): number[] {
  const bytes = Buffer.from(text)
  let at = 0
  let characters = 0
  const advance = (count: number) => {
    for (const end = Math.min(bytes.length, at + count); at < end; at++)
      if (!continues(bytes[at]!)) characters++
  }
  let begun = false
  return entries.map((entry) => {
    const inside = at < bytes.length && continues(bytes[at]!)
    const offset = inside ? characters - 1 : characters
    const own = entry.control === undefined ? entry.bytes : Buffer.from(entry.control)
    const isThere = bytes.subarray(at, at + own.length).equals(own)
    if (isThere) advance(own.length)
    else if (entry.control === undefined) advance(own.length - (!begun && own[0] === BLANK ? 1 : 0))
    begun ||= entry.control === undefined
    return offset
  })
}

const BLANK = 0x20

/** A byte of a character that has begun before it. */
function continues(byte: number): boolean {
  return (byte & 0xc0) === 0x80
}
