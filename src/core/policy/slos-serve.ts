/** The default policy (docs/design.md, Policies): keep every SLO that can be kept, serve the rest with what is left
 * over. */

import type { Tenants } from "../learn/tenants.ts"
import { countsExactly, type PolicyOptions } from "../options.ts"
import { Admission } from "../planner/admission.ts"
import { pickOverdue } from "../planner/best-effort.ts"
import type { PlanningContext } from "../planner/context.ts"
import { sortByDue } from "../planner/due-order.ts"
import { FairOrder } from "../planner/fair-order.ts"
import { windowOf } from "../planner/fair-window.ts"
import { fillBatch } from "../planner/fill.ts"
import { isOutOfTurn, mostServedInTurn } from "../planner/late-turns.ts"
import { prefillUs } from "../planner/prefill-time.ts"
import { emptyWork, NO_TENANTS, resortWork, sortWork, type Work } from "../planner/work.ts"
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
  const returning = new Returning()
  const returningFirst = new Returning()
  const fairOrder = new FairOrder()
  // A plan to the token has no share to give away.
  const patienceUs = countsExactly(options) ? Infinity : options.bestEffortPatienceUs

  return {
    name: "slos-serve",
    keepsSessions: true,
    decide(requests, batch, nowUs) {
      const { context } = batch
      demoteDoomed(requests, context, nowUs)
      sortWork(requests, work)
      const mostServed = mostServedInTurn(work.bestEffort, context)
      if (demoteOutOfTurn(work.prefills, mostServed, context)) resortWork(requests, work, false)
      fairOrder.sortWork(work, context)
      noteArrivals(requests, work, context)
      work.speculator.follow(null)
      work.speculator.planFor(work, context)
      work.spareKvTokens = null
      pickOverdue(context, work, patienceUs, nowUs)
      returning.find(work.bestEffort, context, nowUs, mostServed)
      candidates.length = 0
      work.tenantsAhead = NO_TENANTS
      // By due time: what stands further back is decided when its time comes nearer.
      const nearest = windowOf(work.prefills, MOST_CANDIDATES, context.tenants)
      for (const request of nearest) candidates.push(request)
      for (const request of returning.requests) candidates.push(request)
      if (candidates.length > 0 || work.bestEffort.length > 0) {
        sortByDue(candidates)
        const kept = admission.select(work, candidates, context, nowUs)
        const { changed, decodesToo } = settle(candidates, kept, admission, context, options)
        if (changed) {
          resortWork(requests, work, decodesToo)
          fairOrder.sortWork(work, context)
          pickOverdue(context, work, patienceUs, nowUs)
        }
        for (const request of candidates) if (request.tier === "bestEffort") work.hopeful.push(request)
        fairOrder.sort(work.hopeful, context)
        fairOrder.sortPrefills(work.prefills, kept, context.tenants)
        work.tenantsAhead = admission.tenantsAhead
      }
      work.exact = countsExactly(options) && !work.speculator.drafts
      fillBatch(batch, work, options, nowUs)
    },
    offer(requests, offered, context, atUs) {
      if (isDoomed(offered, context, atUs)) return false
      // What was asked about last is not in line.
      asked.prefills.length = 0
      sortWork(requests, asked)
      asked.overdue = work.overdue
      asked.slackNeeded = work.slackNeeded
      pickOverdue(context, asked, patienceUs, atUs)
      asked.prefills.push(offered)
      sortByDue(asked.prefills)
      const mostServed = mostServedInTurn(asked.bestEffort, context)
      if (isOutOfTurn(offered, mostServed, context)) return false
      const nearest = windowOf(asked.prefills, MOST_CANDIDATES, context.tenants)
      if (nearest.length < asked.prefills.length && !nearest.includes(offered)) return false
      const choice = [...nearest]
      // What is in the air leaves room that no decision has given out yet: those that were turned down may have it first.
      if (requests.some(({ foreseen }) => foreseen)) {
        returningFirst.find(asked.bestEffort, context, atUs, mostServed)
        choice.push(...returningFirst.requests)
        sortByDue(choice)
      }
      const kept = offers.select(asked, choice, context, atUs)
      // What is over another tenant's share is in the way of no offer.
      return (
        offers.revoked.size === 0 &&
        kept.has(offered) &&
        nearest.every((r) => kept.has(r) || r.tenant !== offered.tenant)
      )
    },
  }
}

