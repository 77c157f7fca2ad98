/** A reversible tokenizer without a vocabulary file: one token per byte, and a few special tokens. */
import { ControlTokens, type Special } from "../control-tokens.ts"
import type { Tokenizer } from "../port.ts"

const SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"] as const
/** Those that are no text of an answer. */
const SILENT = new Set<string>(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
const CONTROLS = new ControlTokens(SPECIALS.map((text, i) => ({ token: 256 + i, text })))

export const FAKE_VOCAB_SIZE = 256 + SPECIALS.length
const FAKE_BOS = 256
export const FAKE_END = 258

const BYTES = Array.from({ length: FAKE_VOCAB_SIZE }, (_, token) => {
  if (token < 256) return Uint8Array.of(token)
  const special = SPECIALS[token - 256]!
  return SILENT.has(special) ? new Uint8Array(0) : new TextEncoder().encode(special)
})

function encode(text: string, options: { special: Special; addBos: boolean }): Int32Array {
  const { special, addBos } = options
  const tokens: number[] = addBos ? [FAKE_BOS] : []
  const offsets = special === true ? CONTROLS.find(text) : special || []
  for (const piece of CONTROLS.cut(text, offsets)) {
    if (typeof piece === "number") tokens.push(piece)
    else for (const byte of new TextEncoder().encode(piece)) tokens.push(byte)
  }
  return Int32Array.from(tokens)
}

export const fakeTokenizer: Tokenizer & { encodeSync: typeof encode } = {
  encode: async (text, options) => encode(text, options),
  encodeSync: encode,
  controls: CONTROLS,
  longestTokenBytes: Math.max(...SPECIALS.map((special) => special.length)),
  bytes(token) {
    const bytes = BYTES[token]
    if (!bytes) throw new RangeError(`no token ${token}`)
    return bytes
  },
  isEnd: (token) => token === 256 || token === FAKE_END,
}
