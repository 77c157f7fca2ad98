/** Can everything due by a horizon be computed by then? A fluid test over the cost model (docs/design.md, Admission):
 * for every piece, the work due must fit the time, with iterations shared by all decodes. Horizons come in order, so that
 * what streams ask for is kept as straight lines that change where a stream starts or ends: a test costs as much as
 * there are paces, however many requests wait. */
import { attentionPairs, type CostModel } from "../cost.ts"
import { type CudaGraphs, launchUs, paddingTokens } from "../graphs.ts"
import type { EngineLimits } from "../protocol.ts"
import { AdapterSteps } from "./adapter-steps.ts"
import { ACTIVE, ChangeHeap, DROPPED, OVER, Paces, type Stream, Streams, WAITING } from "./streams.ts"

/** Of the margin of a single step, what the fluid test asks for: a promise that turns out not to hold can be revoked, a
 * request that is turned down has missed. */
const CAUTION = 0.5

export class Demand {
  readonly cost: CostModel
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
  /** Where not all adapters fit one step. */
  #adapterSteps: AdapterSteps | null
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
  #prefillRows = 0
  #prefillTokens = 0
  #fastPairs = 0
  #slowPairs = 0
  /** Of the streams that run: a step of all of them. */
  #running = { streams: 0, verified: 0, pairs: 0 }

  constructor(cost: CostModel, limits: EngineLimits) {
    this.cost = cost
    this.#limits = limits
    this.#adapterSteps = limits.maxAdapters === undefined ? null : new AdapterSteps(limits.maxAdapters)
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
    this.#adapterSteps?.clear()
    this.#steps = this.#stepsPerUs = this.#verified = this.#verifiedPerUs = this.#pairs = this.#pairsPerUs = 0
    this.#alive =
      this.#prefills =
      this.#prefillRows =
      this.#prefillTokens =
      this.#fastPairs =
      this.#slowPairs =
        0
    this.#longest = 1
    this.#running.streams = this.#running.verified = this.#running.pairs = 0
  }

  /** Add the decodes of a request that runs. Returns its row. */
  addRunning(stream: Stream): number {
    const row = this.addStream(stream)
    this.#countRunning(row, 1)
    return row
  }

  /** A request that runs asks for nothing any more. */
  dropRunning(row: number): void {
    this.drop(row)
    this.#countRunning(row, -1)
  }

  /** It does after all. No later horizon has been tested meanwhile. */
  restoreRunning(row: number): void {
    this.#restore(row)
    this.#countRunning(row, 1)
  }

