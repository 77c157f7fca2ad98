/** Prompts that tenants ahead must not make late (docs/design.md, Tenants). */
import type { LiveRequest } from "../request.ts"
import type { BatchBuilder } from "./batch-builder.ts"

/** What is due later than this cannot press, µs. */
const SOON_US = 10_000_000

export interface Pressing {
  /** Those that cannot wait for the next batch, by due time: they come before the prompts of tenants ahead. */
  now: LiveRequest[]
  /** So long can the others wait, µs. */
  othersWaitUs: number
}

/** Of `prefills` (by due time), those of tenants that are not `ahead`, where this batch takes up to `limitUs` and the next
 * one begins with them. */
export function pressingOf(
  prefills: readonly LiveRequest[],
  ahead: ReadonlySet<number>,
  batch: BatchBuilder,
  limitUs: number,
  nowUs: number,
): Pressing {
  const found: Pressing = { now: [], othersWaitUs: Infinity }
  let tokens = 0
  let rows = 1
  for (const request of prefills) {
    const toDeadlineUs = request.dueUs - nowUs
    if (toDeadlineUs > SOON_US) break
    if (ahead.has(request.tenant) || toDeadlineUs <= 0) continue
    const start = batch.context.startOf(request)
    // Those that are due before it are in its way.
    tokens += request.known - start
    rows += request.rowsOf(request.known - start, true) - 1
    const waitsUs = toDeadlineUs - batch.safeUs(start, tokens, rows)
    if (waitsUs < limitUs) found.now.push(request)
    else found.othersWaitUs = Math.min(found.othersWaitUs, waitsUs)
  }
  return found
}
