/** Whose SLOs to keep: revocable Moore–Hodgson over prefills by deadline (docs/design.md, Admission). Going by
 * deadline, every prefill joins; while the set cannot be done in time, one goes: of a session that has missed already
 * if there is one, else the one with the most prefill left for its worth. Firm promises on an exact timer: the paper's
 * dynamic program. */
import { countsExactly, type PolicyOptions } from "../options.ts"
import type { DemoteBound } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import { OVERDUE_SHARE } from "./best-effort.ts"
import type { Candidate } from "./candidate.ts"
import type { PlanningContext } from "./context.ts"
import { Dp } from "./dp/dp.ts"
import { solveFor } from "./dp/instance.ts"
import { windowOf } from "./fair-window.ts"
import { Demand } from "./feasible.ts"
import { MemoryCeiling, MemoryForecast } from "./memory.ts"
import { type PrefixGroup, PrefixGroups } from "./prefix-groups.ts"
import type { Running } from "./running.ts"
import { decodeTimeUs } from "./speculation/draft-lengths.ts"
import type { Speculator } from "./speculation/speculator.ts"
import { canKeepPace, type Stream } from "./streams.ts"
import { type Promised, Victims } from "./victims.ts"

/** Of the KV that the forecast may fill, this share is out of reach without a promise: arrivals would find it
 * taken, and evict what was computed for nothing. */
const KEPT_FREE_SHARE = 0.055

/** Of the KV that is not shared, so much more may be forecast where everything running is shared and batches need nothing
 * of the time that they could last; nothing more where they need `RELIEF_NEEDED` of it. By simulation: without an end to
 * it, chats behind shared prompts computed a third more than they had to, and kept 90% where 98% could be. */
const SHARED_RELIEF = 4
const RELIEF_NEEDED = 0.6

/** What is due later can wait for KV that running requests give back until then. */
const MEMORY_HORIZON_US = 60_000_000

/** Requests that one decision may newly promise. */
const MOST_TO_DECIDE = 32

/** Reusable: one per policy instance. */
export class Admission {
  #options: PolicyOptions
  #demand: Demand | null = null
  #candidates: Candidate[] = []
  #groups: PrefixGroups<Candidate> | null = null
  #memoryUntilUs = 0
  #victims = new Victims()
  #kept = new Set<LiveRequest>()
  /** Promises that give way to another tenant's. */
  readonly revoked = new Set<LiveRequest>()
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
    const demand = this.#reset(running, context, nowUs)
    if (countsExactly(options)) {
      const kept = this.#promised(running, prefills, context, nowUs)
      this.#foreseeAll(running, context)
      for (const request of kept) this.#foresee(request, context, 1)
      return kept
    }
    if (context.tenants.several) for (const request of prefills) this.#ask(request, context)
    for (const request of prefills) {
      this.#join(request, context, demand, running.speculator)
      this.#dropUntil(request.dueUs, demand)
    }
    // The decodes that follow the last prefill must fit as well, soon and a while later.
    const last = prefills.length > 0 ? prefills[prefills.length - 1]!.dueUs : nowUs
    this.#dropUntil(last + 2 * options.maxBatchUs, demand)
    this.#dropUntil(last + 10 * options.maxBatchUs, demand)
    if (context.limits.unifiedKv) this.#dropForMemory(running, demand, context)
    const kept = this.#kept
    kept.clear()
    for (const candidate of this.#candidates) if (candidate.kept) kept.add(candidate.request)
    return kept
  }

  /** After `select`: tenants of which some was turned down, though another was served clearly less. */
  get tenantsAhead(): ReadonlySet<number> {
    return this.#victims.tenantsAhead()
  }

