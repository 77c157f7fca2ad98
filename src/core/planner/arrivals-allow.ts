/** How long those that may arrive meanwhile let a batch be (docs/design.md, Batches). */
import type { BatchBuilder } from "./batch-builder.ts"
import { leastWorthUs } from "./best-effort.ts"
import { splitUs } from "./prefill-time.ts"
import type { Work } from "./work.ts"

/** A batch is as short as so many times the slack of the arrivals that can least wait (one in ten: the others have more),
 * down to what is worth the fixed cost of a step. By simulation with TTFTs of 1.2, 1.5 and 2 × the prefill time: at 4
 * the batches of the second are too short, at 20 those of the first no shorter than usual. */
const ARRIVAL_SLACKS = 8

/** Arrivals have the time that so many more batches would cost, whatever they ask for: shorter batches would keep them and lose others
 * to what all of that costs. By simulation of a tiny model on a core, half as much loses two points. */
const WORTH_SPLITS = 20
/** What batches cost is asked of some that are no shorter than so many shortest steps: an engine that reads weights in every step does
 * not compute anything else meanwhile in shorter ones. */
const SPLIT_STEPS = 4

/** In µs: as a rule, and with a prompt first in it that goes whole. */
export interface Allowed {
  usualUs: number
  wholeUs: number
}

/** An arrival waits for what is left of the batch that is computed, for those that were planned before it came, and for its own: all of
 * them within its slack. No batch is longer than `mostUs`. */
export function arrivalsAllow(batch: BatchBuilder, work: Work, mostUs: number): Allowed {
  const { ahead, renewsFromUs } = batch.context
  const slackUs = work.arrivalSlack.us
  const waitUs = Math.max(slackUs, WORTH_SPLITS * fixedUs(batch, Math.min(mostUs, slackUs / (ahead + 2))))
  // The last of those ahead is planned anew for the arrival, or so short that it is not worth asking.
  const renewedUs = ahead > 0 ? (waitUs - renewsFromUs) / (ahead + 1) : 0
  const evenUs = Math.max(waitUs / (ahead + 2), renewedUs)
  const usualUs = Math.min(mostUs, Math.max(leastWorthUs(batch), Math.min(ARRIVAL_SLACKS * slackUs, evenUs)))
  const lastUs = ahead > 0 ? Math.min(renewsFromUs, usualUs) : 0
  const aheadUs = Math.max(0, ahead - 1) * usualUs + lastUs
  return { usualUs, wholeUs: Math.min(mostUs, waitUs - usualUs - aheadUs) }
}

/** What a batch costs whatever is in it, of batches that are about so long, µs. */
function fixedUs(batch: BatchBuilder, aboutUs: number): number {
  const { cost, limits } = batch.context
  const ratio = batch.context.calibration("mixed")
  const us = Math.max(SPLIT_STEPS * batch.timeUs(0, 1), aboutUs)
  return ratio * splitUs(cost, us / ratio, limits.maxBatchTokens)
}
