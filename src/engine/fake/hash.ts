/** A hash of integers, for engines that make text out of a prompt. */

/** 32-bit FNV-1a over integers. */
export function hashInts(values: Iterable<number>, start = 0x811c9dc5): number {
  let hash = start | 0
  for (const value of values) hash = Math.imul(hash ^ value, 0x01000193)
  return hash >>> 0
}