  /** After `select`: by which bound the prefill at that place was not kept. */
  boundOf(place: number): DemoteBound {
    if (countsExactly(this.#options)) return "plan"
    return this.#candidates[place]?.lacksKv ? "memory" : "time"
  }

  /** The demand of what runs. */
  #reset(running: Running, context: PlanningContext, nowUs: number): Demand {
    const { maxBatchUs } = this.#options
    if (this.#demand?.cost !== context.cost) this.#demand = new Demand(context.cost, context.limits)
    const demand = this.#demand
    this.#groups ??= new PrefixGroups(context.limits.blockTokens)
    this.#groups.clear()
    this.#candidates.length = 0
    this.#victims.clear()
    this.revoked.clear()
    this.#memoryUntilUs = nowUs + MEMORY_HORIZON_US
    const share = running.overdue.some(({ decoding }) => !decoding) ? OVERDUE_SHARE : 0
    // While prompts wait every step carries one. What steps of decodes alone take says nothing of these: where they took
    // three times as long as predicted and these a quarter longer, large prompts were turned down that could be in time.
    const calibration = context.calibration("mixed") * (1 + share)
    demand.reset(nowUs, maxBatchUs, calibration, context.margin("mixed"))
    const stepUs = decodeTimeUs(context, running, running.decodes.length, Infinity)
    for (const request of running.decodes) {
      const stream = this.#stream(request, request.streamStartUs, running.speculator, context)
      if (!canKeepPace(stream, stepUs, nowUs)) continue
      const row = demand.addRunning(stream)
      if (context.tenants.several && this.#isRevocable(request))
        this.#victims.addPromised({ request, row }, context.tenants)
    }
    for (const request of running.overdue)
      demand.addRunning(this.#stream(request, nowUs, running.speculator, context))
    return demand
  }

  #keepNone(): ReadonlySet<LiveRequest> {
    this.#candidates.length = 0
    this.#victims.clear()
    this.#kept.clear()
    this.revoked.clear()
    return this.#kept
  }

  /** After `select`: KV tokens that neither those with a promise nor the `others` that hold some will need.
   * Infinity where every request has a KV stream of its own. */
  spareKvTokens(others: readonly LiveRequest[], batch: BatchBuilder): number {
    const { context } = batch
    if (!context.limits.unifiedKv) return Infinity
    if (this.#unforeseen !== null) this.#foreseeAll(this.#unforeseen, context)
    const holding = others.filter((request) => batch.held(request))
    for (const request of holding) this.#foresee(request, context, 1)
    const peak = this.#forecast.peakTokens()
    for (const request of holding) this.#foresee(request, context, -1)
    const room = context.kv.capacityTokens * this.#options.kvShare * (1 - KEPT_FREE_SHARE)
    return room - peak
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
    const free = prefills.filter((request) => !kept.has(request))
    const chosen = new Set(windowOf(free, Math.max(0, most), context.tenants).slice(0, Math.max(0, most)))
    const asked = prefills.filter((request) => kept.has(request) || chosen.has(request))
    const must = (request: LiveRequest) => kept.has(request)
    const worthOf = this.#worthByTenant(prefills, context)
    const answer = solveFor(this.#dp, decodes, asked, must, context, this.#options, nowUs, worthOf)
    // Where the plan's units no longer fit, the lengths that led here still come nearest to it.
    if (answer !== null) this.#lengths = answer.lengths()
    speculator.follow(this.#options.speculation === "on" ? this.#lengths : null)
    for (const step of answer?.steps ?? []) kept.add(asked[step.request]!)
    return kept
  }

  /** What a request of a tenant counts that another is clearly ahead of is more than all of those others'. */
  #worthByTenant(prefills: readonly LiveRequest[], context: PlanningContext) {
    if (context.tenants.several) for (const request of prefills) this.#ask(request, context)
    const behind = this.#victims.tenantsBehind()
    return ({ tenant, spec: { worth = 1 } }: LiveRequest) =>
      behind.has(tenant) ? worth * MOST_TO_DECIDE : worth
  }

  #ask(request: LiveRequest, context: PlanningContext): void {
    const tokens = request.owed + 2 * this.#remaining(request, context)
    this.#victims.ask(request.tenant, tokens, context.tenants)
  }

  #join(request: LiveRequest, context: PlanningContext, demand: Demand, speculator: Speculator): void {
    const start = context.startOf(request)
    const owed = request.known - start
    const decodes = this.#stream(request, request.dueUs, speculator, context)
    const stream = demand.addStream(decodes)
    const ownTokens = context.need.ownTokens(request, request.known)
    const tokens = owed + 2 * decodes.remaining
    const candidate: Candidate = { request, start, owed, group: null, ownTokens, stream, kept: true, tokens }
    candidate.group = this.#groups!.join(request, candidate, start, (first, group) => {
      if (first.kept) this.#count(first, demand, -1)
      this.#enter(first, group)
      if (first.kept) this.#count(first, demand, 1)
    })
    if (candidate.group !== null) this.#enter(candidate, candidate.group)
    this.#count(candidate, demand, 1)
    this.#candidates.push(candidate)
    this.#victims.add(candidate, this.#isFirm(request), context.tenants)
  }

  /** A candidate computes and takes less: the group's prefix is counted apart. */
  #enter(candidate: Candidate, group: PrefixGroup): void {
    const common = group.end - Math.max(group.start, candidate.start)
    candidate.group = group
    candidate.start = group.end
    candidate.owed = candidate.request.known - group.end
    candidate.ownTokens = Math.max(0, candidate.ownTokens - common)
  }

