/** Seeded random numbers (sfc32): the same seed gives the same numbers on every machine. */
export class Random {
  #a: number
  #b = 0x9e3779b9 | 0
  #c = 0x243f6a88 | 0
  #counter = 1

  constructor(seed: number) {
    this.#a = seed | 0
    for (let i = 0; i < 16; i++) this.u32()
  }

  /** Uniform unsigned 32-bit integer. */
  u32(): number {
    const out = (this.#a + this.#b + this.#counter++) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + out
    this.#c |= 0
    return out >>> 0
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return this.u32() / 0x1_0000_0000
  }

  /** Uniform integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.uniform() * n)
  }

  /** Standard normal (Box–Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }
}

/** In-place Fisher–Yates. */
export function shuffle<T>(items: T[], random: Random): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    ;[items[i], items[j]] = [items[j]!, items[i]!]
  }
  return items
}

/** 32-bit FNV-1a over integers. */
export function hashInts(values: Iterable<number>, start = 0x811c9dc5): number {
  let hash = start | 0
  for (const value of values) hash = Math.imul(hash ^ value, 0x01000193)
  return hash >>> 0
}
