/** The default policy (docs/design.md, Policies): keep every SLO that can be kept, serve the rest with what is left
 * over. */

import type { PolicyOptions } from "../options.ts"
import { Admission, countsExactly } from "../planner/admission.ts"
import { pickOverdue } from "../planner/best-effort.ts"
import type { PlanningContext } from "../planner/context.ts"
import { sortByDue } from "../planner/due-order.ts"
import { fillBatch } from "../planner/fill.ts"
import { emptyWork, resortWork, sortWork, type Work } from "../planner/work.ts"
import type { LiveRequest } from "../request.ts"
import { aloneUs, demoteDoomed, isDoomed } from "./doomed.ts"
import type { Policy } from "./policy.ts"

export function slosServe(options: PolicyOptions): Policy {
  const admission = new Admission(options)
  // An offer is only a question: what it finds must not mix with what was decided.
  const offers = new Admission(options)
  const work = emptyWork(options)
  work.forecastSpareKv = (batch) => admission.spareKvTokens(work.yielding, batch)
  const asked = { ...emptyWork(options), speculator: work.speculator }

  const candidates: LiveRequest[] = []
  // A plan to the token has no share to give away.
  const patienceUs = countsExactly(options) ? Infinity : options.bestEffortPatienceUs

  return {
    name: "slos-serve",
    keepsSessions: true,
    decide(requests, batch, nowUs) {
      const { context } = batch
      demoteDoomed(requests, context, nowUs)
      sortWork(requests, work)
      noteArrivals(work, context)
      work.speculator.follow(null)
      work.speculator.planFor(work, context)
      work.spareKvTokens = null
      pickOverdue(context, work, patienceUs, nowUs)
      candidates.length = 0
      for (const request of work.prefills) candidates.push(request)
      for (const request of work.bestEffort) if (canReturn(request, context, nowUs)) candidates.push(request)
      if (candidates.length > 0 || work.bestEffort.length > 0) {
        sortByDue(candidates)
        const kept = admission.select(work, candidates, context, nowUs)
        const { changed, decodesToo } = settle(candidates, kept, context, options)
        if (changed) {
          resortWork(requests, work, decodesToo)
          pickOverdue(context, work, patienceUs, nowUs)
        }
        for (const request of candidates) if (request.tier === "bestEffort") work.hopeful.push(request)
      }
      work.exact = countsExactly(options) && !work.speculator.drafts
      fillBatch(batch, work, options, nowUs)
    },
    offer(requests, offered, context, atUs) {
      if (isDoomed(offered, context, atUs)) return false
      sortWork(requests, asked)
      asked.overdue = work.overdue
      pickOverdue(context, asked, patienceUs, atUs)
      asked.prefills.push(offered)
      sortByDue(asked.prefills)
      return offers.select(asked, asked.prefills, context, atUs).size === asked.prefills.length
    },
  }
}

/** Learn how long those that came since the last decision could wait. */
function noteArrivals(work: Work, context: PlanningContext): void {
  const { lastArrival } = work
  for (const request of work.prefills) {
    if (request.order <= lastArrival || request.output > 0) continue
    work.lastArrival = Math.max(work.lastArrival, request.order)
    work.arrivalSlack.observe(request.deadlineUs - request.arrivalUs - aloneUs(request, context))
  }
}

/** Best-effort requests come back while no token of theirs was late and their next one can still be on time. */
function canReturn(request: LiveRequest, context: PlanningContext, nowUs: number): boolean {
  return request.spec.tier === "slo" && !isDoomed(request, context, nowUs)
}

/** Make it so. Answers whether any request changed its tier, and whether one of them came back that had begun to
 * decode. */
function settle(
  candidates: readonly LiveRequest[],
  kept: ReadonlySet<LiveRequest>,
  context: PlanningContext,
  options: PolicyOptions,
): { changed: boolean; decodesToo: boolean } {
  let changed = false
  let decodesToo = false
  for (const request of candidates) {
    if (!kept.has(request)) {
      changed ||= request.tier === "slo"
      context.demote(request, request.admitted ? "revoked" : "wontFit")
      continue
    }
    if (request.tier === "bestEffort") {
      context.promote(request)
      changed = true
      decodesToo ||= request.decoding
    }
    if (options.admission === "firm") context.admit(request)
    else request.admitted = true
  }
  return { changed, decodesToo }
}
