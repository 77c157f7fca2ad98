/** How many drafted tokens a simulated model accepts: each with probability `acceptance` until the first refusal.
 * A draw depends on the seed, the request and the token's place alone, so that every policy meets the same luck. */
import type { RequestId } from "../core/protocol.ts"
import { chance } from "./chance.ts"

/** Of `draft` tokens proposed after `output` tokens of request `id`, the length of the accepted prefix. */
export function acceptedTokens(
  seed: number,
  id: RequestId,
  output: number,
  draft: number,
  acceptance: number,
): number {
  let accepted = 0
  while (accepted < draft && chance(seed, id, output + accepted) < acceptance) accepted++
  return accepted
}
