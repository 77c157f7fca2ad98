/** Can everything due by a horizon be computed by then? A fluid test over the cost model (docs/design.md, Admission):
 * for every piece, the work due must fit the time, with iterations shared by all decodes. */
import { attentionPairs, type CostModel } from "../cost.ts"
import type { EngineLimits } from "../protocol.ts"

/** Work due as time passes: decodes token by token, and the prefills that the caller has added. Typed arrays,
 * reused between decisions. Times are absolute µs. */
export class Demand {
  #cost: CostModel
  #limits: EngineLimits
  #nowUs = 0
  #maxBatchUs = 1
  #scale = 1

  /** Decodes that run, and those that follow the prefills added: only these can be taken back. */
  #running = new Streams()
  #coming = new Streams()
  /** What the running ones sum up to by `#summedUs`: a drop asks again for the same time. */
  #summedUs = Number.NaN
  #sums: Sums = { steps: 0, most: 0, verified: 0, pairs: 0, alive: 0 }
  #total: Sums = { steps: 0, most: 0, verified: 0, pairs: 0, alive: 0 }
  #longest = 1

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
    this.#running.clear()
    this.#coming.clear()
    this.#prefills = this.#prefillTokens = this.#fastPairs = this.#slowPairs = 0
    this.#longest = 1
    this.#summedUs = Number.NaN
  }

  /** A stream of decodes that runs. */
  addRunning(stream: Stream): void {
    this.#running.add(stream)
    this.#longest = Math.max(this.#longest, stream.length)
    this.#summedUs = Number.NaN
  }

  /** A stream of decodes that will follow a prefill. Returns its row, for `drop`. */
  addStream(stream: Stream): number {
    this.#longest = Math.max(this.#longest, stream.length)
    return this.#coming.add(stream)
  }
  drop(row: number): void {
    this.#coming.drop(row)
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
    const { steps, most, verified, pairs, alive } = this.#due(atUs)
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

  #due(atUs: number): Sums {
    if (atUs !== this.#summedUs) {
      clear(this.#sums)
      this.#running.sum(atUs, this.#sums)
      this.#summedUs = atUs
    }
    Object.assign(this.#total, this.#sums)
    this.#coming.sum(atUs, this.#total)
    return this.#total
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

/** What streams ask for by some time. */
interface Sums {
  /** Steps of all streams together, and of the one that needs most. */
  steps: number
  most: number
  /** Tokens verified, and what those attend to. */
  verified: number
  pairs: number
  /** Streams that go on after that time. */
  alive: number
}

function clear(sums: Sums): void {
  sums.steps = sums.most = sums.verified = sums.pairs = sums.alive = 0
}

/** Streams as columns, reused. */
class Streams {
  #rows = 0
  #startUs = new Float64Array(64)
  #perUs = new Float64Array(64)
  #remaining = new Float64Array(64)
  #context = new Float64Array(64)
  #length = new Float64Array(64)
  #perToken = new Float64Array(64)

  clear(): void {
    this.#rows = 0
  }

  add({ startUs, tpotUs, remaining, contextTokens, length, expected }: Stream): number {
    const row = this.#rows++
    if (row === this.#startUs.length) this.#enlarge()
    this.#startUs[row] = startUs
    this.#perUs[row] = 1 / tpotUs
    this.#remaining[row] = remaining
    this.#context[row] = contextTokens
    this.#length[row] = length
    this.#perToken[row] = 1 / expected
    return row
  }

  /** A row that asks for nothing any more. */
  drop(row: number): void {
    this.#startUs[row] = Infinity
    this.#remaining[row] = -Infinity
  }

  /** Add to `sums` what is due by `atUs`. */
  sum(atUs: number, sums: Sums): void {
    const rows = this.#rows
    const startUs = this.#startUs
    const perUs = this.#perUs
    const left = this.#remaining
    const context = this.#context
    const length = this.#length
    const perToken = this.#perToken
    let { steps, most, verified, pairs, alive } = sums
    for (let row = 0; row < rows; row++) {
      const elapsed = atUs - startUs[row]!
      const paced = elapsed * perUs[row]!
      const remaining = left[row]!
      if (paced < remaining) alive++
      if (elapsed <= 0) continue
      const own = Math.min(paced, remaining) * perToken[row]!
      const tokens = own * length[row]!
      steps += own
      verified += tokens
      pairs += tokens * context[row]!
      if (own > most) most = own
    }
    sums.steps = steps
    sums.most = most
    sums.verified = verified
    sums.pairs = pairs
    sums.alive = alive
  }

  #enlarge(): void {
    const grow = (old: Float64Array<ArrayBuffer>) => {
      const next = new Float64Array(old.length * 2)
      next.set(old)
      return next
    }
    this.#startUs = grow(this.#startUs)
    this.#perUs = grow(this.#perUs)
    this.#remaining = grow(this.#remaining)
    this.#context = grow(this.#context)
    this.#length = grow(this.#length)
    this.#perToken = grow(this.#perToken)
  }
}
