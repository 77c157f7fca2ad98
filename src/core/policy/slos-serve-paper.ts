/** The paper's policy (arXiv 2504.08784): arrivals are admitted by the dynamic program and then kept; declined ones
 * are served best-effort; every batch is sized to the tightest pace and filled with prefill by deadline. With
 * speculation, the paper's plan says how many tokens each TPOT tier verifies. */
import { expectedTokens } from "../acceptance.ts"
import { Dp, type DpRequest } from "../planner/dp.ts"
import { paperCost } from "../planner/dp-cost.ts"
import { AutoregressiveSegments, type SegmentPlan } from "../planner/dp-segment.ts"
import { SpeculativeSegments } from "../planner/dp-speculation.ts"
import type { Draft } from "../planner/draft.ts"
import { prefillUs } from "../planner/prefill-time.ts"
import { byDue, emptyWork, sortWork, type Work } from "../planner/work.ts"
import type { LiveRequest } from "../request.ts"
import type { Policy, PolicyOptions } from "./policy.ts"

/** The dynamic program takes time by the number of tiers: further TPOTs count as the next tighter one. */
const MOST_TIERS = 6
/** Without decodes a batch may be so many times the usual longest. */
const PREFILL_ONLY = 4

export function slosServePaper(options: PolicyOptions): Policy {
  const work = emptyWork(options)
  const dp = new Dp()
  return {
    name: "slos-serve-paper",
    decide(requests, draft, nowUs) {
      sortWork(requests, work)
      const slo = [...work.decodes, ...work.prefills]
      if (slo.some((request) => !request.admitted)) {
        admitArrivals(dp, slo.sort(byDue), draft, options, nowUs)
        sortWork(requests, work)
      }
      fill(draft, work, options, nowUs)
      // Nothing fits beside decodes that could wait: they had better end than lose their KV to others in turns.
      for (const request of draft.items.length === 0 ? work.decodes : []) draft.decode(request, work.byValue)
      if (draft.items.length === 0) runFirst(requests, work.byValue, draft)
    },
  }
}

/** Batches as the paper's plan has them: as long as the tightest tier's pace allows; tiers that would be a whole
 * token ahead wait while there is prefill to do. */
function fill(draft: Draft, work: Work, options: PolicyOptions, nowUs: number): void {
  const { margin } = options
  const { lengths, limitUs } = paces(draft, work.decodes, options, nowUs)
  const prefill = work.prefills.length > 0 || work.bestEffort.length > 0
  for (const request of work.decodes) {
    if (prefill && request.dueUs - request.tpotUs >= nowUs + limitUs) continue
    draft.decode(request, work.byValue, (lengths.get(request.tpotUs) ?? 1) - 1)
  }
  for (const request of work.prefills) draft.prefillWithin(request, limitUs, margin, work.bestEffort)
  for (const request of work.bestEffort) {
    if (!request.decoding) draft.prefillWithin(request, limitUs, margin)
    else if (draft.timeUs(margin, request.computed, 1, true) <= limitUs) draft.decode(request)
  }
}

/** Tokens verified per TPOT, and how long the batch may take, µs. */
function paces(
  draft: Draft,
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
  const { plan, acceptance } = planFor(decodes, tpotsUs, draft, options)
  const chosen = plan instanceof SpeculativeSegments ? plan.lengths(counts) : null
  if (chosen === null) return { lengths, limitUs }
  let unitUs = Infinity
  for (const { tpotUs } of decodes) {
    const tier = tierOf(tpotUs, tpotsUs)
    lengths.set(tpotUs, chosen[tier]!)
    unitUs = Math.min(unitUs, Math.floor(expectedTokens(acceptance, chosen[tier]!)) * tpotsUs[tier]!)
  }
  // The plan's unit may outlast the next token's due time; only those who are ahead can wait so long.
  return { lengths, limitUs: Math.max(limitUs, Math.min(unitUs, leadUs)) }
}

function admitArrivals(
  dp: Dp,
  requests: readonly LiveRequest[],
  draft: Draft,
  options: PolicyOptions,
  nowUs: number,
): void {
  const tpotsUs = tiersOf(requests)
  const { plan } = planFor(requests, tpotsUs, draft, options)
  let heldTokens = 0
  for (const request of requests) if (request.admitted) heldTokens += lifeTokens(request, draft)
  const instance = requests.map((request): DpRequest => {
    const owed = request.decoding ? 0 : request.known - draft.startOf(request)
    return {
      deadline: owed === 0 ? nowUs : deadlineOf(request, draft, nowUs),
      owed,
      tier: tierOf(request.tpotUs, tpotsUs),
      memory: request.admitted ? 0 : lifeTokens(request, draft),
      profit: request.spec.profit ?? 1,
      must: request.admitted,
    }
  })
  const freeTokens = draft.kv.capacityTokens * options.kvShare - heldTokens
  const answer = dp.solve(instance, nowUs, freeTokens, plan, tpotsUs.length)
  const accepted = new Set(answer?.steps.map((step) => step.request))
  requests.forEach((request, i) => {
    if (request.admitted) return
    if (accepted.has(i)) draft.admit(request)
    else draft.demote(request, "wontFit")
  })
}

/** An admitted prefill that is late is kept: due as soon as it can be done. */
function deadlineOf(request: LiveRequest, draft: Draft, nowUs: number): number {
  if (!request.admitted) return request.dueUs
  const start = draft.startOf(request)
  const alone = prefillUs(draft.cost, start, request.known - start, draft.limits.maxBatchTokens)
  return Math.max(request.dueUs, nowUs + 2 * alone * draft.calibration(true))
}

function planFor(
  requests: readonly LiveRequest[],
  tpotsUs: readonly number[],
  draft: Draft,
  options: PolicyOptions,
): { plan: SegmentPlan; acceptance: number } {
  let contextTokens = 0
  let acceptance = 0
  for (const request of requests) {
    contextTokens += request.known / requests.length
    acceptance += draft.acceptance.of(request.spec.app) / requests.length
  }
  const scale = draft.calibration(true) * (1 + options.margin)
  const { time, decodeWeight } = paperCost(draft.cost, scale, contextTokens, draft.limits.maxBatchTokens)
  const plan =
    options.speculation === "on"
      ? new SpeculativeSegments(time, tpotsUs, acceptance, options.maxSpeculation, decodeWeight)
      : new AutoregressiveSegments(time, tpotsUs, decodeWeight)
  return { plan, acceptance }
}

/** The TPOTs in use, ascending. */
function tiersOf(requests: readonly LiveRequest[]): number[] {
  const tpotsUs = [...new Set(requests.map((request) => request.tpotUs))].sort((a, b) => a - b)
  if (tpotsUs.length <= MOST_TIERS) return tpotsUs
  return Array.from({ length: MOST_TIERS }, (_, i) => tpotsUs[Math.floor((i * tpotsUs.length) / MOST_TIERS)]!)
}

function tierOf(tpotUs: number, tpotsUs: readonly number[]): number {
  let tier = 0
  while (tier + 1 < tpotsUs.length && tpotsUs[tier + 1]! <= tpotUs) tier++
  return tier
}

function lifeTokens(request: LiveRequest, draft: Draft): number {
  return (
    request.known + draft.lengths.remaining(request.spec.app, request.output, request.spec.maxOutputTokens)
  )
}

function runFirst(requests: readonly LiveRequest[], spare: readonly LiveRequest[], draft: Draft): void {
  for (const request of requests) {
    if (
      request.decoding
        ? draft.decode(request, spare)
        : draft.prefill(request, draft.limits.minChunkTokens + 1, spare) > 0
    )
      return
  }
}
