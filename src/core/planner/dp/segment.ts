/** The paper's prefill budget between two deadlines (arXiv 2504.08784 §4.1): batches sized to the earliest due
 * decode, what decodes leave of them goes to prefill. Batch boundaries depend only on which TPOT tiers decode,
 * not on how many do, so they are computed once per set of tiers and every query is a look-up. */

import { type CudaGraphs, nextSize, sizeWithin } from "../../graphs.ts"

/** One linear piece of batch time: k1·tokens + k2·steps + b, in the instance's unit of time. */
export interface TimePiece {
  k1: number
  k2: number
  b: number
}

/** Batch time = the largest piece. `steps`: the most tokens that one decode verifies, at least 1. */
export class BatchTime {
  readonly pieces: readonly TimePiece[]
  readonly maxTokens: number
  /** Batches are padded to the sizes of these. */
  #graphs: CudaGraphs | undefined

  constructor(pieces: readonly TimePiece[], maxTokens: number, graphs?: CudaGraphs) {
    this.pieces = pieces
    this.maxTokens = maxTokens
    this.#graphs = graphs
  }

  of(tokens: number, steps: number): number {
    const computed = this.#graphs === undefined ? tokens : nextSize(this.#graphs, tokens)
    let worst = 0
    for (const { k1, k2, b } of this.pieces) worst = Math.max(worst, k1 * computed + k2 * steps + b)
    return worst
  }

  /** Tokens per unit of time in batches of `time`: the longer, the more. */
  rate(time: number): number {
    let least = Infinity
    for (const { k1, k2, b } of this.pieces) {
      const whole = Math.min(time, k1 * this.maxTokens + k2 + b)
      if (k1 > 0) least = Math.min(least, Math.max(0, whole - b - k2) / k1 / whole)
    }
    return least
  }

  /** Most tokens of a batch that takes at most `time`; 0 when not even an empty one does. */
  tokensWithin(time: number, steps: number): number {
    let least = this.maxTokens
    for (const { k1, k2, b } of this.pieces) {
      const left = time - b - k2 * steps
      if (k2 * steps + b > time) return 0
      if (k1 > 0) least = Math.min(least, left / k1)
    }
    return this.#graphs === undefined ? Math.trunc(least) : sizeWithin(this.#graphs, Math.trunc(least))
  }
}

/** One batch of a segment, for the code that builds the schedule. */
export interface SegmentBatch {
  time: number
  /** Tokens verified for each decode of a tier: 0 = none in this batch. */
  perTier: number[]
  prefillTokens: number
}

/** Ways to spend a segment: each yields so many prefill tokens and takes so long. */
export interface SegmentPlan {
  /** Options of the last call to `plan`; overwritten by the next. */
  readonly tokens: Float64Array
  readonly elapsed: Float64Array
  /** Plan `time` beside `counts[tier]` decodes. Returns the number of options, at least 1: at worst, nothing in no
   * time, which leaves the whole segment to the next. */
  plan(time: number, counts: ArrayLike<number>): number
  readonly tpots: readonly number[]
  /** Most tokens per unit of time, decodes' own included, while the tiers of `mask` decode. */
  rate(mask: number): number
  /** The decodes can go on for ever: all of them fit a batch of `steady`'s kind. */
  sustains(counts: ArrayLike<number>): boolean
  /** Option number `option` of the plan, batch by batch. */
  batches(time: number, counts: ArrayLike<number>, option: number): SegmentBatch[]
  /** A batch that, repeated, keeps every decode on pace. Null without decodes. */
  steady(counts: ArrayLike<number>): SegmentBatch | null
}

export function usedTiers(counts: ArrayLike<number>): number {
  let mask = 0
  for (let tier = 0; tier < counts.length; tier++) if (counts[tier]! > 0) mask |= 1 << tier
  return mask
}

/** The smallest TPOT of the tiers in `mask`; Infinity without any. */
export function tightestTpot(tpots: readonly number[], mask: number): number {
  let tightest = Infinity
  for (let tier = 0; tier < tpots.length; tier++)
    if (mask & (1 << tier)) tightest = Math.min(tightest, tpots[tier]!)
  return tightest
}

export const SHORT_OF = 1.01

/** A deadline further away than so many batches is not planned to its end. */
const MOST_BATCHES = 1 << 11

/** Batch boundaries while the tiers of one mask decode, as far as was asked. */
class Boundaries {
  readonly ends: number[] = []
  readonly clocks: number[] = []
  readonly rooms: number[] = []
  readonly takers: number[] = []
  readonly roomBefore: number[] = [0]
  /** Per tier: tokens per request taken before batch i, and when its next is due. */
  readonly takenBefore: number[][]
  readonly dues: number[][]
  /** Per set of tiers decoding in one batch: the batches with less room than any such batch before. */
  readonly tightest = new Map<number, { batch: number; room: number }[]>()
  #over = false
  #time: BatchTime
  #tpots: readonly number[]
  #mask: number

