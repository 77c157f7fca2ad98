/** Live requests as the dynamic program sees them: TPOT tiers, deadlines, memory for their whole lives. */
import type { PolicyOptions } from "../../options.ts"
import type { LiveRequest } from "../../request.ts"
import type { PlanningContext } from "../context.ts"
import { owedUs } from "../prefill-time.ts"
import { paperCost } from "./cost.ts"
import type { Dp, DpAnswer } from "./dp.ts"
import type { DpRequest } from "./request.ts"
import { AutoregressiveSegments, type SegmentPlan } from "./segment.ts"
import { SpeculativeSegments } from "./speculation.ts"

/** The dynamic program takes time by the number of tiers: further TPOTs count as the next tighter one. */
const MOST_TIERS = 6

export interface Solution extends DpAnswer {
  /** Tokens verified per TPOT, µs, in the plan's first batch. */
  lengths(): Map<number, number>
}

/** The most profitable set of `prefills` beside `decodes`, which all go on, by the paper's model. `must`: may not be
 * left out. `worthOf`: what keeping one is worth. */
export function solveFor(
  dp: Dp,
  decodes: readonly LiveRequest[],
  prefills: readonly LiveRequest[],
  must: (request: LiveRequest) => boolean,
  context: PlanningContext,
  options: PolicyOptions,
  nowUs: number,
  worthOf: (request: LiveRequest) => number = ({ spec }) => spec.worth ?? 1,
): Solution | null {
  const requests = [...decodes, ...prefills]
  const tpotsUs = tiersOf(requests)
  const { plan } = planFor(requests, tpotsUs, context, options)
  let heldTokens = context.kv.sharedTokens
  for (const request of decodes) heldTokens += lifeTokens(request, context)
  for (const request of prefills) if (must(request)) heldTokens += lifeTokens(request, context)
  const instance = prefills.map((request): DpRequest => {
    const kept = must(request)
    return {
      deadline: kept ? reachableUs(request, context, nowUs) : request.dueUs,
      owed: request.known - context.startOf(request),
      tier: tierOf(request.tpotUs, tpotsUs),
      memory: kept ? 0 : lifeTokens(request, context),
      profit: worthOf(request),
      must: kept,
    }
  })
  const running = tpotsUs.map(() => 0)
  for (const { tpotUs } of decodes) running[tierOf(tpotUs, tpotsUs)]!++
  const freeTokens = context.kv.capacityTokens * options.kvShare - heldTokens
  const answer = dp.solve(instance, nowUs, freeTokens, plan, running)
  return answer && { ...answer, lengths: () => lengthsOf(answer, instance, plan, tpotsUs, running) }
}

/** Tokens verified per TPOT, µs, in the first batch of the plan; empty when it has none. */
function lengthsOf(
  { steps }: DpAnswer,
  instance: readonly DpRequest[],
  plan: SegmentPlan,
  tpotsUs: readonly number[],
  running: readonly number[],
): Map<number, number> {
  const counts = running.slice()
  for (const { request, time, option } of steps) {
    const [batch] = plan.batches(time, counts, option)
    if (batch !== undefined && counts.some((n) => n > 0)) return perTpot(tpotsUs, batch.perTier)
    counts[instance[request]!.tier]!++
  }
  return perTpot(tpotsUs, plan.steady(counts)?.perTier ?? counts)
}

function perTpot(tpotsUs: readonly number[], perTier: readonly number[]): Map<number, number> {
  return new Map(tpotsUs.map((tpotUs, tier) => [tpotUs, Math.max(1, perTier[tier]!)]))
}

/** Segments as `options` say, and the mean acceptance of a token asked of the drafter. */
export function planFor(
  requests: readonly LiveRequest[],
  tpotsUs: readonly number[],
  context: PlanningContext,
  options: PolicyOptions,
): { plan: SegmentPlan; acceptance: number } {
  let contextTokens = 0
  let acceptance = 0
  for (const request of requests) {
    contextTokens += request.known / requests.length
    const { app } = request.spec
    acceptance += (context.acceptance.of(app) * context.acceptance.hitRate(app)) / requests.length
  }
  const scale = context.calibration("mixed") * (1 + context.margin("mixed"))
  const { time, decodeWeight } = paperCost(context.cost, scale, contextTokens, context.limits.maxBatchTokens)
  const plan =
    options.speculation === "on"
      ? new SpeculativeSegments(time, tpotsUs, acceptance, options.maxSpeculation, decodeWeight)
      : new AutoregressiveSegments(time, tpotsUs, decodeWeight)
  return { plan, acceptance }
}

/** The TPOTs in use, ascending, µs. */
export function tiersOf(requests: readonly LiveRequest[]): number[] {
  const tpotsUs = [...new Set(requests.map((request) => request.tpotUs))].sort((a, b) => a - b)
  if (tpotsUs.length <= MOST_TIERS) return tpotsUs
  return Array.from({ length: MOST_TIERS }, (_, i) => tpotsUs[Math.floor((i * tpotsUs.length) / MOST_TIERS)]!)
}

export function tierOf(tpotUs: number, tpotsUs: readonly number[]): number {
  let tier = 0
  while (tpotsUs[tier + 1]! <= tpotUs) tier++
  return tier
}

/** A promised prefill that is late is kept: due as soon as it can be done. */
function reachableUs(request: LiveRequest, context: PlanningContext, nowUs: number): number {
  const start = context.startOf(request)
  const alone = owedUs(request, start, context.cost, context.limits.maxBatchTokens)
  return Math.max(request.dueUs, nowUs + 2 * alone * context.calibration("mixed"))
}

/** What it alone takes of the KV until its end: what several share is counted apart, once. */
function lifeTokens(request: LiveRequest, context: PlanningContext): number {
  const { app, maxOutputTokens } = request.spec
  const remaining = context.outputLengths.remaining(app, request.output, maxOutputTokens)
  return request.known + remaining - context.need.sharedTokens(request)
}
