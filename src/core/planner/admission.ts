/** Whose SLOs to keep: revocable Moore–Hodgson over prefills by deadline (docs/design.md, Admission). Going by
 * deadline, every prefill joins; while the set cannot be done in time, one goes: of a session that has missed already
 * if there is one, else the one with the most prefill left for its worth. Firm promises on an exact timer: the paper's
 * dynamic program. */
import type { PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import { OVERDUE_SHARE } from "./best-effort.ts"
import type { PlanningContext } from "./context.ts"
import { Dp } from "./dp/dp.ts"
import { solveFor } from "./dp/instance.ts"
import { Demand, type Stream } from "./feasible.ts"
import { MemoryCeiling, MemoryForecast } from "./memory.ts"
import type { Speculator } from "./speculation/speculator.ts"

/** Of the KV that the forecast may fill, this share is out of reach without a promise: arrivals would find it
 * taken, and evict what was computed for nothing. */
const KEPT_FREE_SHARE = 0.055

interface Candidate {
  request: LiveRequest
  start: number
  owed: number
  stream: number
  kept: boolean
}

/** What runs, and how it speculates. */
export interface Running {
  decodes: readonly LiveRequest[]
  /** Best-effort requests that are served like these, at their pace from now on. */
  overdue: readonly LiveRequest[]
  speculator: Speculator
}

/** Promises from admission on, by a timer without a margin: what is chosen can be planned to the token, and decodes
 * then wait until they are due. With a margin the fluid test holds as much, or more where KV is short. */
export function countsExactly({ admission, margin }: PolicyOptions): boolean {
  return admission === "firm" && margin === 0
}

/** Requests that one decision may newly promise. */
const MOST_TO_DECIDE = 32

/** Reusable: one per policy instance. */
export class Admission {
  #options: PolicyOptions
  #demand: Demand | null = null
  #candidates: Candidate[] = []
  #count = 0
  #kept = new Set<LiveRequest>()
  #dp = new Dp()
  /** Tokens verified per TPOT, µs, of the last plan. */
  #lengths: ReadonlyMap<number, number> | null = null
  #forecast = new MemoryForecast()
  #ceiling = new MemoryCeiling()
  /** What runs, where the forecast has been left until it is asked for. */
  #unforeseen: Running | null = null

  constructor(options: PolicyOptions) {
    this.#options = options
  }

  /** Split `prefills` (by deadline) into kept ones and the rest, given what runs. Returns the kept set (valid
   * until the next call); the caller demotes or leaves the others. */
  select(
    running: Running,
    prefills: readonly LiveRequest[],
    context: PlanningContext,
    nowUs: number,
  ): ReadonlySet<LiveRequest> {
    const options = this.#options
    // With nothing to choose from, what is to be foreseen can wait until it is asked for.
    const noChoice = prefills.length === 0 && options.admission !== "firm"
    this.#unforeseen = noChoice ? running : null
    if (noChoice) return this.#keepNone()
    const demand = (this.#demand ??= new Demand(context.cost, context.limits))
    // A mixed horizon is mostly prefill-bound: be as careful as the worse of the two calibrations.
    const share = running.overdue.some(({ decoding }) => !decoding) ? OVERDUE_SHARE : 0
    const scale =
      Math.max(context.calibration(true), context.calibration(false)) * (1 + options.margin + share)
    demand.reset(nowUs, options.maxBatchUs, scale)
    for (const request of running.decodes) {
      const startUs = request.dueUs - request.tpotUs
      demand.addRunning(this.#stream(request, startUs, running.speculator, context))
    }
    for (const request of running.overdue)
      demand.addRunning(this.#stream(request, nowUs, running.speculator, context))
    this.#count = 0
    if (countsExactly(options)) {
      const kept = this.#promised(running, prefills, context, nowUs)
      this.#foreseeAll(running, context)
      for (const request of kept) this.#foresee(request, context, 1)
      return kept
    }
    for (const request of prefills) {
      this.#join(request, context, demand, running.speculator)
      this.#dropUntil(request.dueUs, demand)
    }
    // The decodes that follow the last prefill must fit as well, soon and a while later.
    const last = prefills.length > 0 ? prefills[prefills.length - 1]!.dueUs : nowUs
    this.#dropUntil(last + 2 * options.maxBatchUs, demand)
    this.#dropUntil(last + 10 * options.maxBatchUs, demand)
    if (context.limits.unifiedKv) this.#dropForMemory(running, context)
    const kept = this.#kept
    kept.clear()
    for (let i = 0; i < this.#count; i++) {
      const candidate = this.#candidates[i]!
      if (candidate.kept) kept.add(candidate.request)
    }
    return kept
  }

  #keepNone(): ReadonlySet<LiveRequest> {
    this.#count = 0
    this.#kept.clear()
    return this.#kept
  }

  /** After `select`: KV tokens that neither those with a promise nor the `others` that hold some will need.
   * Infinity where every request has a KV stream of its own. */
  spareKvTokens(others: readonly LiveRequest[], batch: BatchBuilder): number {
    const { context } = batch
    if (!context.limits.unifiedKv) return Infinity
    if (this.#unforeseen !== null) this.#foreseeAll(this.#unforeseen, context)
    const peak = this.#forecast.peakTokens()
    let held = 0
    for (const request of others) {
      if (batch.held(request)) held += request.known + this.#remaining(request, context)
    }
    const room = context.kv.capacityTokens * this.#options.kvShare * (1 - KEPT_FREE_SHARE)
    return room - peak - held
  }

  /** A promise that is kept from admission on decides over later arrivals too: the set worth most is the knapsack
   * of the paper's dynamic program. */
  #promised(
    { decodes, speculator }: Running,
    prefills: readonly LiveRequest[],
    context: PlanningContext,
    nowUs: number,
  ): ReadonlySet<LiveRequest> {
    const kept = this.#kept
    kept.clear()
    for (const request of prefills) if (this.#isFirm(request)) kept.add(request)
    if (kept.size === prefills.length && this.#options.speculation === "off") return kept
    // What is due later is decided later: the program's time grows with the square of those it may choose from.
    // It knows tokens and memory, not the engine's sequences.
    const most = Math.min(MOST_TO_DECIDE, context.limits.maxSequences - decodes.length - kept.size)
    let free = 0
    const asked = prefills.filter((request) => kept.has(request) || free++ < most)
    const must = (request: LiveRequest) => kept.has(request)
    const answer = solveFor(this.#dp, decodes, asked, must, context, this.#options, nowUs)
    // Where the plan's units no longer fit, the lengths that led here still come nearest to it.
    if (answer !== null) this.#lengths = answer.lengths()
    speculator.follow(this.#options.speculation === "on" ? this.#lengths : null)
    for (const step of answer?.steps ?? []) kept.add(asked[step.request]!)
    return kept
  }

  #join(request: LiveRequest, context: PlanningContext, demand: Demand, speculator: Speculator): void {
    const start = context.startOf(request)
    const owed = request.known - start
    demand.addPrefill(start, owed, 1)
    const stream = demand.addStream(this.#stream(request, request.dueUs, speculator, context))
    this.#candidates[this.#count++] = { request, start, owed, stream, kept: true }
  }

  #stream(request: LiveRequest, startUs: number, speculator: Speculator, context: PlanningContext): Stream {
    return {
      startUs,
      tpotUs: request.tpotUs,
      remaining: this.#remaining(request, context),
      contextTokens: request.known,
      length: speculator.rowsOf(request, context),
      expected: speculator.expectedOf(request, context),
    }
  }

  /** Drop the prefill with the most left until everything due by `atUs` fits (or nothing can be dropped). */
  #dropUntil(atUs: number, demand: Demand): void {
    while (!demand.fits(atUs)) {
      const victim = this.#largest()
      if (victim === null) return
      victim.kept = false
      demand.addPrefill(victim.start, victim.owed, -1)
      demand.drop(victim.stream)
    }
  }

  #dropForMemory(running: Running, context: PlanningContext): void {
    const room = context.kv.capacityTokens * this.#options.kvShare
    if (this.#mostTokens(running, context) <= room) {
      this.#unforeseen = running
      return
    }
    this.#foreseeAll(running, context)
    while (this.#forecast.peakTokens() > room) {
      const victim = this.#largest()
      if (victim === null) return
      victim.kept = false
      this.#foresee(victim.request, context, -1)
    }
  }

  /** What runs and the kept ones hold at most, as the forecast sees it. */
  #mostTokens(running: Running, context: PlanningContext): number {
    const ceiling = this.#ceiling
    ceiling.clear()
    this.#eachPromise(running, ({ spec, output, known }) => {
      ceiling.add(known, context.outputLengths.bounds(spec.app, output))
    })
    return ceiling.peakTokens
  }

  #foreseeAll(running: Running, context: PlanningContext): void {
    this.#forecast.clear()
    this.#eachPromise(running, (request) => this.#foresee(request, context, 1))
  }

  /** What runs and the kept ones. */
  #eachPromise({ decodes, overdue }: Running, visit: (request: LiveRequest) => void): void {
    for (const request of decodes) visit(request)
    for (const request of overdue) visit(request)
    for (let i = 0; i < this.#count; i++) {
      const { kept, request } = this.#candidates[i]!
      // A kept one that was promoted with its prompt done is among the decodes by now.
      if (kept && !(request.tier === "slo" && request.decoding)) visit(request)
    }
  }

  #foresee({ spec, output, known }: LiveRequest, context: PlanningContext, sign: 1 | -1): void {
    const outlook = context.outputLengths.outlook(spec.app, output)
    this.#forecast.add(known, spec.maxOutputTokens - output, outlook, sign)
  }

  #largest(): Candidate | null {
    let largest: Candidate | null = null
    for (let i = 0; i < this.#count; i++) {
      const candidate = this.#candidates[i]!
      if (!candidate.kept || this.#isFirm(candidate.request)) continue
      if (largest === null || goesBefore(candidate, largest)) largest = candidate
    }
    return largest
  }

  /** A request whose first token is out (and is being recomputed) holds a promise, as does a firm admission. */
  #isFirm({ admitted, output, spec }: LiveRequest): boolean {
    return spec.firm === true || (admitted && (this.#options.admission === "firm" || output > 0))
  }

  #remaining(request: LiveRequest, context: PlanningContext): number {
    return context.outputLengths.remaining(request.spec.app, request.output, request.spec.maxOutputTokens)
  }
}

/** Rounds of a session that has missed already go first: keeping their SLO saves no request. Then the largest for
 * what they are worth. */
function goesBefore(a: Candidate, b: Candidate): boolean {
  if (a.request.sessionMissed !== b.request.sessionMissed) return a.request.sessionMissed
  return a.owed * (b.request.spec.worth ?? 1) > b.owed * (a.request.spec.worth ?? 1)
}