  constructor(time: BatchTime, tpots: readonly number[], mask: number) {
    this.#time = time
    this.#tpots = tpots
    this.#mask = mask
    this.takenBefore = tpots.map(() => [0])
    this.dues = tpots.map((tpot) => [tpot])
  }

  /** How many batches end by their due time within `time`. */
  within(time: number): number {
    while (!this.#over && (this.ends.length === 0 || this.ends.at(-1)! <= time)) this.#grow()
    let low = 0
    let high = this.ends.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.ends[middle]! <= time) low = middle + 1
      else high = middle
    }
    return low
  }

  #grow(): void {
    const i = this.ends.length
    const clock = i === 0 ? 0 : this.clocks[i - 1]!
    let end = Infinity
    for (let tier = 0; tier < this.#tpots.length; tier++) {
      if (this.#mask & (1 << tier)) end = Math.min(end, this.dues[tier]![i]!)
    }
    const room = this.#time.tokensWithin(end - clock, 1)
    if (room === 0 || i >= MOST_BATCHES) {
      this.#over = true
      return
    }
    const after = clock + this.#time.of(room, 1)
    let takers = 0
    for (let tier = 0; tier < this.#tpots.length; tier++) {
      const due = this.dues[tier]![i]!
      const takes = (this.#mask & (1 << tier)) !== 0 && due - this.#tpots[tier]! < after
      if (takes) takers |= 1 << tier
      this.dues[tier]!.push(takes ? due + this.#tpots[tier]! : due)
      this.takenBefore[tier]!.push(this.takenBefore[tier]![i]! + (takes ? 1 : 0))
    }
    this.ends.push(end)
    this.clocks.push(after)
    this.rooms.push(room)
    this.takers.push(takers)
    this.roomBefore.push(this.roomBefore[i]! + room)
    const records = this.tightest.get(takers)
    if (records === undefined) this.tightest.set(takers, [{ batch: i, room }])
    else if (room < records.at(-1)!.room) records.push({ batch: i, room })
  }
}

/** One token per decode and due time. */
export class AutoregressiveSegments implements SegmentPlan {
  readonly tokens = new Float64Array(2)
  readonly elapsed = new Float64Array(2)
  readonly time: BatchTime
  #tpots: readonly number[]
  #decodeWeight: number
  #byMask = new Map<number, Boundaries>()
  #due: Float64Array

  /** `decodeWeight`: prefill tokens that one decode costs as much as (1 in the paper's model). */
  constructor(time: BatchTime, tpots: readonly number[], decodeWeight = 1) {
    this.time = time
    this.#tpots = tpots
    this.#decodeWeight = decodeWeight
    this.#due = new Float64Array(tpots.length)
  }

  get tpots(): readonly number[] {
    return this.#tpots
  }

  rate(mask: number): number {
    // Whole tokens leave a batch a little short of its time, which the next one may use.
    return this.time.rate(tightestTpot(this.#tpots, mask) * SHORT_OF)
  }

  plan(time: number, counts: ArrayLike<number>): number {
    const mask = usedTiers(counts)
    if (mask === 0) {
      prefillOnly(this, time, null)
      return 1
    }
    const boundaries = this.#boundaries(mask)
    const whole = boundaries.within(time)
    const fitting = this.#fitting(boundaries, whole, counts)
    this.#sum(boundaries, fitting, counts)
    // The published plan gives the segment up when a batch has no room for its decodes. What comes before that
    // batch is as good as any plan; giving up remains the other option.
    const tokens = this.tokens[0]!
    const elapsed = this.elapsed[0]!
    if (fitting === whole && this.#tail(time, counts, mask, whole, boundaries, null)) return 1
    this.tokens[0] = tokens
    this.elapsed[0] = elapsed
    this.tokens[1] = this.elapsed[1] = 0
    return 2
  }

  sustains(counts: ArrayLike<number>): boolean {
    const steady = this.steady(counts)
    return steady === null || steady.time <= tightestTpot(this.#tpots, usedTiers(counts))
  }

  steady(counts: ArrayLike<number>): SegmentBatch | null {
    const mask = usedTiers(counts)
    if (mask === 0) return null
    const time = this.time.of(Math.ceil(this.#weigh(mask, counts)), 1)
    return { time, perTier: this.#takes(mask), prefillTokens: 0 }
  }

  batches(time: number, counts: ArrayLike<number>, option: number): SegmentBatch[] {
    const mask = usedTiers(counts)
    const list: SegmentBatch[] = []
    if (option === 1) return list
    if (mask === 0) {
      prefillOnly(this, time, (tokens) =>
        list.push({ time: this.time.of(tokens, 1), perTier: this.#takes(0), prefillTokens: tokens }),
      )
      return list
    }
    const boundaries = this.#boundaries(mask)
    const whole = boundaries.within(time)
    const fitting = this.#fitting(boundaries, whole, counts)
    for (let i = 0; i < fitting; i++)
      list.push(this.#batch(boundaries.rooms[i]!, boundaries.takers[i]!, counts))
    if (fitting < whole) return list
    this.#sum(boundaries, whole, counts)
    return this.#tail(time, counts, mask, whole, boundaries, list) ? list : list.slice(0, whole)
  }

  /** How many of the first `whole` batches come before one without room for its decodes. */
  #fitting(boundaries: Boundaries, whole: number, counts: ArrayLike<number>): number {
    let fitting = whole
    for (const [takers, records] of boundaries.tightest) {
      const taken = this.#weigh(takers, counts)
      if (taken <= records.at(-1)!.room) continue
      for (const { batch, room } of records) {
        if (batch >= fitting) break
        if (taken > room) fitting = batch
      }
    }
    return fitting
  }

  #sum(boundaries: Boundaries, batches: number, counts: ArrayLike<number>): void {
    let tokens = boundaries.roomBefore[batches]!
    for (let tier = 0; tier < counts.length; tier++) {
      tokens -= boundaries.takenBefore[tier]![batches]! * counts[tier]! * this.#decodeWeight
    }
    this.tokens[0] = tokens
    this.elapsed[0] = batches === 0 ? 0 : boundaries.clocks[batches - 1]!
  }

  /** Add the batches after the last whole one, up to `time`. False when one has no room for its decodes. */
  #tail(
    time: number,
    counts: ArrayLike<number>,
    mask: number,
    whole: number,
    boundaries: Boundaries,
    list: SegmentBatch[] | null,
  ): boolean {
    // The sequence itself ended before `time`: nothing follows.
    if (whole > 0 && whole === boundaries.ends.length) return true
    const due = this.#due
    for (let tier = 0; tier < due.length; tier++) due[tier] = boundaries.dues[tier]![whole]!
    let clock = this.elapsed[0]!
    for (;;) {
      let end = time
      for (let tier = 0; tier < due.length; tier++) if (mask & (1 << tier)) end = Math.min(end, due[tier]!)
      const room = this.time.tokensWithin(end - clock, 1)
      if (room === 0) break
      clock += this.time.of(room, 1)
      let takers = 0
      for (let tier = 0; tier < due.length; tier++) {
        if ((mask & (1 << tier)) === 0 || due[tier]! - this.#tpots[tier]! >= clock) continue
        takers |= 1 << tier
        due[tier]! += this.#tpots[tier]!
      }
      const taken = this.#weigh(takers, counts)
      if (taken > room) return false
      this.tokens[0]! += room - taken
      list?.push(this.#batch(room, takers, counts))
    }
    this.elapsed[0] = clock
    return true
  }

  #batch(room: number, takers: number, counts: ArrayLike<number>): SegmentBatch {
    return {
      time: this.time.of(room, 1),
      perTier: this.#takes(takers),
      prefillTokens: Math.max(0, Math.floor(room - this.#weigh(takers, counts))),
    }
  }
  #takes(takers: number): number[] {
    return this.#tpots.map((_, tier) => (takers & (1 << tier) ? 1 : 0))
  }
  #weigh(takers: number, counts: ArrayLike<number>): number {
    let tokens = 0
    for (let tier = 0; tier < counts.length; tier++) if (takers & (1 << tier)) tokens += counts[tier]!
    return tokens * this.#decodeWeight
  }
  #boundaries(mask: number): Boundaries {
    let boundaries = this.#byMask.get(mask)
    if (boundaries === undefined) {
      boundaries = new Boundaries(this.time, this.#tpots, mask)
      this.#byMask.set(mask, boundaries)
    }
    return boundaries
  }
}

/** Without decodes: batches as large as they may be, one after the other (the published code has but one). */
export function prefillOnly(
  plan: { time: BatchTime; tokens: Float64Array; elapsed: Float64Array },
  time: number,
  each: ((tokens: number) => void) | null,
): void {
  let clock = 0
  let total = 0
  for (let i = 0; i < MOST_BATCHES; i++) {
    const tokens = plan.time.tokensWithin(time - clock, 1)
    if (tokens === 0) break
    clock += plan.time.of(tokens, 1)
    total += tokens
    each?.(tokens)
  }
  plan.tokens[0] = total
  plan.elapsed[0] = clock
}
