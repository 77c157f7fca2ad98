/** How many drafted tokens a simulated model accepts: each with probability `acceptance` until the first refusal.
 * A draw depends on the seed, the request and the token's place alone, so that every policy meets the same luck. */
import type { RequestId } from "../core/types.ts"

/** Of `draft` tokens proposed after `output` tokens of request `id`, the length of the accepted prefix. */
export function acceptedTokens(
  seed: number,
  id: RequestId,
  output: number,
  draft: number,
  acceptance: number,
): number {
  let accepted = 0
  while (accepted < draft && draw(seed, id, output + accepted) < acceptance) accepted++
  return accepted
}

/** Uniform in [0, 1): two rounds of the murmur3 finalizer over the three numbers. */
function draw(seed: number, id: number, place: number): number {
  const first = mixed(Math.imul(seed, 0x9e3779b1) ^ mixed(id + 0x7f4a7c15))
  return mixed(first ^ Math.imul(place + 1, 0x85ebca6b)) / 0x1_0000_0000
}

function mixed(value: number): number {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
