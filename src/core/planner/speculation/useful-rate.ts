/** How many tokens to verify per request and step (docs/design.md, Speculation): the lengths whose next batch yields
 * most useful tokens per time, of the prompts that wait and of the decodes. Plain functions; speculator.ts keeps it
 * steady. */

import type { CostModel, CostPiece } from "../../cost.ts"
import { type CudaGraphs, launchUs, paddingTokens } from "../../graphs.ts"
import { expectedRows, expectedTokens } from "../../learn/acceptance.ts"

/** Decodes of one pace and one acceptance. */
export interface SpeculationTier {
  tpotUs: number
  /** Probability that a drafted token is accepted. */
  acceptance: number
  /** Share of the steps in which the drafter has something to offer; the others verify one token. */
  hitRate: number
  count: number
  /** Mean tokens of KV each of them attends to. */
  contextTokens: number
}

export interface SpeculationSetting {
  cost: Pick<CostModel, "pieces" | "unifiedKv" | "graphs">
  /** Predicted time is multiplied by this (margin and calibration). */
  scale: number
  /** No batch is longer, however far ahead the decodes are, µs. */
  maxBatchUs: number
  maxBatchTokens: number
  /** Prompt tokens that could be computed beside the decodes. */
  waitingTokens: number
  /** Most tokens verified per request and step, the sure one included. */
  maxLength: number
}

/** Share of the expected gain that a pace counts on: with all of it, leads would drift nowhere and random-walk
 * into violation. */
const COUNTED_GAIN = 0.9
/** Up to so many combinations of lengths are all tried. */
const MOST_COMBINATIONS = 512
/** So often every tier's length is tried anew: two or three times bring all that there is to gain, and the time of a
 * decision must have a bound. */
const MOST_PASSES = 5

/** How long an iteration may be that gives each request of a tier `length` tokens to verify, µs. */
export function paceUs(tier: SpeculationTier, length: number): number {
  return pacedUs(tier.tpotUs, expectedTokens(tier.acceptance, length, tier.hitRate))
}

function pacedUs(tpotUs: number, expected: number): number {
  return tpotUs * (1 + COUNTED_GAIN * (expected - 1))
}

/** Useful tokens per µs of the next batch: the prompt tokens that wait, as many as the shortest pace has room for,
 * and what the decodes are expected to yield. When the decodes alone are behind that pace: minus how far behind. */
export function usefulRate(
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  lengths: readonly number[],
): number {
  const { cost, scale, waitingTokens, maxBatchTokens } = setting
  let limitUs = setting.maxBatchUs
  let expected = 0
  let reserved = 0
  for (let i = 0; i < tiers.length; i++) {
    const tier = tiers[i]!
    const tokens = expectedTokens(tier.acceptance, lengths[i]!, tier.hitRate)
    limitUs = Math.min(limitUs, pacedUs(tier.tpotUs, tokens))
    expected += tier.count * tokens
    reserved += tier.count * lengths[i]!
  }
  if (reserved > maxBatchTokens && lengths.some((length) => length > 1)) return -Infinity
  // The batch is filled so that it is in time even where all have drafts; what is left unused is time won.
  const sure = everyHit(tiers)
  let steps = sureSteps(lengths, cost.unifiedKv)
  let prompts = Math.max(0, Math.min(waitingTokens, maxBatchTokens - reserved))
  const extra = cost.graphs === undefined ? NOTHING : extraOf(cost.graphs, lengths, reserved, prompts > 0)
  let decodesUs = 0
  let filledUs = 0
  for (const piece of cost.pieces) {
    const us = loadOf(piece, sure, lengths, steps) + extra.us
    decodesUs = Math.max(decodesUs, (us + (piece.tokens ?? 0) * extra.padding) * scale)
    const perToken = piece.tokens ?? 0
    if (perToken > 0) prompts = Math.min(prompts, Math.max(0, limitUs / scale - us) / perToken)
  }
  if (decodesUs > limitUs) return 1 - decodesUs / limitUs
  if (sure !== tiers) steps = stepsOf(tiers, lengths, cost.unifiedKv)
  for (const piece of cost.pieces) {
    // What pads the decodes is free for prompts.
    const beside = Math.max(prompts, extra.padding)
    const us = loadOf(piece, tiers, lengths, steps) + (piece.tokens ?? 0) * beside + extra.us
    filledUs = Math.max(filledUs, us * scale)
  }
  return (prompts + expected) / filledUs
}

/** What CUDA graphs add to an iteration: tokens that pad its decodes, and µs. */
interface Extra {
  padding: number
  us: number
}
const NOTHING: Extra = { padding: 0, us: 0 }

/** Decodes that do not all verify as many tokens as the engine's own run as any other batch does. */
function extraOf(
  graphs: CudaGraphs,
  lengths: readonly number[],
  tokens: number,
  withPrompts: boolean,
): Extra {
  const decodesOnly = !withPrompts && lengths.every((length) => length === graphs.decodeTokens)
  return {
    padding: paddingTokens(graphs, tokens, decodesOnly),
    us: launchUs(graphs, tokens, decodesOnly),
  }
}

