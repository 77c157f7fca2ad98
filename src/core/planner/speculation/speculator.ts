/** Keeps the choice of speculation lengths from one decision to the next: groups the decodes into tiers, asks
 * useful-rate.ts again only when they have changed, and changes its mind only for a clear gain. */
import type { CostModel } from "../../cost.ts"
import { expectedRows, expectedTokens } from "../../learn/acceptance.ts"
import type { PolicyOptions } from "../../options.ts"
import type { LiveRequest } from "../../request.ts"
import type { PlanningContext } from "../context.ts"
import { type Tier, Tiers } from "./tiers.ts"
import { bestLengths, type SpeculationSetting, usefulRate } from "./useful-rate.ts"

/** A choice and what it was made for. */
interface Choice {
  cost: CostModel
  tiers: Tiers
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
      ? new Tiers({ decodes: work.decodes, expected: work.prefills }, context)
      : new Tiers({ decodes: [...work.decodes, ...work.bestEffort], expected: [] }, context)
    const kind = waiting > 0 ? "mixed" : this.drafts ? "drafted" : "decode"
    const scale = context.calibration(kind) * (1 + context.margin(kind))
    const doublings = Math.ceil(Math.log2(1 + waiting))
    const last = this.#choices[doublings]
    const { cost } = context
    if (last === undefined || last.cost !== cost || !isSame(last, tiers, scale)) {
      const setting: SpeculationSetting = {
        cost,
        scale,
        maxBatchUs: this.#options.maxBatchUs,
        maxBatchTokens: context.limits.maxBatchTokens,
        waitingTokens: waiting,
        maxLength: this.#options.maxSpeculation,
      }
      this.#choices[doublings] = { cost, tiers, scale, lengths: this.#choose(setting, tiers.list) }
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
    if (this.#followed !== null) return planned(this.#followed, request.tpotUs)
    const choice = this.#current
    if (choice === null) return 1
    const place = choice.tiers.placeOf(request.spec.app, request.tpotUs)
    return place < 0 ? 1 : choice.lengths[place]!
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

/** What a plan says for such a TPOT. It has few, and counts every other as the next tighter one. */
function planned(lengths: ReadonlyMap<number, number>, tpotUs: number): number {
  const exact = lengths.get(tpotUs)
  if (exact !== undefined || tpotUs === Infinity) return exact ?? 1
  let tighterUs = 0
  for (const each of lengths.keys()) if (each < tpotUs && each > tighterUs) tighterUs = each
  return lengths.get(tighterUs) ?? 1
}

/** What a choice says for such a tier; undefined when it had none. */
function lengthIn(choice: Choice | null, { app, tpotUs }: Tier): number | undefined {
  return choice?.lengths[choice.tiers.placeOf(app, tpotUs)]
}

function isSame(choice: Choice, tiers: Tiers, scale: number): boolean {
  if (choice.tiers.list.length !== tiers.list.length || differs(choice.scale, scale, SAME_SCALE)) return false
  for (const tier of tiers.list) {
    const other = choice.tiers.matching(tier, tiers)
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
