/** QoServe (ASPLOS'26; first called Niyama, arXiv 2503.22562, §3): every decode in every batch, the chunk sized to the
 * slack of the tightest decode; prefill by a priority between earliest deadline and shortest remaining prefill;
 * prefills, never decodes, are preempted, if they can afford it; those that would miss their deadline are relegated
 * eagerly. */

import type { PolicyOptions } from "../options.ts"
import { reserveAdapters } from "../planner/adapter-turns.ts"
import type { BatchBuilder } from "../planner/batch-builder.ts"
import { serveBestEffort } from "../planner/best-effort.ts"
import { forceProgress, tightestLeadUs } from "../planner/fill.ts"
import { owedUs } from "../planner/prefill-time.ts"
import { emptyWork, sortWork, type Work } from "../planner/work.ts"
import type { LiveRequest } from "../request.ts"
import { demoteDoomed } from "./doomed.ts"
import type { Policy } from "./policy.ts"

export function qoserve(options: PolicyOptions): Policy {
  const work = emptyWork(options)
  return {
    name: "qoserve",
    decide(requests, batch, nowUs) {
      demoteDoomed(requests, batch.context, nowUs)
      sortWork(requests, work)
      const kept = relegate(ranked(work.prefills, batch, options, nowUs), batch, nowUs)
      sortWork(requests, work)
      // One order for all: what is forced on under KV pressure must stay the first in the next batch.
      work.prefills = kept
      work.speculator.planFor(work, batch.context)
      fill(kept, work, batch, options, nowUs)
      if (batch.items.length === 0) forceProgress(batch, work)
    },
  }
}

interface Prefill {
  request: LiveRequest
  /** Time that its prefill still takes alone, µs. */
  remainingUs: number
  /** Smallest first. */
  key: number
}

/** Hybrid priority: deadline + α · remaining prefill time; α = 0 is EDF, a large α shortest remaining first. All
 * requests have a first token to be on time, so decode time (the paper's term for batch jobs) does not enter. */
function ranked(
  prefills: readonly LiveRequest[],
  batch: BatchBuilder,
  options: PolicyOptions,
  nowUs: number,
): Prefill[] {
  const { maxBatchTokens } = batch.context.limits
  const queue = prefills.map((request): Prefill => {
    const start = batch.context.startOf(request)
    const remainingUs =
      owedUs(request, start, batch.context.cost, maxBatchTokens) * batch.context.calibration("mixed")
    // Selective preemption: a prefill under way that cannot wait for another batch is not preempted.
    const cannotWait =
      nowUs + remainingUs * (1 + batch.context.margin("mixed")) + options.maxBatchUs > request.dueUs
    const key =
      request.computed > 0 && cannotWait ? -Infinity : request.dueUs + options.hybridAlpha * remainingUs
    return { request, remainingUs, key }
  })
  return queue.sort((a, b) => a.key - b.key || a.request.order - b.request.order)
}

/** Eager relegation: what cannot make its deadline behind those before it goes to best-effort. Returns the others. */
function relegate(queue: readonly Prefill[], batch: BatchBuilder, nowUs: number): LiveRequest[] {
  const kept: LiveRequest[] = []
  let doneUs = nowUs
  for (const { request, remainingUs } of queue) {
    // After its first token there is no deadline to miss that waiting decides: it only recomputes lost KV.
    if (request.output === 0 && doneUs + remainingUs * (1 + batch.context.margin("mixed")) > request.dueUs) {
      batch.context.demote(request, "wontFit")
      continue
    }
    doneUs += remainingUs
    kept.push(request)
  }
  return kept
}

/** Decodes, then prefill in chunks that keep the batch within the tightest decode's slack, then the relegated. */
function fill(
  prefills: readonly LiveRequest[],
  work: Work,
  batch: BatchBuilder,
  options: PolicyOptions,
  nowUs: number,
): void {
  const { decodes, speculator, byValue, bestEffort } = work
  const limitUs = Math.min(options.maxBatchUs, tightestLeadUs(decodes, nowUs))
  reserveAdapters(batch, work, options, nowUs, batch.safeUs(0, 1, 1))
  decodes.forEach((request, i) => {
    // Those still to come must find room for a token.
    const room = batch.tokensLeft - (decodes.length - i)
    batch.decode(request, byValue, Math.min(speculator.lengthOf(request) - 1, room))
  })
  work.prefixWait.begin()
  for (const request of prefills) batch.prefillWithin(request, limitUs, bestEffort)
  serveBestEffort(batch, work, limitUs, options, nowUs)
}