/** The lengths of the highest useful rate: of all combinations when they are few; else the best of the lengths that
 * just reach each possible pace and of equal lengths, improved one tier at a time. */
export function bestLengths(setting: SpeculationSetting, tiers: readonly SpeculationTier[]): number[] {
  const combinations = setting.maxLength ** tiers.length
  const candidates =
    combinations <= MOST_COMBINATIONS
      ? everyCombination(setting.maxLength, tiers.length)
      : likelyCombinations(setting, tiers)
  let best: number[] = tiers.map(() => 1)
  let most = usefulRate(setting, tiers, best)
  for (const lengths of candidates) {
    const value = usefulRate(setting, tiers, lengths)
    if (value > most) {
      best = [...lengths]
      most = value
    }
  }
  return combinations <= MOST_COMBINATIONS ? best : improved(setting, tiers, best)
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
  const paces = tiers.map((tier) => Array.from({ length: maxLength }, (_, i) => paceUs(tier, i + 1)))
  const reaching = (pacesUs: readonly number[], us: number) => {
    let length = 1
    while (length < maxLength && pacesUs[length - 1]! < us) length++
    return length
  }
  for (let length = 1; length <= maxLength; length++) {
    yield tiers.map(() => length)
    for (const pacesUs of paces) {
      const us = Math.min(setting.maxBatchUs, pacesUs[length - 1]!)
      yield paces.map((others) => reaching(others, us))
    }
  }
}

function improved(
  setting: SpeculationSetting,
  tiers: readonly SpeculationTier[],
  from: readonly number[],
): number[] {
  const best = [...from]
  let most = usefulRate(setting, tiers, best)
  let changed = true
  for (let pass = 0; changed && pass < MOST_PASSES; pass++) {
    changed = false
    for (let i = 0; i < tiers.length; i++) {
      for (let length = 1; length <= setting.maxLength; length++) {
        const before = best[i]!
        if (length === before) continue
        best[i] = length
        const value = usefulRate(setting, tiers, best)
        if (value > most) {
          most = value
          changed = true
        } else best[i] = before
      }
    }
  }
  return best
}

/** What the decodes of one iteration are expected to cost by one piece, µs. */
function loadOf(
  piece: CostPiece,
  tiers: readonly SpeculationTier[],
  lengths: readonly number[],
  { passes, drafting }: Steps,
): number {
  let sum = piece.step ?? 0
  for (let i = 0; i < tiers.length; i++) {
    const { contextTokens, count, hitRate } = tiers[i]!
    const length = lengths[i]!
    const rows = expectedRows(length, hitRate)
    const pairs = rows * contextTokens + (hitRate * (length * (length - 1))) / 2
    sum +=
      count *
      (((piece.tokens ?? 0) + (piece.outputs ?? 0)) * rows +
        (piece.sequences ?? 0) +
        (piece.slowPairs ?? 0) * pairs)
  }
  return sum + (piece.passes ?? 0) * passes + (piece.specSteps ?? 0) * drafting
}

/** What an iteration is expected to take however many its decodes are: passes of the model, and steps of the drafter. */
interface Steps {
  passes: number
  drafting: number
}

/** With a drafter that always has something to offer. */
function sureSteps(lengths: readonly number[], unifiedKv: boolean): Steps {
  let [longest, passes] = [1, 0]
  for (let i = 0; i < lengths.length; i++) {
    if (lengths[i]! > longest) longest = lengths[i]!
    if (!unifiedKv && lengths.indexOf(lengths[i]!) === i) passes++
  }
  return { passes: Math.max(1, passes), drafting: longest - 1 }
}

/** A draft step is made when some request has so much on offer; a split engine passes once for every length that
 * occurs, and a request with nothing on offer verifies one token. */
function stepsOf(tiers: readonly SpeculationTier[], lengths: readonly number[], unifiedKv: boolean): Steps {
  let longest = 1
  for (const length of lengths) if (length > longest) longest = length
  /** Probability that the drafter has nothing to offer to any request of a tier. */
  const nothing = tiers.map(({ hitRate, count }) => (1 - hitRate) ** count)
  let [passes, drafting] = [0, 0]
  for (let length = 2; length <= longest; length++) {
    let [soLong, longer] = [1, 1]
    for (let i = 0; i < tiers.length; i++) {
      if (lengths[i] === length) soLong *= nothing[i]!
      else if (lengths[i]! > length) longer *= nothing[i]!
    }
    drafting += 1 - soLong * longer
    passes += 1 - soLong
  }
  if (unifiedKv) return { passes: 1, drafting }
  const singles = lengths.includes(1)
    ? 1
    : 1 - tiers.reduce((all, { hitRate, count }) => all * hitRate ** count, 1)
  return { passes: Math.max(1, passes + singles), drafting }
}

/** The same decodes with a drafter that always has something to offer. */
function everyHit(tiers: readonly SpeculationTier[]): readonly SpeculationTier[] {
  return tiers.every(({ hitRate }) => hitRate === 1) ? tiers : tiers.map((tier) => ({ ...tier, hitRate: 1 }))
}
