/** Can everything due by a horizon be computed by then? A fluid test over the cost model (docs/design.md, Admission):
 * for every piece, the work due must fit the time, with iterations shared by all decodes. Horizons come in order, so that
 * what streams ask for is kept as straight lines that change where a stream starts or ends: a test costs as much as
 * there are paces, however many requests wait. */
import { attentionPairs, type CostModel } from "../cost.ts"
import type { EngineLimits } from "../protocol.ts"

/** Of the margin of a single step, what the fluid test asks for: a promise that turns out not to hold can be revoked, a
 * request that is turned down has missed. */
const CAUTION = 0.5

/** Rows of streams by state. */
const WAITING = 0
const ACTIVE = 1
const OVER = 2
const DROPPED = 3

export class Demand {
  #cost: CostModel
  #limits: EngineLimits
  #nowUs = 0
  #maxBatchUs = 1
  #calibration = 1
  #margin = 0
  /** The horizon that the lines stand at, since `#nowUs`. */
  #atUs = 0

  #streams = new Streams()
  /** Rows by when their line changes next. */
  #changes = new ChangeHeap()
  #paces = new Paces()
  /** What is due by a horizon `at`: base + slope · at, of steps, tokens verified, and attention pairs of these. */
  #steps = 0
  #stepsPerUs = 0
  #verified = 0
  #verifiedPerUs = 0
  #pairs = 0
  #pairsPerUs = 0
  /** Streams that go on after the horizon. */
  #alive = 0
  #longest = 1

  #prefills = 0
  #prefillTokens = 0
  #fastPairs = 0
  #slowPairs = 0
  /** Of the streams that run: a step of all of them. */
  #running = { streams: 0, verified: 0, pairs: 0 }

  constructor(cost: CostModel, limits: EngineLimits) {
    this.#cost = cost
    this.#limits = limits
  }

  /** Start afresh at `nowUs`. `calibration` multiplies predicted time; so does 1 + `margin` for a single step, and less
   * for many, whose scatter evens out. */
  reset(nowUs: number, maxBatchUs: number, calibration: number, margin: number): void {
    this.#nowUs = nowUs
    this.#maxBatchUs = maxBatchUs
    this.#calibration = calibration
    this.#margin = margin
    this.#atUs = 0
    this.#streams.clear()
    this.#changes.clear()
    this.#paces.clear()
    this.#steps = this.#stepsPerUs = this.#verified = this.#verifiedPerUs = this.#pairs = this.#pairsPerUs = 0
    this.#alive = this.#prefills = this.#prefillTokens = this.#fastPairs = this.#slowPairs = 0
    this.#longest = 1
    this.#running.streams = this.#running.verified = this.#running.pairs = 0
  }

  /** Add the decodes of a request that runs. */
  addRunning(stream: Stream): void {
    this.addStream(stream)
    this.#running.streams++
    this.#running.verified += stream.length
    this.#running.pairs += stream.length * stream.contextTokens
  }

