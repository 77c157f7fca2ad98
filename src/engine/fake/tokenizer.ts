/** A reversible tokenizer without a vocabulary file: one token per byte, and a few special tokens. */
import type { Tokenizer } from "../port.ts"

const SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"] as const
const CONTROL = new Set<string>(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
const SPLIT = /(<\|endoftext\|>|<\|im_start\|>|<\|im_end\|>|<\/?think>)/

export const FAKE_VOCAB_SIZE = 256 + SPECIALS.length
const FAKE_BOS = 256
export const FAKE_END = 258

const BYTES = Array.from({ length: FAKE_VOCAB_SIZE }, (_, token) => {
  if (token < 256) return Uint8Array.of(token)
  const special = SPECIALS[token - 256]!
  return CONTROL.has(special) ? new Uint8Array(0) : new TextEncoder().encode(special)
})

function encode(text: string, options: { special: boolean; addBos: boolean }): Int32Array {
  const tokens: number[] = options.addBos ? [FAKE_BOS] : []
  for (const part of options.special ? text.split(SPLIT) : [text]) {
    const special = options.special ? (SPECIALS as readonly string[]).indexOf(part) : -1
    if (special >= 0) tokens.push(256 + special)
    else for (const byte of new TextEncoder().encode(part)) tokens.push(byte)
  }
  return Int32Array.from(tokens)
}

export const fakeTokenizer: Tokenizer & { encodeSync: typeof encode } = {
  encode: async (text, options) => encode(text, options),
  encodeSync: encode,
  longestTokenBytes: Math.max(...SPECIALS.map((special) => special.length)),
  bytes(token) {
    const bytes = BYTES[token]
    if (!bytes) throw new RangeError(`no token ${token}`)
    return bytes
  },
  isEnd: (token) => token === 256 || token === FAKE_END,
}
