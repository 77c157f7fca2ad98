/** Sorts the live requests into the kinds of work a batch is made of. */
import { DEFAULT_OPTIONS, type PolicyOptions } from "../policy/policy.ts"
import type { LiveRequest } from "../request.ts"
import { sortByDue } from "./due-order.ts"
import { Speculator } from "./speculator.ts"

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
  /** All SLO requests by arrival, then best-effort by arrival: who loses KV first stands last. */
  byValue: LiveRequest[]
  /** When best-effort work was last in a batch (or there was none). Kept from one decision to the next. */
  bestEffortServedUs: number
  /** KV that requests without a promise may begin to use; set by policies that forecast it. */
  spareKvTokens: number
  /** Admission counted on decodes that run no earlier than they must. Set by policies that plan so. */
  exact: boolean
  /** How many tokens whose decode drafts. Kept likewise. */
  speculator: Speculator
}

export const emptyWork = (options: PolicyOptions = DEFAULT_OPTIONS): Work => ({
  decodes: [],
  prefills: [],
  hopeful: [],
  bestEffort: [],
  byValue: [],
  bestEffortServedUs: 0,
  spareKvTokens: Infinity,
  exact: false,
  speculator: new Speculator(options),
})

export const byDue = (a: LiveRequest, b: LiveRequest): number => a.dueUs - b.dueUs || a.order - b.order

/** Fill `work` from `requests` (in order of arrival). */
export function sortWork(requests: readonly LiveRequest[], work: Work): Work {
  work.hopeful.length = 0
  splitWork(requests, work)
  sortByDue(work.decodes)
  sortByDue(work.prefills)
  return work
}

/** After changes of tier: what runs is as it was, unless `decodesToo`. Keeps `hopeful`. */
export function resortWork(requests: readonly LiveRequest[], work: Work, decodesToo: boolean): void {
  splitWork(requests, work, decodesToo ? work.decodes : null)
  if (decodesToo) sortByDue(work.decodes)
  sortByDue(work.prefills)
}

function splitWork(
  requests: readonly LiveRequest[],
  work: Work,
  decodes: LiveRequest[] | null = work.decodes,
): void {
  const { prefills, bestEffort, byValue } = work
  prefills.length = bestEffort.length = byValue.length = 0
  if (decodes !== null) decodes.length = 0
  for (const request of requests) {
    if (request.tier === "bestEffort") {
      bestEffort.push(request)
      continue
    }
    byValue.push(request)
    if (!request.decoding) prefills.push(request)
    else if (decodes !== null) decodes.push(request)
  }
  for (const request of bestEffort) byValue.push(request)
}