/** Learn how long those that came since the last decision could wait. */
function noteArrivals(requests: readonly LiveRequest[], work: Work, context: PlanningContext): void {
  const { lastArrival, arrivalSlack } = work
  const { cost, limits } = context
  arrivalSlack.believe(
    cost,
    ({ position, owed }) =>
      prefillUs(cost, position, owed, limits.maxBatchTokens) * context.calibration("mixed"),
  )
  for (let i = requests.length - 1; i >= 0; i--) {
    const request = requests[i]!
    if (request.order <= lastArrival) return
    work.lastArrival = Math.max(work.lastArrival, request.order)
    if (request.spec.tier === "bestEffort" || request.output > 0) continue
    const position = context.startOf(request)
    const patienceUs = request.deadlineUs - request.arrivalUs
    arrivalSlack.arrived({ patienceUs, position, owed: request.known - position }, aloneUs(request, context))
  }
}

/** Prompts that one decision chooses among, and turned-down requests that it thinks over again: with thousands waiting,
 * those due later stand behind these anyway, and a decision must not take the time of a step. */
const MOST_CANDIDATES = 512
const MOST_RETURNING = 256

/** Best-effort requests that may come back, the first due when there are many. */
class Returning {
  readonly requests: LiveRequest[] = []
  #due = new Float64Array(1024)

  find(
    bestEffort: readonly LiveRequest[],
    context: PlanningContext,
    nowUs: number,
    mostServedTokens: number,
  ): void {
    this.requests.length = 0
    for (const request of bestEffort) {
      if (canReturn(request, context, nowUs) && !isOutOfTurn(request, mostServedTokens, context))
        this.requests.push(request)
    }
    if (this.requests.length <= MOST_RETURNING) return
    if (context.tenants.several) this.#keepWindow(context.tenants)
    else this.#keepFirstDue()
  }

  #keepWindow(tenants: Tenants): void {
    const found = this.requests
    sortByDue(found)
    const kept = windowOf(found, MOST_RETURNING, tenants)
    for (let i = 0; i < kept.length; i++) found[i] = kept[i]!
    found.length = kept.length
  }

  #keepFirstDue(): void {
    const found = this.requests
    if (found.length > this.#due.length) this.#due = new Float64Array(2 * found.length)
    const due = this.#due.subarray(0, found.length)
    for (let i = 0; i < found.length; i++) due[i] = found[i]!.dueUs
    const lastUs = due.sort()[MOST_RETURNING - 1]!
    let kept = 0
    for (const request of found) if (request.dueUs <= lastUs && kept < MOST_RETURNING) found[kept++] = request
    found.length = kept
  }
}

/** Answers whether there were any. */
function demoteOutOfTurn(
  prefills: readonly LiveRequest[],
  mostServedTokens: number,
  context: PlanningContext,
): boolean {
  let found = false
  for (const request of prefills) {
    if (!isOutOfTurn(request, mostServedTokens, context)) continue
    context.demote(request, "wontFit", "turn")
    found = true
  }
  return found
}

/** Best-effort requests come back while no token of theirs was late, or will be when what is in the air has landed, and their
 * next one can still be on time. */
function canReturn(request: LiveRequest, context: PlanningContext, nowUs: number): boolean {
  return request.spec.tier === "slo" && !request.foreseenLate && !isDoomed(request, context, nowUs)
}

/** Make it so. Answers whether any request changed its tier, and whether one of them came back that had begun to
 * decode. */
function settle(
  candidates: readonly LiveRequest[],
  kept: ReadonlySet<LiveRequest>,
  admission: Admission,
  context: PlanningContext,
  options: PolicyOptions,
): { changed: boolean; decodesToo: boolean } {
  const { revoked } = admission
  let changed = revoked.size > 0
  let decodesToo = revoked.size > 0
  for (const request of revoked) context.demote(request, "revoked")
  for (let i = 0; i < candidates.length; i++) {
    const request = candidates[i]!
    if (!kept.has(request)) {
      changed ||= request.tier === "slo"
      context.demote(request, request.admitted ? "revoked" : "wontFit", admission.boundOf(i))
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
