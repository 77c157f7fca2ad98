/** Sorts the live requests into the kinds of work a batch is made of. */
import { ArrivalSlack } from "../learn/arrival-slack.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import { sortByDue } from "./due-order.ts"
import { PrefixWait } from "./prefix-wait.ts"
import { Speculator } from "./speculation/speculator.ts"

/** Arrays are reused from one decision to the next. */
export interface Work {
  /** SLO requests one token short: by due time. */
  decodes: LiveRequest[]
  /** SLO requests that owe prompt (or recomputation): by due time. */
  prefills: LiveRequest[]
  /** Turned down for now, but their deadline can still be made: by due time. Filled in by the policy. */
  hopeful: LiveRequest[]
  /** Everything else, by arrival. */
  bestEffort: LiveRequest[]
  /** Of these the ones that have waited too long, and the others, which may lose their KV to requests with an SLO. */
  overdue: LiveRequest[]
  yielding: readonly LiveRequest[]
  /** All SLO requests by arrival, then best-effort by arrival: the first to lose KV stands last. */
  byValue: LiveRequest[]
  /** When best-effort work was last in a batch (or there was none). Kept from one decision to the next. */
  bestEffortServedUs: number
  /** Of the time that batches could last, the share that SLO work has filled of late. Kept likewise. */
  slackNeeded: number
  /** How long arrivals can wait. Kept likewise. */
  arrivalSlack: ArrivalSlack
  /** The last arrival that was counted. */
  lastArrival: number
  /** Which prompts are being computed that others begin with, too. */
  prefixWait: PrefixWait
  /** When the overdue were last given time for their prompts. Kept likewise. */
  overdueServedUs: number
  /** When a place for its adapter was last kept for the first of them. Kept likewise. */
  overdueTurnUs: number
  /** KV tokens that requests without a promise may begin to use; null until it is asked for. */
  spareKvTokens: number | null
  /** How many these are; set by policies that forecast it. */
  forecastSpareKv: (batch: BatchBuilder) => number
  /** Admission counted on decodes that run no earlier than they must. Set by policies that plan so. */
  exact: boolean
  /** Tenants that were served most and want more than fits: their prompts give way to those of others. Set by the policy. */
  tenantsAhead: ReadonlySet<number>
  /** How many tokens whose decode drafts. Kept likewise. */
  speculator: Speculator
}

export const NO_TENANTS: ReadonlySet<number> = new Set()

export function emptyWork(options: PolicyOptions = DEFAULT_OPTIONS): Work {
  const bestEffort: LiveRequest[] = []
  return {
    decodes: [],
    prefills: [],
    hopeful: [],
    bestEffort,
    overdue: [],
    yielding: bestEffort,
    byValue: [],
    bestEffortServedUs: 0,
    overdueServedUs: 0,
    overdueTurnUs: 0,
    slackNeeded: 1,
    prefixWait: new PrefixWait(),
    arrivalSlack: new ArrivalSlack(),
    lastArrival: -1,
    spareKvTokens: null,
    forecastSpareKv: () => Infinity,
    exact: false,
    tenantsAhead: NO_TENANTS,
    speculator: new Speculator(options),
  }
}

export const byDue = (a: LiveRequest, b: LiveRequest): number => a.dueUs - b.dueUs || a.order - b.order

/** Fill `work` from `requests` (in order of arrival). */
export function sortWork(requests: readonly LiveRequest[], work: Work): Work {
  work.hopeful.length = 0
  resortWork(requests, work, true)
  return work
}

/** After changes of tier: what runs is as it was, unless `decodesToo`. Keeps `hopeful`. */
export function resortWork(requests: readonly LiveRequest[], work: Work, decodesToo: boolean): void {
  const running = splitWork(requests, work)
  if (decodesToo) {
    listDecodes(requests, work.decodes, running)
    sortByDue(work.decodes)
  }
  sortByDue(work.prefills)
}

const isPrefill = (request: LiveRequest) => request.tier === "slo" && !request.decoding
const isDecode = (request: LiveRequest) => request.tier === "slo" && request.decoding

/** Every list of prompts has a number of its own, by which requests in it are told. */
let lists = 0

/** Fill all lists but that of the decodes. Returns how many of these there are. Lists are overwritten, not emptied
 * first: they would be allocated anew each time. Prompts that waited before keep their order, which is nearly right. */
function splitWork(requests: readonly LiveRequest[], work: Work): number {
  const { prefills, bestEffort, byValue } = work
  const list = ++lists
  let [owing, others, valued] = [0, 0, 0]
  for (const request of prefills) {
    if (request.gone || !isPrefill(request)) continue
    request.listed = list
    prefills[owing++] = request
  }
  for (const request of requests) {
    if (request.tier === "bestEffort") bestEffort[others++] = request
    else {
      byValue[valued++] = request
      if (!request.decoding && request.listed !== list) prefills[owing++] = request
    }
  }
  prefills.length = owing
  bestEffort.length = others
  for (let i = 0; i < others; i++) byValue[valued + i] = bestEffort[i]!
  byValue.length = valued + others
  return valued - owing
}

/** The `count` SLO requests that decode. Where all of them did before, they keep that order: it is almost right. */
function listDecodes(requests: readonly LiveRequest[], decodes: LiveRequest[], count: number): void {
  let kept = 0
  for (const request of decodes) if (!request.gone && isDecode(request)) decodes[kept++] = request
  if (kept !== count) {
    kept = 0
    for (const request of requests) if (isDecode(request)) decodes[kept++] = request
  }
  decodes.length = kept
}

/** The smallest time per output token of the decodes, µs. */
export function tightestPaceUs(decodes: readonly LiveRequest[]): number {
  let paceUs = Infinity
  for (const { tpotUs } of decodes) if (tpotUs < paceUs) paceUs = tpotUs
  return paceUs
}
