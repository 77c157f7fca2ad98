/** Chain hashes of a prompt's full KV blocks: equal hashes mean equal prefixes (RequestSpec.prefix). */
import { createHmac } from "node:crypto"

/** Folds one value into two independent 32-bit lanes (murmur3's mixing, two constants sets). */
function mixHigh(hash: number, value: number): number {
  let k = Math.imul(value, 0xcc9e2d51)
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593)
  const h = hash ^ k
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0
}

function mixLow(hash: number, value: number): number {
  let k = Math.imul(value, 0x239b961b)
  k = Math.imul((k << 16) | (k >>> 16), 0xab0e9789)
  const h = hash ^ k
  return (Math.imul((h << 17) | (h >>> 15), 5) + 0x561ccd1b) | 0
}

function finish(hash: number): number {
  let h = hash ^ (hash >>> 16)
  h = Math.imul(h, 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** 53 bits of two lanes: an exact JavaScript integer. */
function join(high: number, low: number): number {
  return (finish(high) & 0x1fffff) * 0x1_0000_0000 + finish(low)
}

/** Where hashes begin: what is hashed from one salt never equals what is from another. */
export interface Salt {
  readonly high: number
  readonly low: number
}

const NO_SALT: Salt = { high: 0, low: -1 }

/** The salt of a name, which only `secret` tells. */
export function saltOf(secret: Uint8Array, name: string): Salt {
  const digest = createHmac("sha256", secret).update(name).digest()
  return { high: digest.readInt32LE(0), low: digest.readInt32LE(4) }
}

/** Hashes a growing list of tokens block by block, each hash over all tokens up to its block's end. The engine's
 * copies compare tokens too, so a collision costs time, not correctness; `salt` keeps them from being provoked. */
export class PrefixHasher {
  readonly #blockTokens: number
  #high: number
  #low: number
  #count = 0

  constructor(blockTokens: number, salt = NO_SALT) {
    this.#blockTokens = blockTokens
    this.#high = salt.high
    this.#low = salt.low
  }

  /** Hashes of the blocks that these tokens fill. */
  push(tokens: Int32Array | readonly number[]): number[] {
    const hashes: number[] = []
    for (let i = 0; i < tokens.length; i++) {
      this.#high = mixHigh(this.#high, tokens[i]!)
      this.#low = mixLow(this.#low, tokens[i]!)
      if (++this.#count % this.#blockTokens === 0) hashes.push(join(this.#high, this.#low))
    }
    return hashes
  }
}

/** Hash of each full block of a prompt. */
export function prefixHashes(prompt: Int32Array, blockTokens: number, salt = NO_SALT): number[] {
  return new PrefixHasher(blockTokens, salt).push(prompt)
}

/** The core's number for a client's session name. */
export function sessionNumber(name: string, salt = NO_SALT): number {
  let { high, low } = salt
  for (let i = 0; i < name.length; i++) {
    high = mixHigh(high, name.charCodeAt(i))
    low = mixLow(low, name.charCodeAt(i))
  }
  return join(high, low)
}
