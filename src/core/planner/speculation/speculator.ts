/** Keeps the choice of speculation lengths from one decision to the next: groups the decodes into tiers, asks
 * speculation.ts again only when they have changed, and changes its mind only for a clear gain. */
import { expectedRows, expectedTokens } from "../../learn/acceptance.ts"
import type { PolicyOptions } from "../../options.ts"
import type { LiveRequest } from "../../request.ts"
import type { PlanningContext } from "../context.ts"
import { bestLengths, type SpeculationSetting, type SpeculationTier, usefulRate } from "./useful-rate.ts"

interface Tier extends SpeculationTier {
  app: number
}

/** A choice and what it was made for. */
interface Choice {
  tiers: Tier[]
  scale: number
  lengths: number[]
}

/** Changes of a tier's count, context or predicted time by less than this do not call for a new choice. */
const SAME_COUNT = 0.15
const SAME_CONTEXT = 0.25
const SAME_SCALE = 0.1
const SAME_ACCEPTANCE = 0.02
const SAME_HIT_RATE = 0.1
/** A new choice must be better by this share, so that a tie does not make the lengths flicker. Of the steps in which
 * the drafter has something to offer: the others cost nothing, so that seldom having an idea is no reason to stop. */
const CLEAR_GAIN = 0.01
/** Taking it up again needs more: the model's error must not turn into a loss. */
const STARTING_GAIN = 0.03

/** The lists of a decision that the choice depends on (a part of `Work`, which holds the speculator). */
export interface DecodesAndWaiting {
  decodes: readonly LiveRequest[]
  prefills: readonly LiveRequest[]
  bestEffort: readonly LiveRequest[]
}

export class Speculator {
  #options: PolicyOptions
  /** One choice for decodes alone, and one for every doubling of the prompt tokens that wait. */
  #choices: (Choice | undefined)[] = []
  #current: Choice | null = null
  #scratch: Tier[] = []
  #followed: ReadonlyMap<number, number> | null = null

  constructor(options: PolicyOptions) {
    this.#options = options
  }