  #countRunning(row: number, sign: 1 | -1): void {
    const { length, context } = this.#streams
    this.#running.streams += sign
    this.#running.verified += sign * length[row]!
    this.#running.pairs += sign * length[row]! * context[row]!
  }

  /** Add a request's decodes; none may start before the horizon tested last, unless nothing was tested yet. Returns its
   * row, for `drop`. */
  addStream(stream: Stream): number {
    const { startUs, tpotUs, remaining, length, expected, adapter } = stream
    const row = this.#streams.add(stream, startUs - this.#nowUs)
    this.#longest = Math.max(this.#longest, length)
    this.#alive++
    const pace = [row, startUs - this.#nowUs, 1 / (tpotUs * expected), remaining / expected] as const
    this.#paces.add(...pace)
    this.#adapterSteps?.add(adapter, ...pace)
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
    this.#adapterSteps?.drop(row)
  }

  #restore(row: number): void {
    const { state, startUs, endUs } = this.#streams
    state[row] = startUs[row]! > this.#atUs ? WAITING : endUs[row]! > this.#atUs ? ACTIVE : OVER
    if (state[row] === ACTIVE) this.#slope(row, 1)
    else if (state[row] === OVER) this.#settle(row, 1)
    if (state[row] !== OVER) this.#alive++
    this.#paces.restore(row)
    this.#adapterSteps?.restore(row)
  }

  /** Add (`sign` 1) or take back (−1) a prefill of `tokens` tokens from `position`, `rows` of which have an output row.
   * `requests`: as how many it counts. */
  addPrefill(
    position: number,
    tokens: number,
    sign: 1 | -1,
    requests = 1,
    rows = requests,
    adapter?: number,
  ): void {
    this.#adapterSteps?.addPrefill(adapter, sign * requests)
    this.#prefills += sign * requests
    this.#prefillRows += sign * rows
    this.#prefillTokens += sign * tokens
    const pairs = sign * attentionPairs(position, tokens)
    if (tokens >= this.cost.fastPassTokens) this.#fastPairs += pairs
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
    const most = Math.max(this.#paces.most(horizon), this.#adapterSteps?.most(horizon) ?? 0)
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
    const { graphs } = this.cost
    const tokens = this.#prefillTokens + verified + (graphs ? this.#padding(graphs, iterations, verified) : 0)
    const launchesUs = graphs ? this.#launchesUs(graphs, iterations, chunked, verified) : 0
    for (const piece of this.cost.pieces) {
      const time =
        (piece.step ?? 0) * iterations +
        (piece.passes ?? 0) * (iterations + split) +
        (piece.tokens ?? 0) * tokens +
        (piece.sequences ?? 0) * (steps + chunked) +
        (piece.fastPairs ?? 0) * this.#fastPairs +
        (piece.slowPairs ?? 0) * (this.#slowPairs + pairs) +
        (piece.outputs ?? 0) * (this.#prefillRows + verified) +
        (piece.specSteps ?? 0) * (this.#longest - 1) * iterations
      if ((time + launchesUs) * scale > horizon) return false
    }
    return true
  }

  /** Tokens computed for nothing: what pads the steps of decodes, less the prompt tokens that take its place. */
  #padding(graphs: CudaGraphs, iterations: number, verified: number): number {
    const each = verified / iterations
    // Decodes that come and go have no whole number of tokens a step.
    const padding = paddingTokens(graphs, Math.ceil(each - 1e-9), true)
    return Math.max(0, iterations * padding - this.#prefillTokens)
  }

  /** What the steps take more than as one graph each, µs. */
  #launchesUs(graphs: CudaGraphs, iterations: number, chunked: number, verified: number): number {
    const each = verified / iterations
    const decodesUs = launchUs(graphs, each, true)
    const mixedUs = chunked > 0 ? launchUs(graphs, each + this.#prefillTokens / chunked, false) : 0
    return iterations * decodesUs + chunked * Math.max(0, mixedUs - decodesUs)
  }

  /** A single step computes all prefills, with a token of each stream that runs, by the horizon: none of these is due
   * before. In the mean it would be in time; to refuse what is within reach is to miss it for certain. */
  #oneBatchFits(horizon: number): boolean {
    const running = this.#running
    if (this.#prefillTokens + running.verified > this.#limits.maxBatchTokens) return false
    const passes = 1 + (this.#limits.unifiedKv || running.streams === 0 ? 0 : this.#prefills)
    const computed = this.#prefillTokens + running.verified
    const { graphs } = this.cost
    const decodesOnly = this.#prefillTokens === 0
    const tokens = computed + (graphs ? paddingTokens(graphs, computed, decodesOnly) : 0)
    const launch = graphs ? launchUs(graphs, computed, decodesOnly) : 0
    for (const piece of this.cost.pieces) {
      const time =
        (piece.step ?? 0) +
        (piece.passes ?? 0) * passes +
        (piece.tokens ?? 0) * tokens +
        (piece.sequences ?? 0) * (this.#prefills + running.streams) +
        (piece.fastPairs ?? 0) * this.#fastPairs +
        (piece.slowPairs ?? 0) * (this.#slowPairs + running.pairs) +
        (piece.outputs ?? 0) * (this.#prefillRows + running.verified) +
        (piece.specSteps ?? 0) * (this.#longest - 1)
      if ((time + launch) * this.#calibration > horizon) return false
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