  /** Add a request's decodes; none may start before the horizon tested last, unless nothing was tested yet. Returns its
   * row, for `drop`. */
  addStream(stream: Stream): number {
    const { startUs, tpotUs, remaining, length, expected } = stream
    const row = this.#streams.add(stream, startUs - this.#nowUs)
    this.#longest = Math.max(this.#longest, length)
    this.#alive++
    this.#paces.add(row, startUs - this.#nowUs, 1 / (tpotUs * expected), remaining / expected)
    if (this.#streams.startUs[row]! <= this.#atUs) this.#activate(row)
    else this.#changes.push(row, this.#streams.startUs[row]!)
    return row
  }

  /** It asks for nothing any more. */
  drop(row: number): void {
    const { state } = this.#streams
    if (state[row] === ACTIVE) this.#slope(row, -1)
    else if (state[row] === OVER) this.#settle(row, -1)
    if (state[row] !== OVER) this.#alive--
    state[row] = DROPPED
    this.#paces.drop(row)
  }

  /** Add (`sign` 1) or take back (−1) a prefill of `tokens` tokens from `position`. `requests`: as how many it counts. */
  addPrefill(position: number, tokens: number, sign: 1 | -1, requests = 1): void {
    this.#prefills += sign * requests
    this.#prefillTokens += sign * tokens
    const pairs = sign * attentionPairs(position, tokens)
    if (tokens >= this.#cost.fastPassTokens) this.#fastPairs += pairs
    else this.#slowPairs += pairs
  }

  /** Everything added so far that is due by `atUs` fits between now and then. Never before an earlier horizon. */
  fits(atUs: number): boolean {
    const horizon = Math.max(this.#atUs, atUs - this.#nowUs)
    if (horizon <= 0) return this.#prefills === 0
    this.#advance(horizon)
    if (this.#alive > this.#limits.maxSequences) return false
    const steps = this.#steps + this.#stepsPerUs * horizon
    const verified = this.#verified + this.#verifiedPerUs * horizon
    const pairs = this.#pairs + this.#pairsPerUs * horizon
    const most = this.#paces.most(horizon)
    if (most <= 1 && this.#longest === 1 && this.#oneBatchFits(horizon)) return true
    const iterations = Math.max(horizon / this.#maxBatchUs, most) + 0.5
    // Iterations that also carry a chunk: a split engine makes a second pass in each.
    const chunked =
      this.#prefillTokens > 0
        ? Math.min(iterations, Math.max(this.#prefills, this.#prefillTokens / this.#limits.minChunkTokens))
        : 0
    // What was added and taken back leaves a rounding error, not a step.
    const split = this.#limits.unifiedKv || steps < 1e-6 ? 0 : chunked
    // Many steps scatter less than one; not so what their drafts yield.
    const evenedOut = this.#longest > 1 ? 1 : CAUTION / Math.sqrt(Math.max(1, iterations))
    const scale = this.#calibration * (1 + this.#margin * evenedOut)
    for (const piece of this.#cost.pieces) {
      const time =
        (piece.step ?? 0) * iterations +
        (piece.passes ?? 0) * (iterations + split) +
        (piece.tokens ?? 0) * (this.#prefillTokens + verified) +
        (piece.sequences ?? 0) * (steps + chunked) +
        (piece.fastPairs ?? 0) * this.#fastPairs +
        (piece.slowPairs ?? 0) * (this.#slowPairs + pairs) +
        (piece.outputs ?? 0) * (this.#prefills + verified) +
        (piece.specSteps ?? 0) * (this.#longest - 1) * iterations
      if (time * scale > horizon) return false
    }
    return true
  }

  /** A single step computes all prefills, with a token of each stream that runs, by the horizon: none of these is due
   * before. In the mean it would be in time; to refuse what is within reach is to miss it for certain. */
  #oneBatchFits(horizon: number): boolean {
    const running = this.#running
    if (this.#prefillTokens + running.verified > this.#limits.maxBatchTokens) return false
    const passes = 1 + (this.#limits.unifiedKv || running.streams === 0 ? 0 : this.#prefills)
    for (const piece of this.#cost.pieces) {
      const time =
        (piece.step ?? 0) +
        (piece.passes ?? 0) * passes +
        (piece.tokens ?? 0) * (this.#prefillTokens + running.verified) +
        (piece.sequences ?? 0) * (this.#prefills + running.streams) +
        (piece.fastPairs ?? 0) * this.#fastPairs +
        (piece.slowPairs ?? 0) * (this.#slowPairs + running.pairs) +
        (piece.outputs ?? 0) * (this.#prefills + running.verified) +
        (piece.specSteps ?? 0) * (this.#longest - 1)
      if (time * this.#calibration > horizon) return false
    }
    return true
  }

  /** Lines change up to this horizon. */
  #advance(horizon: number): void {
    const { state, endUs } = this.#streams
    while (this.#changes.nextUs <= horizon) {
      const row = this.#changes.top
      if (state[row] === WAITING) {
        this.#changes.replaceTop(endUs[row]!)
        state[row] = ACTIVE
        this.#slope(row, 1)
        continue
      }
      this.#changes.pop()
      if (state[row] !== ACTIVE) continue
      this.#slope(row, -1)
      this.#settle(row, 1)
      state[row] = OVER
      this.#alive--
    }
    this.#atUs = horizon
  }

  #activate(row: number): void {
    this.#streams.state[row] = ACTIVE
    this.#slope(row, 1)
    this.#changes.push(row, this.#streams.endUs[row]!)
  }

  /** A stream that runs adds (takes back) its line. */
  #slope(row: number, sign: 1 | -1): void {
    const { startUs, stepsPerUs, length, context } = this.#streams
    const steps = sign * stepsPerUs[row]!
    const verified = steps * length[row]!
    const pairs = verified * context[row]!
    const start = startUs[row]!
    this.#stepsPerUs += steps
    this.#steps -= steps * start
    this.#verifiedPerUs += verified
    this.#verified -= verified * start
    this.#pairsPerUs += pairs
    this.#pairs -= pairs * start
  }

  /** A stream that has ended adds (takes back) all its work. */
  #settle(row: number, sign: 1 | -1): void {
    const { startUs, endUs, stepsPerUs, length, context } = this.#streams
    const steps = sign * (endUs[row]! - startUs[row]!) * stepsPerUs[row]!
    this.#steps += steps
    this.#verified += steps * length[row]!
    this.#pairs += steps * length[row]! * context[row]!
  }
}

/** A request's decodes. */
export interface Stream {
  /** When its TPOT clock starts: its first token is due at startUs + tpotUs. */
  startUs: number
  tpotUs: number
  /** Tokens left. */
  remaining: number
  contextTokens: number
  /** Tokens that a step is expected to verify, and how many of them are expected to come out. */
  length: number
  expected: number
}

/** Streams as columns, reused. Times since the start of the decision. */
class Streams {
  rows = 0
  startUs = new Float64Array(64)
  endUs = new Float64Array(64)
  stepsPerUs = new Float64Array(64)
  context = new Float64Array(64)
  length = new Float64Array(64)
  state = new Uint8Array(64)

  clear(): void {
    this.rows = 0
  }

  add({ tpotUs, remaining, contextTokens, length, expected }: Stream, startUs: number): number {
    const row = this.rows++
    if (row === this.startUs.length) this.#enlarge()
    this.startUs[row] = startUs
    this.endUs[row] = startUs + remaining * tpotUs
    this.stepsPerUs[row] = 1 / (tpotUs * expected)
    this.context[row] = contextTokens
    this.length[row] = length
    this.state[row] = WAITING
    return row
  }

  #enlarge(): void {
    for (const name of ["startUs", "endUs", "stepsPerUs", "context", "length"] as const)
      this[name] = grown(this[name])
    const state = new Uint8Array(this.state.length * 2)
    state.set(this.state)
    this.state = state
  }
}

function grown(old: Float64Array): Float64Array<ArrayBuffer> {
  const next = new Float64Array(old.length * 2)
  next.set(old)
  return next
}

/** Streams of one pace share their steps: the one that began first needs most of them. */
class Paces {
  #count = 0
  #indexOf = new Map<number, number>()
  #perUs: number[] = []
  /** Most steps of one stream. */
  #mostSteps: number[] = []
  /** Rows by start, the first of those not dropped at `#head`. */
  #rows: number[][] = []
  #starts: number[][] = []
  #head: number[] = []
  #dropped = new Set<number>()

  clear(): void {
    this.#count = 0
    this.#indexOf.clear()
    this.#dropped.clear()
  }

  add(row: number, startUs: number, stepsPerUs: number, steps: number): void {
    let pace = this.#indexOf.get(stepsPerUs)
    if (pace === undefined) {
      pace = this.#count++
      this.#indexOf.set(stepsPerUs, pace)
      this.#perUs[pace] = stepsPerUs
      this.#mostSteps[pace] = 0
      this.#head[pace] = 0
      if (this.#rows.length === pace) {
        this.#rows.push([])
        this.#starts.push([])
      }
      this.#rows[pace]!.length = this.#starts[pace]!.length = 0
    }
    if (steps > this.#mostSteps[pace]!) this.#mostSteps[pace] = steps
    // They come by start, as a rule.
    const starts = this.#starts[pace]!
    let at = starts.length
    while (at > this.#head[pace]! && starts[at - 1]! > startUs) at--
    starts.splice(at, 0, startUs)
    this.#rows[pace]!.splice(at, 0, row)
  }

  drop(row: number): void {
    this.#dropped.add(row)
  }

  /** Steps that the stream with most of them needs by then. */
  most(horizon: number): number {
    let most = 0
    for (let pace = 0; pace < this.#count; pace++) {
      const rows = this.#rows[pace]!
      while (this.#head[pace]! < rows.length && this.#dropped.has(rows[this.#head[pace]!]!))
        this.#head[pace]!++
      const start = this.#starts[pace]![this.#head[pace]!]
      if (start === undefined) continue
      const steps = Math.min((horizon - start) * this.#perUs[pace]!, this.#mostSteps[pace]!)
      if (steps > most) most = steps
    }
    return most
  }
}

/** A binary heap of rows by time. */
class ChangeHeap {
  #size = 0
  #rows = new Int32Array(64)
  #timesUs = new Float64Array(64)

  clear(): void {
    this.#size = 0
  }
  get nextUs(): number {
    return this.#size === 0 ? Infinity : this.#timesUs[0]!
  }
  get top(): number {
    return this.#rows[0]!
  }

  push(row: number, timeUs: number): void {
    if (this.#size === this.#rows.length) {
      const rows = new Int32Array(this.#rows.length * 2)
      rows.set(this.#rows)
      this.#rows = rows
      this.#timesUs = grown(this.#timesUs)
    }
    let at = this.#size++
    for (; at > 0; at = (at - 1) >> 1) {
      const parent = (at - 1) >> 1
      if (this.#timesUs[parent]! <= timeUs) break
      this.#rows[at] = this.#rows[parent]!
      this.#timesUs[at] = this.#timesUs[parent]!
    }
    this.#rows[at] = row
    this.#timesUs[at] = timeUs
  }

  pop(): void {
    this.#size--
    this.#sink(this.#rows[this.#size]!, this.#timesUs[this.#size]!)
  }

  /** The first row stays, but later. */
  replaceTop(timeUs: number): void {
    this.#sink(this.#rows[0]!, timeUs)
  }

  #sink(row: number, timeUs: number): void {
    const size = this.#size
    let at = 0
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.#timesUs[child + 1]! < this.#timesUs[child]!) child++
      if (timeUs <= this.#timesUs[child]!) break
      this.#rows[at] = this.#rows[child]!
      this.#timesUs[at] = this.#timesUs[child]!
      at = child
    }
    this.#rows[at] = row
    this.#timesUs[at] = timeUs
  }
}
