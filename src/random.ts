/** Seeded randomness for everything that draws: the same seed gives the same numbers on every machine. */

/** A stream of pseudo-random numbers (xoshiro128**, seeded through splitmix32). */
export class Random {
  private readonly state: Uint32Array

  /** Streams with different `parts` are independent; any of them may be text. */
  constructor(...parts: (number | string)[]) {
    let seed = 0x9e3779b9
    for (const char of parts.join("\u0000")) seed = Math.imul(seed ^ char.codePointAt(0)!, 0x01000193) >>> 0
    this.state = new Uint32Array(4).map(() => {
      seed = (seed + 0x9e3779b9) >>> 0
      let z = seed
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      return (z ^ (z >>> 15)) >>> 0
    })
    for (let i = 0; i < 8; i++) this.u32()
  }

  /** Uniform unsigned 32-bit integer. */
  u32(): number {
    const s = this.state
    const product = Math.imul(s[1]!, 5)
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0
    const t = s[1]! << 9
    s[2]! ^= s[0]!
    s[3]! ^= s[1]!
    s[1]! ^= s[2]!
    s[0]! ^= s[3]!
    s[2]! ^= t
    s[3] = (s[3]! << 11) | (s[3]! >>> 21)
    return result
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return this.u32() / 2 ** 32
  }

  /** Uniform integer in [from, to). */
  integer(from: number, to: number): number {
    return from + Math.floor(this.uniform() * (to - from))
  }

  /** Uniform integer in [0, n). */
  below(n: number): number {
    return this.integer(0, n)
  }

  /** Standard normal (Box–Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }

  lognormal(median: number, sigma: number): number {
    return median * Math.exp(sigma * this.normal())
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.uniform())
  }

  /** Gamma with this shape and scale 1 (Marsaglia–Tsang). */
  gamma(shape: number): number {
    if (shape < 1) return this.gamma(shape + 1) * (1 - this.uniform()) ** (1 / shape)
    const d = shape - 1 / 3
    const c = 1 / Math.sqrt(9 * d)
    for (;;) {
      const x = this.normal()
      const v = (1 + c * x) ** 3
      if (v > 0 && Math.log(1 - this.uniform()) < x ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v
    }
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
