/** The paper's segment budget with speculative decoding (arXiv 2504.08784 §4.2): batches of one length, in which
 * every decode of a tier verifies that tier's number of tokens; the lengths that leave most for prefill win. */
import { expectedTokens } from "../../learn/acceptance.ts"
import type { BatchTime, SegmentBatch, SegmentPlan } from "./segment.ts"
import { prefillOnly, SHORT_OF, tightestTpot, usedTiers } from "./segment.ts"

/** Verification lengths per tier that keep all tiers' paces equal, and the longest batch they allow. */
interface Lengths {
  perTier: number[]
  longest: number
  unit: number
  /** Tokens of a batch of `unit`. */
  room: number
}

/** Lengths are whole numbers that rounding must not push up to the next. */
const ROUNDING = 1e-9
/** Options that no other beats: at most the candidates, tiers × lengths. */
const MOST_OPTIONS = 64

export class SpeculativeSegments implements SegmentPlan {
  readonly tokens = new Float64Array(MOST_OPTIONS)
  readonly elapsed = new Float64Array(MOST_OPTIONS)
  readonly time: BatchTime
  #tpots: readonly number[]
  #alpha: number
  #maxTokens: number
  #decodeWeight: number
  #byMask = new Map<number, Lengths[]>()
  /** Which lengths each option has. */
  #chosen: Lengths[] = []

  /** `maxTokens`: most tokens verified per request and step, the sure one included. `decodeWeight`: prefill tokens
   * that one of them costs as much as (1 in the paper's model). */
  constructor(time: BatchTime, tpots: readonly number[], alpha: number, maxTokens: number, decodeWeight = 1) {
    this.time = time
    this.#tpots = tpots
    this.#alpha = alpha
    this.#maxTokens = maxTokens
    this.#decodeWeight = decodeWeight
  }

  get tpots(): readonly number[] {
    return this.#tpots
  }

