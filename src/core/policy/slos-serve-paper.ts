/** The paper's policy (arXiv 2504.08784): arrivals are admitted by the dynamic program and then kept; declined ones
 * are served best-effort; every batch is sized to the tightest pace and filled with prefill by deadline. With
 * speculation, the paper's plan says how many tokens each TPOT tier verifies. */
import { expectedTokens } from "../learn/acceptance.ts"
import type { PolicyOptions } from "../options.ts"
import { reserveAdapters } from "../planner/adapter-turns.ts"
import type { BatchBuilder } from "../planner/batch-builder.ts"
import { Dp } from "../planner/dp/dp.ts"
import { planFor, solveFor, tierOf, tiersOf } from "../planner/dp/instance.ts"
import { SpeculativeSegments } from "../planner/dp/speculation.ts"
import { byDue, emptyWork, sortWork, type Work } from "../planner/work.ts"
import type { LiveRequest } from "../request.ts"
import type { Policy } from "./policy.ts"

/** Without decodes a batch may be so many times the usual longest. */
const PREFILL_ONLY = 4

export function slosServePaper(options: PolicyOptions): Policy {
  const work = emptyWork(options)
  const dp = new Dp()
  return {
    name: "slos-serve-paper",
    decide(requests, batch, nowUs) {
      sortWork(requests, work)
      const slo = [...work.decodes, ...work.prefills]
      if (slo.some((request) => !request.admitted)) {
        admitArrivals(dp, slo.sort(byDue), batch, options, nowUs)
        sortWork(requests, work)
      }
      fill(batch, work, options, nowUs)
      // Nothing fits beside decodes that could wait: they had better end than lose their KV to others in turns.
      for (const request of batch.items.length === 0 ? work.decodes : []) batch.decode(request, work.byValue)
      if (batch.items.length === 0) runFirst(requests, work.byValue, batch)
    },
  }
}

/** Batches as the paper's plan has them: as long as the tightest tier's pace allows; tiers that would be a whole
 * token ahead wait while there is prefill to do. */
function fill(batch: BatchBuilder, work: Work, options: PolicyOptions, nowUs: number): void {
  const { speculation, fixedDraft } = options
  const usual = speculation === "on" ? 1 : 1 + fixedDraft
  const { lengths, limitUs } = paces(batch, work.decodes, options, nowUs)
  reserveAdapters(batch, work, options, nowUs, batch.safeUs(0, 1, 1))
  const prefill = work.prefills.length > 0 || work.bestEffort.length > 0
  for (const request of work.decodes) {
    if (prefill && request.dueUs - request.tpotUs >= nowUs + limitUs) continue
    batch.decode(request, work.byValue, (lengths.get(request.tpotUs) ?? usual) - 1)
  }
  for (const request of work.prefills) batch.prefillWithin(request, limitUs, work.bestEffort)
  for (const request of work.bestEffort) {
    if (!request.decoding) batch.prefillWithin(request, limitUs)
    else if (batch.safeUs(request.computed, 1, 1) <= limitUs) batch.decode(request)
  }
}

/** Tokens verified per TPOT, and how long the batch may take, µs. */
function paces(
  batch: BatchBuilder,
  decodes: readonly LiveRequest[],
  options: PolicyOptions,
  nowUs: number,
): { lengths: Map<number, number>; limitUs: number } {
  const lengths = new Map<number, number>()
  let limitUs = options.maxBatchUs * PREFILL_ONLY
  let leadUs = Infinity
  for (const { tpotUs, dueUs } of decodes) {
    limitUs = Math.min(limitUs, tpotUs)
    leadUs = Math.min(leadUs, dueUs - nowUs)
  }
  if (options.speculation !== "on" || decodes.length === 0) return { lengths, limitUs }
  const tpotsUs = tiersOf(decodes)
  const counts = tpotsUs.map(() => 0)
  for (const { tpotUs } of decodes) counts[tierOf(tpotUs, tpotsUs)]!++
  const { plan, acceptance } = planFor(decodes, tpotsUs, batch.context, options)
  const chosen = plan instanceof SpeculativeSegments ? plan.lengths(counts) : null
  if (chosen === null) return { lengths, limitUs }
  let unitUs = Infinity
  for (const { tpotUs } of decodes) {
    const tier = tierOf(tpotUs, tpotsUs)
    lengths.set(tpotUs, chosen[tier]!)
    unitUs = Math.min(unitUs, Math.floor(expectedTokens(acceptance, chosen[tier]!)) * tpotsUs[tier]!)
  }
  // The plan's unit may outlast the next token's due time; only those that are ahead can wait so long.
  return { lengths, limitUs: Math.max(limitUs, Math.min(unitUs, leadUs)) }
}

function admitArrivals(
  dp: Dp,
  requests: readonly LiveRequest[],
  batch: BatchBuilder,
  options: PolicyOptions,
  nowUs: number,
): void {
  const decodes = requests.filter((request) => request.decoding)
  const prefills = requests.filter((request) => !request.decoding)
  const answer = solveFor(dp, decodes, prefills, (request) => request.admitted, batch.context, options, nowUs)
  const accepted = new Set(answer?.steps.map((step) => step.request))
  prefills.forEach((request, i) => {
    if (request.admitted) return
    if (accepted.has(i)) batch.context.admit(request)
    else batch.context.demote(request, "wontFit", "plan")
  })
}

function runFirst(
  requests: readonly LiveRequest[],
  spare: readonly LiveRequest[],
  batch: BatchBuilder,
): void {
  batch.adapters.release()
  for (const request of requests) {
    if (
      request.decoding
        ? batch.decode(request, spare)
        : batch.prefill(request, batch.context.limits.minChunkTokens + 1, spare) > 0
    )
      return
  }
}
