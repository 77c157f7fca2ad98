/** How long requests wait where no replica is up. */
import type { Generation } from "../replica/generation.ts"

const [LEAST_PATIENCE_US, MOST_PATIENCE_US] = [2_000_000, 60_000_000]

/** How long a request is worth waiting for any replica, from its arrival: a few times its TTFT. */
export function patienceOf({ slo: { slo, tier } }: Generation): number {
  if (tier === "bestEffort" || slo.ttftSlowdown > 0) return MOST_PATIENCE_US
  return Math.min(MOST_PATIENCE_US, Math.max(LEAST_PATIENCE_US, 4 * slo.ttftUs))
}
