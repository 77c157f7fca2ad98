/** Requests without a promise: they get what is left over, and those that have waited longest a share of
 * their own. */
import type { PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import type { PlanningContext } from "./context.ts"
import { draftWithin } from "./speculation/draft-lengths.ts"
import { tightestPaceUs, type Work } from "./work.ts"

/** Of the KV, the sequences and the steps, what those that have waited too long may take between them. */
export const OVERDUE_SHARE = 1 / 64

/** Best effort gets none of the slack while SLO work needs so much of it: the rest is what absorbs bursts. Found by
 * simulation: 0.85 costs tool sessions three points at capacity, 0.75 has the turned down wait half as long again. */
const MOST_NEEDED = 0.8
/** How long it is remembered how much of the slack SLO work needed. */
const SLACK_MEMORY_US = 2_000_000

/** Bring `work.overdue` up to date: best-effort requests without KV whose next token is long overdue, the first
 * come first, as many as the share holds, one at least; a request among them stays to its end. `work.yielding`: the
 * others. Under lasting overload newcomers would take whatever is freed, and small requests what a large one needs,
 * for ever. */
export function pickOverdue(context: PlanningContext, work: Work, patienceUs: number, nowUs: number): void {
  const { bestEffort } = work
  const staying = work.overdue.filter(({ gone, tier }) => !gone && tier === "bestEffort")
  const most = Math.max(1, context.limits.maxSequences * OVERDUE_SHARE)
  let tokens = context.kv.capacityTokens * OVERDUE_SHARE
  for (const request of staying) tokens -= tokensToTheEnd(request, context)
  for (const request of bestEffort) {
    if (staying.length >= most || (tokens < 0 && staying.length > 0)) break
    // A request without an objective is due in an hour: it counts from its arrival.
    const sinceUs = request.spec.tier === "bestEffort" ? request.arrivalUs : request.dueUs
    if (nowUs - sinceUs < patienceUs || context.kv.holds(request.id) || staying.includes(request)) continue
    tokens -= tokensToTheEnd(request, context)
    if (tokens >= 0 || staying.length === 0) staying.push(request)
  }
  work.overdue = staying
  work.yielding = staying.length === 0 ? bestEffort : bestEffort.filter((other) => !staying.includes(other))
}

function tokensToTheEnd({ known, output, spec }: LiveRequest, { outputLengths }: PlanningContext): number {
  return known + outputLengths.remaining(spec.app, output, spec.maxOutputTokens)
}

/** Their decodes, and their prompts as far as they fit: where SLO prompts wait too, these come first in a share of the
 * steps only. (A share of each batch would be less than a chunk where chunks are slow.) */
export function serveOverdue(batch: BatchBuilder, work: Work, limitUs: number, nowUs: number): void {
  const everyUs = work.prefills.length === 0 ? 0 : limitUs / OVERDUE_SHARE
  const promptsToo = nowUs - work.overdueServedUs >= everyUs
  for (const request of work.overdue) {
    if (batch.has(request)) continue
    if (request.decoding) {
      const drafted = draftWithin(batch, work, request, limitUs)
      if (drafted >= 0) batch.decode(request, work.yielding, drafted)
    } else if (promptsToo && batch.prefillWithin(request, limitUs, work.yielding) > 0)
      work.overdueServedUs = nowUs
  }
}

/** A batch is worth the fixed cost of a step from so many shortest steps on. By simulation with TTFTs of 1.1 × the prefill
 * time: at 1.5 what is late waits longer, at 2 up to an arrival in thirty more is late. */
const LEAST_STEPS = 1.7

/** Shorter batches, where arrivals can hardly wait, leave too little for work, µs. */
export function leastWorthUs(batch: BatchBuilder): number {
  return LEAST_STEPS * batch.safeUs(0, 1)
}

/** Best-effort work may stretch a batch while SLO work runs only so far, since an arrival waits for the batch's
 * end. When that has left it nothing for a while, it gets what the tightest decode can spare: requests that
 * hold KV must not starve. */
export function serveBestEffort(
  batch: BatchBuilder,
  work: Work,
  limitUs: number,
  options: PolicyOptions,
  nowUs: number,
): void {
  const { bestEffort } = work
  noteNeed(batch.safeUs(), work, options.maxBatchUs)
  if (bestEffort.length === 0) {
    work.bestEffortServedUs = nowUs
    return
  }
  const before = batch.items.length
  const alone = work.decodes.length === 0 && work.prefills.length === 0
  // With nothing to keep, a batch is as long as arrivals can wait; no shorter than what is worth its fixed cost.
  const aloneUs = Math.min(options.maxBatchUs, Math.max(leastWorthUs(batch), work.arrivalSlack.us))
  const starved = nowUs - work.bestEffortServedUs >= options.bestEffortEveryUs
  const usualUs = Math.min(
    limitUs,
    Math.max(options.bestEffortBatchUs, stretchedUs(batch.safeUs(), limitUs, work)),
  )
  fillBestEffort(batch, work, alone ? aloneUs : starved ? limitUs : usualUs)
  if (batch.items.length > before) work.bestEffortServedUs = nowUs
}

/** Learn how much of the time that batches could last SLO work needs, from a batch in which it takes `sloUs`. */
function noteNeed(sloUs: number, work: Work, maxBatchUs: number): void {
  const paceUs = Math.max(1, Math.min(maxBatchUs, tightestPaceUs(work.decodes)))
  const share = Math.min(1, sloUs / paceUs)
  work.slackNeeded += Math.min(1, sloUs / SLACK_MEMORY_US) * (share - work.slackNeeded)
}

/** How long a batch may become whose SLO work takes `sloUs` and that could last until `limitUs`: of that slack, the share
 * that SLO work has not needed of late (under load it needs all of it, to absorb what arrives next), and no more than
 * those that keep arriving can wait. */
function stretchedUs(sloUs: number, limitUs: number, work: Work): number {
  const spareUs = Math.max(0, MOST_NEEDED - work.slackNeeded) * (limitUs - sloUs)
  return sloUs + Math.min(spareUs, Math.max(0, work.arrivalSlack.us - sloUs))
}

function fillBestEffort(batch: BatchBuilder, work: Work, limitUs: number): void {
  const requests = work.bestEffort
  const losers = new Losers(work, batch.context)
  // Only requests that hold KV can give it up: with a thousand waiting, looking through all of them for each is the pause.
  let last = requests.length - 1
  for (let i = 0; i < requests.length && batch.tokensLeft > 0; i++) {
    const request = requests[i]!
    if (batch.has(request) || (!request.decoding && batch.isFull(limitUs))) continue
    if (!batch.adapters.allow(request)) continue
    if (work.prefixWait.for(request, batch.context) !== null) continue
    if (!mayStart(request, batch, work)) continue
    while (last > i && (batch.has(requests[last]!) || !batch.context.kv.holds(requests[last]!.id))) last--
    const later = last > i ? losers.after(i, requests[i]!.tenant) : undefined
    if (later === undefined && !batch.context.kv.canAttach() && !batch.context.kv.holds(request.id)) continue
    if (!request.decoding) {
      if (batch.prefillWithin(request, limitUs, later) > 0) work.prefixWait.started(request)
    } else {
      const drafted = draftWithin(batch, work, request, limitUs)
      if (drafted >= 0) batch.decode(request, later, drafted)
    }
  }
}

/** Best-effort requests that others may take KV from: those that come later and hold some. Of other tenants only where they
 * are clearly ahead: with every token served the turn is another's, and two that take it from each other would never end. */
class Losers {
  #work: Work
  #context: PlanningContext
  #ofTenant = new Map<number, { requests: LiveRequest[]; places: number[]; from: number }>()

  constructor(work: Work, context: PlanningContext) {
    this.#work = work
    this.#context = context
  }

  /** For the request at `place`, of `tenant`. Places must not go back. */
  after(place: number, tenant: number): LiveRequest[] {
    let found = this.#ofTenant.get(tenant)
    if (found === undefined) {
      found = { ...this.#find(place, tenant), from: 0 }
      this.#ofTenant.set(tenant, found)
    }
    const { requests, places } = found
    while (found.from < places.length && places[found.from]! <= place) found.from++
    return requests.slice(found.from)
  }

  #find(place: number, tenant: number): { requests: LiveRequest[]; places: number[] } {
    const { bestEffort, overdue } = this.#work
    const { kv, tenants } = this.#context
    const [requests, places]: [LiveRequest[], number[]] = [[], []]
    for (let i = place + 1; i < bestEffort.length; i++) {
      const request = bestEffort[i]!
      if (!kv.holds(request.id) || overdue.includes(request)) continue
      if (request.tenant !== tenant && !tenants.isAhead(request.tenant, tenant)) continue
      requests.push(request)
      places.push(i)
    }
    return { requests, places }
  }
}

/** A request that is turned down may take KV only where promises will not need it: else it is evicted before its
 * end, its prefill done for nothing, and the promises' decodes with it. */
export function mayStart(request: LiveRequest, batch: BatchBuilder, work: Work): boolean {
  if (batch.context.kv.holds(request.id) || work.overdue.includes(request)) return true
  work.spareKvTokens ??= work.forecastSpareKv(batch)
  const { need } = batch.context
  const needs = need.newTokens(request, tokensToTheEnd(request, batch.context))
  if (needs > work.spareKvTokens) return false
  work.spareKvTokens -= needs
  return true
}