  /** Count (`sign` 1) or leave out (−1) its prefill, and its group's with the first or last of them. */
  #count({ request, start, owed, group }: Candidate, demand: Demand, sign: 1 | -1): void {
    demand.addPrefill(start, owed, sign, 1, request.rowsOf(owed, true), request.spec.adapter)
    if (group === null) return
    group.kept += sign
    if (group.kept === (sign > 0 ? 1 : 0)) demand.addPrefill(group.start, group.end - group.start, sign, 0)
  }

  #stream(request: LiveRequest, startUs: number, speculator: Speculator, context: PlanningContext): Stream {
    return {
      startUs,
      tpotUs: request.tpotUs,
      remaining: this.#remaining(request, context),
      contextTokens: request.known,
      length: speculator.rowsOf(request, context),
      expected: speculator.expectedOf(request, context),
      ...(request.spec.adapter !== undefined && { adapter: request.spec.adapter }),
    }
  }

  /** Drop the prefill with the most left until everything due by `atUs` fits (or nothing can be dropped). */
  #dropUntil(atUs: number, demand: Demand): void {
    while (!demand.fits(atUs)) {
      if (!this.#revoke(demand, () => demand.fits(atUs)) && !this.#dropLargest(demand)) return
    }
  }

  /** Promises of tenants that are far ahead give way to the next to go, where that is enough: as few as it takes. */
  #revoke(demand: Demand, fits: () => boolean, forecast?: PlanningContext): boolean {
    const ahead = this.#victims.aheadOfNext()
    if (ahead.length === 0) return false
    const count = ({ request, row }: Promised, sign: 1 | -1) => {
      if (sign > 0) demand.restoreRunning(row)
      else demand.dropRunning(row)
      if (forecast !== undefined) this.#foresee(request, forecast, sign)
    }
    // Most often all of them are not enough: to see that takes one test.
    for (const promised of ahead) count(promised, -1)
    const enough = fits()
    for (const promised of ahead) count(promised, 1)
    if (!enough) return false
    for (const promised of ahead) {
      count(promised, -1)
      this.#victims.revoke(promised)
      this.revoked.add(promised.request)
      if (fits()) return true
    }
    return true
  }

  #dropForMemory(running: Running, demand: Demand, context: PlanningContext): void {
    const room = this.#roomTokens(running, context)
    if (this.#mostTokens(running, context) <= room) {
      this.#unforeseen = running
      return
    }
    this.#foreseeAll(running, context)
    const fits = () => this.#forecast.peakTokens() <= room
    while (!fits()) {
      if (this.#revoke(demand, fits, context)) return
      const victim = this.#dropLargest(demand)
      if (victim === null) return
      victim.lacksKv = true
      if (victim.request.computed > 0 || victim.request.dueUs < this.#memoryUntilUs)
        this.#foreseeCandidate(victim, context, -1)
    }
  }

  /** What the forecast may come to. A request that loses its KV computes anew what it does not share: where most of it is
   * shared, and there is time to compute, KV left idle for fear of it is the greater loss. */
  #roomTokens(running: Running, context: PlanningContext): number {
    const { kv, need } = context
    const room = kv.capacityTokens * this.#options.kvShare
    if (kv.sharedTokens === 0) return room
    let [own, known] = [0, 0]
    this.#eachRunning(running, (request) => {
      own += need.ownTokens(request, request.known)
      known += request.known
    })
    const sharedShare = Math.max(0, 1 - own / Math.max(1, known))
    const spare = Math.max(0, RELIEF_NEEDED - running.slackNeeded)
    const relief = SHARED_RELIEF * sharedShare * spare
    return room + relief * Math.max(0, room - kv.sharedTokens)
  }

  /** The first candidate to go, if any may. */
  #dropLargest(demand: Demand): Candidate | null {
    const victim = this.#victims.take()
    if (victim === null) return null
    victim.kept = false
    this.#count(victim, demand, -1)
    demand.drop(victim.stream)
    return victim
  }

  /** What runs and the kept ones hold at most, as the forecast sees it. */
  #mostTokens(running: Running, context: PlanningContext): number {
    const ceiling = this.#ceiling
    ceiling.clear()
    ceiling.addFixed(context.kv.sharedTokens)
    const bounds = ({ spec, output }: LiveRequest) => context.outputLengths.bounds(spec.app, output)
    this.#eachRunning(running, (request) =>
      ceiling.add(context.need.ownTokens(request, request.known), bounds(request)),
    )
    const groups = new Set<PrefixGroup>()
    for (const { request, ownTokens, group } of this.#waiting()) {
      ceiling.add(ownTokens, bounds(request))
      if (group !== null && !groups.has(group)) {
        groups.add(group)
        ceiling.addFixed(group.end - group.start)
      }
    }
    return ceiling.peakTokens
  }

  #foreseeAll(running: Running, context: PlanningContext): void {
    this.#unforeseen = null
    this.#forecast.clear()
    this.#forecast.addFixed(context.kv.sharedTokens)
    this.#eachRunning(running, (request) => this.#foresee(request, context, 1))
    for (const group of new Set(Array.from(this.#waiting(), (candidate) => candidate.group)))
      if (group !== null) this.#forecast.addFixed(group.end - group.start)
    for (const candidate of this.#waiting()) this.#foreseeCandidate(candidate, context, 1)
  }

  #eachRunning({ decodes, overdue }: Running, visit: (request: LiveRequest) => void): void {
    for (const request of decodes) if (!this.revoked.has(request)) visit(request)
    for (const request of overdue) visit(request)
  }

  /** The kept ones that will hold KV beside what runs: others need not begin before some of that has ended. One that was
   * promoted with its prompt done is among the decodes by now. */
  *#waiting(): IterableIterator<Candidate> {
    for (const candidate of this.#candidates) {
      const { kept, request } = candidate
      if (!kept || (request.tier === "slo" && request.decoding)) continue
      if (request.computed > 0 || request.dueUs < this.#memoryUntilUs) yield candidate
    }
  }

  /** When the last of a group goes, so does its prefix. */
  #foreseeCandidate({ request, ownTokens, group }: Candidate, context: PlanningContext, sign: 1 | -1): void {
    this.#foreseeTokens(request, ownTokens, context, sign)
    if (sign < 0 && group?.kept === 0) this.#forecast.addFixed(group.start - group.end)
  }

  #foresee(request: LiveRequest, context: PlanningContext, sign: 1 | -1): void {
    this.#foreseeTokens(request, context.need.ownTokens(request, request.known), context, sign)
  }

  #foreseeTokens(request: LiveRequest, held: number, context: PlanningContext, sign: 1 | -1): void {
    const { spec, output } = request
    const outlook = context.outputLengths.outlook(spec.app, output)
    this.#forecast.add(held, spec.maxOutputTokens - output, outlook, sign)
  }

  /** A request whose first token is out (and is being recomputed) holds a promise, as does a firm admission. */
  #isFirm({ admitted, output, spec }: LiveRequest): boolean {
    return spec.firm === true || (admitted && (this.#options.admission === "firm" || output > 0))
  }

  #isRevocable({ spec }: LiveRequest): boolean {
    return spec.firm !== true && this.#options.admission !== "firm"
  }

  #remaining(request: LiveRequest, context: PlanningContext): number {
    return context.outputLengths.remaining(request.spec.app, request.output, request.spec.maxOutputTokens)
  }
}
