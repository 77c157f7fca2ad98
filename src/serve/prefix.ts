/** Chain hashes of a prompt's full KV blocks: equal hashes mean equal prefixes (RequestSpec.prefix). */

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

/** Hash of each full block of `blockTokens` tokens, each over all tokens up to its end. The engine's copies
 * compare tokens too, so a collision costs time, not correctness; `salt` keeps them from being provoked. */
export function prefixHashes(prompt: Int32Array, blockTokens: number, salt = 0): number[] {
  const hashes: number[] = []
  let high = salt | 0
  let low = ~salt | 0
  for (let i = 0; i < prompt.length; i++) {
    high = mixHigh(high, prompt[i]!)
    low = mixLow(low, prompt[i]!)
    if ((i + 1) % blockTokens === 0) hashes.push(join(high, low))
  }
  return hashes
}

/** The core's number for a client's session name. */
export function sessionNumber(name: string, salt = 0): number {
  let high = salt | 0
  let low = ~salt | 0
  for (let i = 0; i < name.length; i++) {
    high = mixHigh(high, name.charCodeAt(i))
    low = mixLow(low, name.charCodeAt(i))
  }
  return join(high, low)
}
