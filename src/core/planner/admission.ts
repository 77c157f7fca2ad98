/** Whose SLOs to keep: revocable Moore–Hodgson over prefills by deadline (DESIGN §4 step 3). Going by deadline,
 * every prefill joins; while the set cannot be done in time, one goes: of a session that
 * has missed already if there is one, else the one with the most prefill left. */
import type { PolicyOptions } from "../policy/policy.ts"
import type { LiveRequest } from "../request.ts"
import type { Draft } from "./draft.ts"
import { Demand } from "./feasible.ts"
import { peakTokens } from "./memory.ts"
import type { Speculator } from "./speculator.ts"

interface Candidate {
  request: LiveRequest
  start: number
  owed: number
  remaining: number
  stream: number
  kept: boolean
}

/** Reusable: one per policy instance. */
export class Admission {
  #options: PolicyOptions
  #demand: Demand | null = null
  #candidates: Candidate[] = []

  constructor(options: PolicyOptions) {
    this.#options = options
  }

  /** Split `prefills` (by deadline) into kept ones and the rest, given the running `decodes` and how they
   * speculate. Returns the kept set; the caller demotes or leaves the others. */
  select(
    { decodes, speculator }: { decodes: readonly LiveRequest[]; speculator: Speculator },
    prefills: readonly LiveRequest[],
    draft: Draft,
    nowUs: number,
  ): Set<LiveRequest> {
    const options = this.#options
    const demand = (this.#demand ??= new Demand(draft.cost, draft.limits))
    // A mixed horizon is mostly prefill-bound: be as careful as the worse of the two calibrations.
    const scale = Math.max(draft.calibration(true), draft.calibration(false)) * (1 + options.margin)
    demand.reset(nowUs, options.maxBatchUs, scale)
    for (const request of decodes) {
      demand.addStream(
        request.dueUs - request.tpotUs,
        request.tpotUs,
        this.#remaining(request, draft),
        request.known,
        speculator.lengthOf(request),
        speculator.expectedOf(request, draft),
      )
    }
    const candidates = this.#candidates
    candidates.length = 0
    for (const request of prefills) {
      const candidate = this.#join(request, draft, demand, speculator)
      candidates.push(candidate)
      this.#dropUntil(request.dueUs, demand)
    }
    // The decodes that follow the last prefill must fit as well, soon and a while later.
    const last = prefills.length > 0 ? prefills[prefills.length - 1]!.dueUs : nowUs
    this.#dropUntil(last + 2 * options.maxBatchUs, demand)
    this.#dropUntil(last + 10 * options.maxBatchUs, demand)
    if (draft.limits.unifiedKv) this.#dropForMemory(decodes, draft)
    const kept = new Set<LiveRequest>()
    for (const candidate of candidates) if (candidate.kept) kept.add(candidate.request)
    return kept
  }

  #join(request: LiveRequest, draft: Draft, demand: Demand, speculator: Speculator): Candidate {
    const start = draft.startOf(request)
    const owed = request.known - start
    const remaining = this.#remaining(request, draft)
    demand.addPrefill(start, owed, 1)
    const stream = demand.addStream(
      request.dueUs,
      request.tpotUs,
      remaining,
      request.known,
      speculator.lengthOf(request),
      speculator.expectedOf(request, draft),
    )
    return { request, start, owed, remaining, stream, kept: true }
  }

  /** Drop the prefill with the most left until everything due by `atUs` fits (or nothing can be dropped). */
  #dropUntil(atUs: number, demand: Demand): void {
    while (!demand.fits(atUs)) {
      const victim = this.#largest()
      if (victim === null) return
      victim.kept = false
      demand.addPrefill(victim.start, victim.owed, -1)
      demand.toggle(victim.stream, false)
    }
  }

  #dropForMemory(decodes: readonly LiveRequest[], draft: Draft): void {
    const room = draft.kv.capacityTokens * this.#options.kvShare
    for (;;) {
      const current = decodes.map((r) => r.known)
      const remaining = decodes.map((r) => this.#remaining(r, draft))
      for (const candidate of this.#candidates) {
        if (!candidate.kept) continue
        current.push(candidate.request.known)
        remaining.push(candidate.remaining)
      }
      if (peakTokens(current, remaining) <= room) return
      const victim = this.#largest()
      if (victim === null) return
      victim.kept = false
    }
  }

  #largest(): Candidate | null {
    const firm = this.#options.admission === "firm"
    let largest: Candidate | null = null
    for (const candidate of this.#candidates) {
      // A request whose first token is out (and is being recomputed) holds a promise, as does a firm admission.
      const promised = candidate.request.admitted && (firm || candidate.request.output > 0)
      if (!candidate.kept || promised) continue
      if (largest === null || goesBefore(candidate, largest)) largest = candidate
    }
    return largest
  }

  #remaining(request: LiveRequest, draft: Draft): number {
    return draft.lengths.remaining(request.spec.app, request.output, request.spec.maxOutputTokens)
  }
}

/** Rounds of a session that has missed already go first: keeping their SLO saves no request. Then the largest. */
function goesBefore(a: Candidate, b: Candidate): boolean {
  if (a.request.sessionMissed !== b.request.sessionMissed) return a.request.sessionMissed
  return a.owed > b.owed
}