  rate(mask: number): number {
    const longest = Math.floor(expectedTokens(this.#alpha, this.#maxTokens) + ROUNDING)
    return this.time.rate(longest * tightestTpot(this.#tpots, mask) * SHORT_OF)
  }

  /** The published plan keeps the most tokens; it may take longer than one with fewer, so all are kept that no
   * other beats in both. */
  plan(time: number, counts: ArrayLike<number>): number {
    const mask = usedTiers(counts)
    const { tokens, elapsed } = this
    if (mask === 0) {
      prefillOnly(this, time, null)
      return 1
    }
    let options = 0
    if (time > 0) {
      for (const lengths of this.#candidates(mask)) {
        const unit = Math.min(time, lengths.unit)
        const room = this.#room(lengths, unit, counts)
        if (room < 0) continue
        const steps = Math.floor(time / unit)
        options = this.#offer(options, steps * room, steps * unit, lengths)
      }
    }
    if (options > 0) return options
    tokens[0] = elapsed[0] = 0
    return 1
  }

  sustains(counts: ArrayLike<number>): boolean {
    const mask = usedTiers(counts)
    if (mask === 0) return true
    return this.#candidates(mask).some(
      (lengths) => lengths.room >= weigh(lengths, counts) * this.#decodeWeight,
    )
  }

  steady(counts: ArrayLike<number>): SegmentBatch | null {
    const mask = usedTiers(counts)
    if (mask === 0) return null
    const lengths = this.lengths(counts)
    if (lengths === null) return null
    let tokens = 0
    let longest = 1
    for (let tier = 0; tier < counts.length; tier++) {
      tokens += lengths[tier]! * counts[tier]!
      longest = Math.max(longest, lengths[tier]!)
    }
    return {
      time: this.time.of(Math.ceil(tokens * this.#decodeWeight), longest),
      perTier: lengths.slice(),
      prefillTokens: 0,
    }
  }

  batches(time: number, counts: ArrayLike<number>, option: number): SegmentBatch[] {
    const list: SegmentBatch[] = []
    if (usedTiers(counts) === 0) {
      const none = this.#tpots.map(() => 0)
      prefillOnly(this, time, (tokens) =>
        list.push({ time: this.time.of(tokens, 1), perTier: none, prefillTokens: tokens }),
      )
      return list
    }
    this.#chosen.length = 0
    this.plan(time, counts)
    const lengths = this.#chosen[option]
    if (lengths === undefined) return list
    const unit = Math.min(time, lengths.unit)
    const prefillTokens = this.#room(lengths, unit, counts)
    for (let i = Math.floor(time / unit); i > 0; i--)
      list.push({ time: unit, perTier: lengths.perTier, prefillTokens })
    return list
  }

  /** Tokens each tier verifies per step so that most is left for prefill, per unit of time. Null when the decodes
   * do not fit. */
  lengths(counts: ArrayLike<number>): readonly number[] | null {
    let best: Lengths | null = null
    let most = -1
    for (const lengths of this.#candidates(usedTiers(counts))) {
      const room = lengths.room - weigh(lengths, counts) * this.#decodeWeight
      if (room < 0 || room / lengths.unit <= most) continue
      most = room / lengths.unit
      best = lengths
    }
    return best?.perTier ?? null
  }

  #room(lengths: Lengths, unit: number, counts: ArrayLike<number>): number {
    const room = unit === lengths.unit ? lengths.room : this.time.tokensWithin(unit, lengths.longest)
    return Math.floor(room - weigh(lengths, counts) * this.#decodeWeight)
  }

  /** Add an option unless another is as good; drop those it beats. Returns how many there are. */
  #offer(options: number, tokens: number, elapsed: number, lengths: Lengths): number {
    let kept = 0
    for (let i = 0; i < options; i++) {
      if (this.tokens[i]! >= tokens && this.elapsed[i]! <= elapsed) return options
      if (tokens >= this.tokens[i]! && elapsed <= this.elapsed[i]!) continue
      this.#set(kept++, this.tokens[i]!, this.elapsed[i]!, this.#chosen[i]!)
    }
    this.#set(kept, tokens, elapsed, lengths)
    return kept + 1
  }
  #set(option: number, tokens: number, elapsed: number, lengths: Lengths): void {
    this.tokens[option] = tokens
    this.elapsed[option] = elapsed
    this.#chosen[option] = lengths
  }

  #candidates(mask: number): Lengths[] {
    let list = this.#byMask.get(mask)
    if (list !== undefined) return list
    list = []
    for (let tier = 0; tier < this.#tpots.length; tier++) {
      if ((mask & (1 << tier)) === 0) continue
      for (let length = 1; length <= this.#maxTokens; length++) {
        const lengths = this.#paced(mask, tier, length)
        if (lengths === null || list.some((other) => other.perTier.join() === lengths.perTier.join()))
          continue
        list.push(lengths)
      }
    }
    this.#byMask.set(mask, list)
    return list
  }

  /** When `tier` verifies `length` tokens, the fewest that every other tier must so as to keep up. */
  #paced(mask: number, tier: number, length: number): Lengths | null {
    const alpha = this.#alpha
    const base = this.#tpots[tier]!
    const perTier = this.#tpots.map(() => 0)
    let unit = Infinity
    let longest = 1
    for (let k = 0; k < perTier.length; k++) {
      if ((mask & (1 << k)) === 0) continue
      const tpot = this.#tpots[k]!
      const share = (tpot - base + alpha ** length * base) / tpot
      const tokens = Math.max(1, Math.ceil(Math.log(share) / Math.log(alpha) - ROUNDING))
      if (!(tokens <= this.#maxTokens)) return null
      perTier[k] = tokens
      unit = Math.min(unit, Math.floor(expectedTokens(alpha, tokens)) * tpot)
      longest = Math.max(longest, tokens)
    }
    return { perTier, longest, unit, room: this.time.tokensWithin(unit, longest) }
  }
}

function weigh(lengths: Lengths, counts: ArrayLike<number>): number {
  let tokens = 0
  for (let tier = 0; tier < counts.length; tier++) tokens += lengths.perTier[tier]! * counts[tier]!
  return tokens
}
