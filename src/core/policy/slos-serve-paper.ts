/** The paper's policy, autoregressive: arrivals are admitted by the dynamic program and then kept; declined ones
 * are served best-effort; every batch is sized to the tightest TPOT and filled with prefill by deadline. */
import { acceptByDp, type DpRequest, tokenBudget } from "../planner/dp.ts"
import type { Draft } from "../planner/draft.ts"
import { byDue, emptyWork, sortWork } from "../planner/work.ts"
import type { LiveRequest } from "../request.ts"
import { demoteDoomed } from "./doomed.ts"
import type { Policy, PolicyOptions } from "./policy.ts"

export function slosServePaper(options: PolicyOptions): Policy {
  const work = emptyWork()
  return {
    name: "slos-serve-paper",
    decide(requests, draft, nowUs) {
      demoteDoomed(requests, draft, nowUs)
      sortWork(requests, work)
      admitArrivals([...work.decodes, ...work.prefills], draft, options, nowUs)
      sortWork(requests, work)

      const { margin } = options
      let tightestUs = options.maxBatchUs * 4
      for (const request of work.decodes) tightestUs = Math.min(tightestUs, request.tpotUs)
      for (const request of work.decodes) draft.decode(request, work.byValue)
      for (const request of work.prefills) draft.prefillWithin(request, tightestUs, margin, work.bestEffort)
      for (const request of work.bestEffort) {
        if (!request.decoding) draft.prefillWithin(request, tightestUs, margin)
        else if (draft.timeUs(margin, request.computed, 1, true) <= tightestUs) draft.decode(request)
      }
      if (draft.items.length === 0) runFirst(requests, work.byValue, draft)
    },
  }
}

function admitArrivals(slo: LiveRequest[], draft: Draft, options: PolicyOptions, nowUs: number): void {
  if (slo.every((request) => request.admitted)) return
  const requests = slo.sort(byDue)
  const tpotsUs = [...new Set(requests.map((r) => r.tpotUs))].sort((a, b) => a - b)
  let heldTokens = 0
  let contextTokens = 0
  for (const request of requests) {
    contextTokens += request.known / requests.length
    if (request.admitted) heldTokens += lifeTokens(request, draft)
  }
  const instance = requests.map((request): DpRequest => {
    const owed = request.decoding ? 0 : request.known - draft.startOf(request)
    return {
      deadlineUs: owed === 0 ? 0 : request.dueUs - nowUs,
      owed,
      tier: tpotsUs.indexOf(request.tpotUs),
      kvTokens: request.admitted ? 0 : lifeTokens(request, draft),
      must: request.admitted,
    }
  })
  const scale = draft.calibration(true) * (1 + options.margin)
  const budget = tokenBudget(draft.cost, scale, contextTokens, draft.limits.maxBatchTokens)
  const freeTokens = draft.kv.capacityTokens * options.kvShare - heldTokens
  const accepted = acceptByDp(instance, tpotsUs, freeTokens, budget)
  requests.forEach((request, i) => {
    if (request.admitted) return
    if (accepted?.has(i)) draft.admit(request)
    else draft.demote(request, "wontFit")
  })
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
