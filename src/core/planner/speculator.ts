/** Keeps the choice of speculation lengths from one decision to the next: groups the decodes into tiers, asks
 * speculation.ts again only when they have changed, and changes its mind only for a clear gain. */
import { expectedTokens } from "../acceptance.ts"
import type { PolicyOptions } from "../policy/policy.ts"
import type { LiveRequest } from "../request.ts"
import type { Draft } from "./draft.ts"
import {
  bestLengths,
  decodeRate,
  prefillRoom,
  type SpeculationSetting,
  type SpeculationTier,
} from "./speculation.ts"
import type { Work } from "./work.ts"

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
/** A new choice must be better by this share of the engine's time (or of the token rate), so that a tie does not
 * make the lengths flicker. */
const CLEAR_GAIN = 0.01
/** Beginning to speculate needs more: the model's error must not turn into a loss. */
const STARTING_GAIN = 0.03

export class Speculator {
  #options: PolicyOptions
  /** One choice while prompts wait, one for decodes alone. */
  #choices: [decodesAlone: Choice | null, prefill: Choice | null] = [null, null]
  #current: Choice | null = null
  #scratch: Tier[] = []
  #followed: ReadonlyMap<number, number> | null = null

  constructor(options: PolicyOptions) {
    this.#options = options
  }

  /** Choose for this decision: `decodes` will run, `expected` may join them later. `prefill`: prompts wait. */
  plan(
    decodes: readonly LiveRequest[],
    expected: readonly LiveRequest[],
    draft: Draft,
    prefill: boolean,
  ): void {
    if (this.#options.speculation !== "on") return
    const tiers = this.#tiersOf(decodes, expected, draft)
    const scale = draft.calibration(prefill) * (1 + this.#options.margin)
    const kind = prefill ? 1 : 0
    const last = this.#choices[kind]
    if (last === null || !isSame(last, tiers, scale)) {
      this.#choices[kind] = this.#choose(tiers, scale, draft, prefill, last)
      this.#scratch = []
    }
    this.#current = this.#choices[kind]
  }

  /** Choose for a batch of `work`. Best-effort decodes draft only while no prompt waits for the time it takes. */
  planFor(work: Pick<Work, "decodes" | "prefills" | "bestEffort">, draft: Draft): void {
    if (this.#options.speculation !== "on") return
    const prefill = work.prefills.length > 0 || work.bestEffort.some((request) => !request.decoding)
    if (prefill) this.plan(work.decodes, work.prefills, draft, true)
    else this.plan([...work.decodes, ...work.bestEffort], [], draft, false)
  }

  /** Lengths per TPOT in µs that a plan counts on, instead of this one's choice; null = its own again. */
  follow(lengths: ReadonlyMap<number, number> | null): void {
    this.#followed = lengths
  }

  /** Whether anyone drafts at all. */
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
  expectedOf(request: LiveRequest, draft: Draft): number {
    const length = this.lengthOf(request)
    return length > 1 ? expectedTokens(draft.acceptance.of(request.spec.app), length) : 1
  }

  #tiersOf(decodes: readonly LiveRequest[], expected: readonly LiveRequest[], draft: Draft): Tier[] {
    const tiers = this.#scratch
    tiers.length = 0
    for (const request of decodes) {
      const tier = tierOf(tiers, request, draft)
      tier.count++
      tier.contextTokens += (request.known - tier.contextTokens) / tier.count
    }
    // Who is only expected makes sure that its tier has a length; it does not take room yet.
    for (const request of expected) {
      const tier = tierOf(tiers, request, draft)
      if (tier.count > 0) continue
      tier.count = 1
      tier.contextTokens = request.known
    }
    return tiers
  }

  #choose(tiers: Tier[], scale: number, draft: Draft, prefill: boolean, last: Choice | null): Choice {
    const setting: SpeculationSetting = {
      cost: draft.cost,
      scale,
      maxBatchUs: this.#options.maxBatchUs,
      maxBatchTokens: draft.limits.maxBatchTokens,
      maxLength: this.#options.maxSpeculation,
    }
    const score = prefill ? prefillRoom : decodeRate
    const best = bestLengths(score, setting, tiers)
    const before = tiers.map((tier) => lastLength(last, tier))
    const none = tiers.map(() => 1)
    const now = score(setting, tiers, before)
    const off = score(setting, tiers, none)
    const gain = before.every((length) => length === 1) ? STARTING_GAIN : CLEAR_GAIN
    const unit = prefill ? 1 : Math.abs(now)
    const chosen = score(setting, tiers, best) > now + gain * unit ? best : now >= off ? before : none
    return { tiers, scale, lengths: chosen }
  }
}

function tierOf(tiers: Tier[], request: LiveRequest, draft: Draft): Tier {
  const at = indexOf(tiers, request)
  if (at >= 0) return tiers[at]!
  const { app } = request.spec
  const tier = {
    app,
    tpotUs: request.tpotUs,
    acceptance: draft.acceptance.of(app),
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

function lastLength(last: Choice | null, tier: Tier): number {
  const at = last?.tiers.findIndex((other) => other.app === tier.app && other.tpotUs === tier.tpotUs) ?? -1
  return at < 0 ? 1 : last!.lengths[at]!
}

function isSame(choice: Choice, tiers: readonly Tier[], scale: number): boolean {
  if (choice.tiers.length !== tiers.length || differs(choice.scale, scale, SAME_SCALE)) return false
  for (const tier of tiers) {
    const other = choice.tiers.find(({ app, tpotUs }) => app === tier.app && tpotUs === tier.tpotUs)
    if (other === undefined || Math.abs(other.acceptance - tier.acceptance) > SAME_ACCEPTANCE) return false
    if (differs(other.count, tier.count, SAME_COUNT)) return false
    if (differs(other.contextTokens, tier.contextTokens, SAME_CONTEXT)) return false
  }
  return true
}

function differs(a: number, b: number, share: number): boolean {
  return Math.abs(a - b) > share * a
}