  /** Choose for a batch of `work`. Best-effort decodes have a say only while no prompt waits. */
  planFor(work: DecodesAndWaiting, context: PlanningContext): void {
    if (this.#options.speculation !== "on") return
    let waiting = 0
    for (const request of work.prefills) waiting += request.owed
    const promptsWait = waiting > 0 || work.bestEffort.some((request) => !request.decoding)
    const tiers = promptsWait
      ? this.#tiersOf(work.decodes, work.prefills, context)
      : this.#tiersOf([...work.decodes, ...work.bestEffort], [], context)
    const kind = waiting > 0 ? "mixed" : this.drafts ? "drafted" : "decode"
    const scale = context.calibration(kind) * (1 + context.margin(kind))
    const doublings = Math.ceil(Math.log2(1 + waiting))
    const last = this.#choices[doublings]
    if (last === undefined || !isSame(last, tiers, scale)) {
      const setting: SpeculationSetting = {
        cost: context.cost,
        scale,
        maxBatchUs: this.#options.maxBatchUs,
        maxBatchTokens: context.limits.maxBatchTokens,
        waitingTokens: waiting,
        maxLength: this.#options.maxSpeculation,
      }
      this.#choices[doublings] = { tiers, scale, lengths: this.#choose(setting, tiers) }
      this.#scratch = []
    }
    this.#current = this.#choices[doublings]!
  }

  /** Lengths per TPOT in µs that a plan counts on, instead of this one's choice; null = its own again. */
  follow(lengths: ReadonlyMap<number, number> | null): void {
    this.#followed = lengths
  }

  /** Whether any request drafts at all. */
  get drafts(): boolean {
    if (this.#followed !== null) return [...this.#followed.values()].some((length) => length > 1)
    const { speculation, fixedDraft } = this.#options
    return speculation === "on"
      ? (this.#current?.lengths.some((length) => length > 1) ?? false)
      : fixedDraft > 0
  }

  /** Tokens to verify per step of requests like this one. */
  lengthOf(request: LiveRequest): number {
    const { speculation, fixedDraft } = this.#options
    if (speculation !== "on") return 1 + fixedDraft
    if (this.#followed !== null) return this.#followed.get(request.tpotUs) ?? 1
    const choice = this.#current
    if (choice === null) return 1
    const at = indexOf(choice.tiers, request)
    return at < 0 ? 1 : choice.lengths[at]!
  }

  /** Tokens that such a step is expected to yield. */
  expectedOf(request: LiveRequest, context: PlanningContext): number {
    const length = this.lengthOf(request)
    const { app } = request.spec
    return length > 1
      ? expectedTokens(context.acceptance.of(app), length, context.acceptance.hitRate(app))
      : 1
  }

  /** Tokens that such a step is expected to verify: fewer than `lengthOf` where the drafter may have no idea. */
  rowsOf(request: LiveRequest, context: PlanningContext): number {
    const length = this.lengthOf(request)
    return length > 1 ? expectedRows(length, context.acceptance.hitRate(request.spec.app)) : 1
  }

  #tiersOf(
    decodes: readonly LiveRequest[],
    expected: readonly LiveRequest[],
    context: PlanningContext,
  ): Tier[] {
    const tiers = this.#scratch
    tiers.length = 0
    for (const request of decodes) {
      const tier = tierOf(tiers, request, context)
      tier.count++
      tier.contextTokens += (request.known - tier.contextTokens) / tier.count
    }
    // A request that is only expected makes sure that its tier has a length; it does not take room yet.
    for (const request of expected) {
      const tier = tierOf(tiers, request, context)
      if (tier.count > 0) continue
      tier.count = 1
      tier.contextTokens = request.known
    }
    return tiers
  }

  /** The best lengths, but those of the last decision unless the gain is clear; none where they do not pay. */
  #choose(setting: SpeculationSetting, tiers: readonly Tier[]): number[] {
    const best = bestLengths(setting, tiers)
    const before = tiers.map((tier, i) => lengthIn(this.#current, tier) ?? best[i]!)
    const none = tiers.map(() => 1)
    const now = usefulRate(setting, tiers, before)
    const hitRate = Math.max(0, ...tiers.map((tier) => tier.hitRate))
    const gain = hitRate * (before.every((length) => length === 1) ? STARTING_GAIN : CLEAR_GAIN)
    if (now === -Infinity || usefulRate(setting, tiers, best) > now + gain * Math.abs(now)) return best
    return now >= usefulRate(setting, tiers, none) ? before : none
  }
}

function tierOf(tiers: Tier[], request: LiveRequest, context: PlanningContext): Tier {
  const at = indexOf(tiers, request)
  if (at >= 0) return tiers[at]!
  const { app } = request.spec
  const tier = {
    app,
    tpotUs: request.tpotUs,
    acceptance: context.acceptance.of(app),
    hitRate: context.acceptance.hitRate(app),
    count: 0,
    contextTokens: 0,
  }
  tiers.push(tier)
  return tier
}

function indexOf(tiers: readonly Tier[], request: LiveRequest): number {
  const { tpotUs } = request
  const { app } = request.spec
  for (let i = 0; i < tiers.length; i++) {
    if (tiers[i]!.app === app && tiers[i]!.tpotUs === tpotUs) return i
  }
  return -1
}

/** What a choice says for such a tier; undefined when it had none. */
function lengthIn(choice: Choice | null, tier: Tier): number | undefined {
  const at = choice?.tiers.findIndex(({ app, tpotUs }) => app === tier.app && tpotUs === tier.tpotUs) ?? -1
  return at < 0 ? undefined : choice!.lengths[at]
}

function isSame(choice: Choice, tiers: readonly Tier[], scale: number): boolean {
  if (choice.tiers.length !== tiers.length || differs(choice.scale, scale, SAME_SCALE)) return false
  for (const tier of tiers) {
    const other = choice.tiers.find(({ app, tpotUs }) => app === tier.app && tpotUs === tier.tpotUs)
    if (other === undefined || Math.abs(other.acceptance - tier.acceptance) > SAME_ACCEPTANCE) return false
    if (differs(other.hitRate, tier.hitRate, SAME_HIT_RATE)) return false
    if (differs(other.count, tier.count, SAME_COUNT)) return false
    if (differs(other.contextTokens, tier.contextTokens, SAME_CONTEXT)) return false
  }
  return true
}

function differs(a: number, b: number, share: number): boolean {
  return Math.abs(a - b) > share * a
}
