/** Whose adapters are in the next batch, where those that wait have more of them than fit one: what cannot wait first, then
 * prompts by due time, as the batch itself is filled (fill.ts). Without it the adapters of the first decodes would be in every
 * batch, and prompts of others in none. */
import type { PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { adapterOf, NO_ADAPTER } from "./adapters.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import { leastWorthUs, OVERDUE_SHARE } from "./best-effort.ts"
import { owedUs } from "./prefill-time.ts"
import type { Work } from "./work.ts"

/** Keeps places of `batch`, before anything is in it. `stepUs`: what a step of decodes takes. */
export function reserveAdapters(
  batch: BatchBuilder,
  work: Work,
  { bestEffortEveryUs }: PolicyOptions,
  nowUs: number,
  stepUs: number,
): void {
  const { adapters } = batch
  if (!areTooMany(work, adapters.most)) return
  const keep = (request: LiveRequest | undefined) => {
    if (request !== undefined) adapters.reserve(adapterOf(request))
  }
  // What it leaves out can be in the next one as soon as this.
  const leastUs = leastWorthUs(batch)
  if (nowUs - work.overdueTurnUs >= leastUs / OVERDUE_SHARE) {
    keep(work.overdue[0])
    work.overdueTurnUs = nowUs
  }
  for (const request of pressing(batch, work, nowUs + leastUs, stepUs)) keep(request)
  if (nowUs - work.bestEffortServedUs >= bestEffortEveryUs) keep(work.bestEffort[0])
  for (const request of work.prefills) {
    if (!adapters.isFree) return
    keep(request)
  }
}

function areTooMany({ decodes, prefills, bestEffort }: Work, most: number): boolean {
  if (most === Infinity) return false
  const seen = new Set<number>()
  for (const list of [decodes, prefills, bestEffort]) {
    for (const request of list) {
      const adapter = adapterOf(request)
      if (adapter !== NO_ADAPTER && seen.add(adapter).size > most) return true
    }
  }
  return false
}

/** Requests that would be late if they were not in this batch, the first due of each adapter, by due time. */
function pressing(
  batch: BatchBuilder,
  { decodes, prefills }: Work,
  nextUs: number,
  stepUs: number,
): LiveRequest[] {
  const { context } = batch
  const { cost, limits } = context
  const found: LiveRequest[] = []
  for (const request of firstOfEach(decodes)) if (request.dueUs <= nextUs + stepUs) found.push(request)
  for (const request of firstOfEach(prefills)) {
    const restUs = owedUs(request, context.startOf(request), cost, limits.maxBatchTokens)
    if (request.dueUs <= nextUs + restUs * context.calibration("mixed")) found.push(request)
  }
  return found.sort((a, b) => a.dueUs - b.dueUs || a.order - b.order)
}

function firstOfEach(requests: readonly LiveRequest[]): LiveRequest[] {
  const seen = new Set<number>()
  return requests.filter((request) => {
    const adapter = adapterOf(request)
    if (adapter === NO_ADAPTER || seen.has(adapter)) return false
    seen.add(adapter)
    return true
  })
}
