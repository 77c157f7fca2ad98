/** Can everything due by a horizon be computed by then? A fluid test over the cost model (DESIGN §4 step 3):
 * for every piece, the work due must fit the time, with iterations shared by all decodes. */
import { attentionPairs, type CostModel } from "../cost.ts"
import type { EngineLimits } from "../types.ts"

/** Work due as time passes: decodes token by token, and the prefills that the caller has added. Typed arrays,
 * reused between decisions. Times are absolute µs. */
export class Demand {
  #cost: CostModel
  #limits: EngineLimits
  #nowUs = 0
  #maxBatchUs = 1
  #scale = 1

  /** One row per decode stream: when its TPOT clock starts, its pace, tokens left, context; tokens verified per
   * step, and how many of them are expected to come out. */
  #streams = 0
  #startUs = new Float64Array(64)
  #tpotUs = new Float64Array(64)
  #remaining = new Float64Array(64)
  #context = new Float64Array(64)
  #length = new Float64Array(64)
  #expected = new Float64Array(64)
  #longest = 1
  #active = new Uint8Array(64)

  #prefills = 0
  #prefillTokens = 0
  #fastPairs = 0
  #slowPairs = 0

  constructor(cost: CostModel, limits: EngineLimits) {
    this.#cost = cost
    this.#limits = limits
  }

  /** Start afresh at `nowUs`. `scale` multiplies predicted time (margin and calibration). */
  reset(nowUs: number, maxBatchUs: number, scale: number): void {
    this.#nowUs = nowUs
    this.#maxBatchUs = maxBatchUs
    this.#scale = scale
    this.#streams = this.#prefills = this.#prefillTokens = this.#fastPairs = this.#slowPairs = 0
    this.#longest = 1
  }

  /** A stream of decodes, the first token due at startUs + tpotUs; each step verifies `length` tokens, of which
   * `expected` come out. Returns its row, for `toggle`. */
  addStream(
    startUs: number,
    tpotUs: number,
    remaining: number,
    contextTokens: number,
    length = 1,
    expected = 1,
  ): number {
    const row = this.#streams++
    if (row === this.#startUs.length) this.#enlarge()
    this.#startUs[row] = startUs
    this.#tpotUs[row] = tpotUs
    this.#remaining[row] = remaining
    this.#context[row] = contextTokens
    this.#length[row] = length
    this.#expected[row] = expected
    if (length > this.#longest) this.#longest = length
    this.#active[row] = 1
    return row
  }
  toggle(row: number, active: boolean): void {
    this.#active[row] = active ? 1 : 0
  }

  /** Add (`sign` 1) or take back (−1) a prefill of `tokens` tokens from `position`. */
  addPrefill(position: number, tokens: number, sign: 1 | -1): void {
    this.#prefills += sign
    this.#prefillTokens += sign * tokens
    const pairs = sign * attentionPairs(position, tokens)
    if (tokens >= this.#cost.fastPassTokens) this.#fastPairs += pairs
    else this.#slowPairs += pairs
  }

  /** Everything added so far that is due by `atUs` fits between now and then. */
  fits(atUs: number): boolean {
    const horizon = atUs - this.#nowUs
    if (horizon <= 0) return this.#prefills === 0
    // Steps of all decodes together and of the busiest one, tokens they verify, and what those attend to.
    let steps = 0
    let most = 0
    let verified = 0
    let pairs = 0
    let alive = 0
    for (let row = 0; row < this.#streams; row++) {
      if (this.#active[row] === 0) continue
      const elapsed = atUs - this.#startUs[row]!
      const remaining = this.#remaining[row]!
      const paced = elapsed / this.#tpotUs[row]!
      if (paced < remaining) alive++
      if (elapsed <= 0) continue
      const own = Math.min(paced, remaining) / this.#expected[row]!
      const tokens = own * this.#length[row]!
      steps += own
      verified += tokens
      pairs += tokens * this.#context[row]!
      if (own > most) most = own
    }
    if (alive > this.#limits.maxSequences) return false
    const iterations = Math.max(horizon / this.#maxBatchUs, most) + 0.5
    // Iterations that also carry a chunk: a split engine makes a second pass in each.
    const chunked =
      this.#prefillTokens > 0
        ? Math.min(iterations, Math.max(this.#prefills, this.#prefillTokens / this.#limits.minChunkTokens))
        : 0
    const split = this.#limits.unifiedKv || steps === 0 ? 0 : chunked
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
      if (time * this.#scale > horizon) return false
    }
    return true
  }

  #enlarge(): void {
    const grow = (old: Float64Array<ArrayBuffer>) => {
      const next = new Float64Array(old.length * 2)
      next.set(old)
      return next
    }
    this.#startUs = grow(this.#startUs)
    this.#tpotUs = grow(this.#tpotUs)
    this.#remaining = grow(this.#remaining)
    this.#context = grow(this.#context)
    this.#length = grow(this.#length)
    this.#expected = grow(this.#expected)
    const active = new Uint8Array(this.#active.length * 2)
    active.set(this.#active)
    this.#active = active
  }
}
