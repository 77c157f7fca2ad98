/** Luck that depends on what it is for, not on when it is asked for: every policy meets the same. */

/** Uniform in [0, 1): two rounds of the murmur3 finalizer over the three numbers. */
export function chance(seed: number, subject: number, place: number): number {
  const first = mixed(Math.imul(seed, 0x9e3779b1) ^ mixed(subject + 0x7f4a7c15))
  return mixed(first ^ Math.imul(place + 1, 0x85ebca6b)) / 0x1_0000_0000
}

/** Standard normal (Box–Muller). */
export function normalChance(seed: number, subject: number, place: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - chance(seed, subject, 2 * place)))
  return radius * Math.cos(2 * Math.PI * chance(seed, subject, 2 * place + 1))
}

function mixed(value: number): number {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
