/** How many tokens to verify per request and step (DESIGN §4.5). While prompts wait: the lengths that leave most
 * room for prefill, since longer lengths make longer batches with fewer fixed costs. With decodes alone: the
 * lengths that give most tokens per time. Plain functions; speculator.ts keeps the choice steady. */
import { expectedTokens } from "../acceptance.ts"
import type { CostModel, CostPiece } from "../cost.ts"

/** Decodes of one pace and one acceptance. */
export interface SpeculationTier {
  tpotUs: number
  /** Probability that a drafted token is accepted. */
  acceptance: number
  count: number
  /** Mean tokens of KV each of them attends to. */
  contextTokens: number
}

export interface SpeculationSetting {
  cost: Pick<CostModel, "pieces" | "unifiedKv">
  /** Predicted time is multiplied by this (margin and calibration). */
  scale: number
  /** No batch is longer, however far ahead the decodes are, µs. */
  maxBatchUs: number
  maxBatchTokens: number
  /** Most tokens verified per request and step, the sure one included. */
  maxLength: number
}

/** Share of the expected gain that a pace counts on: with all of it, leads would drift nowhere and random-walk
 * into violation. */
const COUNTED_GAIN = 0.9
/** Up to so many combinations of lengths are all tried. */
const MOST_COMBINATIONS = 512

/** How long an iteration may be that gives each request of a tier `length` tokens to verify, µs. */
export function paceUs(tier: SpeculationTier, length: number): number {
  return tier.tpotUs * (1 + COUNTED_GAIN * (expectedTokens(tier.acceptance, length) - 1))
}

/** Prefill tokens per µs beside the decodes, as a share of what the engine could do with nothing else to do (a
 * number ≤ 1; negative when the decodes alone are too much): (N(τ, s) − Σ n·s) / τ, τ the shortest pace. Tiers
 * of a longer pace sit out their share of the iterations. */
export function prefillRoom(
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  lengths: readonly number[],
): number {
  let tauUs = setting.maxBatchUs
  for (let i = 0; i < tiers.length; i++) tauUs = Math.min(tauUs, paceUs(tiers[i]!, lengths[i]!))
  const price = Math.max(...setting.cost.pieces.map((piece) => piece.tokens ?? 0), 1e-9)
  let room = (setting.maxBatchTokens - loadOf({ tokens: 1 }, setting, tiers, lengths, tauUs)) * price
  for (const piece of setting.cost.pieces) {
    const leftUs = tauUs / setting.scale - loadOf(piece, setting, tiers, lengths, tauUs)
    const own = piece.tokens ?? 0
    // A piece that prompts cost nothing only says whether the decodes fit.
    if (own > 0) room = Math.min(room, (leftUs * price) / own)
    else if (leftUs < 0) room = Math.min(room, leftUs)
  }
  return (room * setting.scale) / tauUs
}

/** Tokens per µs of a batch of all decodes and nothing else; when that leaves someone behind its pace, minus how
 * far behind. */
export function decodeRate(
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  lengths: readonly number[],
): number {
  let timeUs = 0
  for (const piece of setting.cost.pieces)
    timeUs = Math.max(timeUs, loadOf(piece, setting, tiers, lengths, 0) * setting.scale)
  let expected = 0
  let verified = 0
  let behind = 0
  for (let i = 0; i < tiers.length; i++) {
    expected += tiers[i]!.count * expectedTokens(tiers[i]!.acceptance, lengths[i]!)
    verified += tiers[i]!.count * lengths[i]!
    behind = Math.max(behind, timeUs / paceUs(tiers[i]!, lengths[i]!) - 1)
  }
  if (verified > setting.maxBatchTokens && lengths.some((length) => length > 1)) return -Infinity
  return behind > 0 ? -behind : expected / timeUs
}

/** The lengths of most `score`: of all combinations when they are few; else the best of the lengths that just
 * reach each possible pace and of equal lengths, improved one tier at a time. */
export function bestLengths(
  score: typeof prefillRoom,
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
): number[] {
  const combinations = setting.maxLength ** tiers.length
  const candidates =
    combinations <= MOST_COMBINATIONS
      ? everyCombination(setting.maxLength, tiers.length)
      : likelyCombinations(setting, tiers)
  let best: number[] = tiers.map(() => 1)
  let most = score(setting, tiers, best)
  for (const lengths of candidates) {
    const value = score(setting, tiers, lengths)
    if (value > most) {
      best = [...lengths]
      most = value
    }
  }
  return combinations <= MOST_COMBINATIONS ? best : improved(score, setting, tiers, best)
}

/** Yields the same array again and again. */
function* everyCombination(maxLength: number, tiers: number): Generator<number[]> {
  const lengths = Array.from({ length: tiers }, () => 1)
  for (;;) {
    yield lengths
    let i = 0
    while (i < tiers && lengths[i] === maxLength) lengths[i++] = 1
    if (i === tiers) return
    lengths[i]!++
  }
}

/** For a given pace the shortest lengths that reach it are best wherever tokens are what decodes cost. */
function* likelyCombinations(
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
): Generator<number[]> {
  const { maxLength } = setting
  const reaching = (tier: SpeculationTier, us: number) => {
    let length = 1
    while (length < maxLength && paceUs(tier, length) < us) length++
    return length
  }
  for (let length = 1; length <= maxLength; length++) {
    yield tiers.map(() => length)
    for (const tier of tiers) {
      const us = Math.min(setting.maxBatchUs, paceUs(tier, length))
      yield tiers.map((other) => reaching(other, us))
    }
  }
}

function improved(
  score: typeof prefillRoom,
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  from: readonly number[],
): number[] {
  const best = [...from]
  let most = score(setting, tiers, best)
  for (let changed = true; changed; ) {
    changed = false
    for (let i = 0; i < tiers.length; i++) {
      for (let length = 1; length <= setting.maxLength; length++) {
        const before = best[i]!
        best[i] = length
        const value = score(setting, tiers, best)
        if (value > most) {
          most = value
          changed = true
        } else best[i] = before
      }
    }
  }
  return best
}

/** What the decodes of one iteration cost by one piece, µs. `tauUs` 0: everyone takes part. */
function loadOf(
  piece: CostPiece,
  { cost }: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  lengths: readonly number[],
  tauUs: number,
): number {
  let longest = 1
  let passes = 0
  let sum = piece.step ?? 0
  for (let i = 0; i < tiers.length; i++) {
    const tier = tiers[i]!
    const length = lengths[i]!
    if (length > longest) longest = length
    if (!cost.unifiedKv && lengths.indexOf(length) === i) passes++
    const taking = tier.count * (tauUs > 0 ? Math.min(1, tauUs / paceUs(tier, length)) : 1)
    const pairs = length * tier.contextTokens + (length * (length - 1)) / 2
    sum +=
      taking *
      (((piece.tokens ?? 0) + (piece.outputs ?? 0)) * length +
        (piece.sequences ?? 0) +
        (piece.slowPairs ?? 0) * pairs)
  }
  return sum + (piece.passes ?? 0) * Math.max(1, passes) + (piece.specSteps ?? 0) * (longest - 1)
}
