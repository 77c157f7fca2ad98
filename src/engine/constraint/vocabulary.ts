/** A model's vocabulary as a grammar engine wants it: the bytes of every token, end to end, ready for another thread. */
import { setImmediate } from "node:timers/promises"
import type { Tokenizer } from "../port.ts"

export interface Vocabulary {
  bytes: Uint8Array
  /** Token n has the bytes [starts[n], starts[n + 1]); none: a control token, which no text is made of. */
  starts: Uint32Array
  /** End-of-generation tokens. */
  ends: number[]
}

/** Tokens read before the event loop has its turn: a quarter of a millisecond. */
const SLICE_TOKENS = 512

export async function vocabularyOf(tokenizer: Tokenizer, size: number): Promise<Vocabulary> {
  const tokens: Uint8Array[] = []
  for (let token = 0; token < size; token++) {
    if (token % SLICE_TOKENS === 0) await setImmediate()
    tokens.push(tokenizer.bytes(token))
  }
  const starts = new Uint32Array(size + 1)
  for (const [token, { length }] of tokens.entries()) starts[token + 1] = starts[token]! + length
  const ends = [...tokens.keys()].filter((token) => tokenizer.isEnd(token))
  return { bytes: Uint8Array.from(Buffer.concat(tokens)), starts, ends }
}

export function tokenBytes({ bytes, starts }: Vocabulary, token: number): Uint8Array {
  return bytes.subarray(starts[token], starts[token + 1])
}

export function vocabularySize({ starts }: Vocabulary): number {
  return starts.length - 1
}
