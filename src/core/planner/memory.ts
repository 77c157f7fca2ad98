/** Forecast of the KV that requests hold while their outputs grow and end (docs/design.md, Memory forecast). Each ends
 * by chance and on its own, so that many requests need a smaller share in reserve than few. */
import { OUTLOOK_TOKENS, type OutlookBounds } from "../learn/output-lengths.ts"

/** Standard deviations kept in reserve. */
const RESERVE_SIGMAS = 2
/** Sums in another order differ by less. */
const ROUNDING = 1 + 1e-9

/** After each of OUTLOOK_TOKENS further tokens of every request (decodes share their steps): what is held. */
export class MemoryForecast {
  #mean = new Float64Array(OUTLOOK_TOKENS.length)
  #variance = new Float64Array(OUTLOOK_TOKENS.length)
  /** If none ends before it must. */
  #most = new Float64Array(OUTLOOK_TOKENS.length)

  clear(): void {
    this.#mean.fill(0)
    this.#variance.fill(0)
    this.#most.fill(0)
  }

  /** Add (`sign` 1) or take back (−1) a request that holds `held` tokens, may produce `left` more, and goes on with
   * the probabilities of `outlook`. */
  add(held: number, left: number, outlook: Readonly<Float64Array>, sign: 1 | -1 = 1): void {
    const mean = this.#mean
    const variance = this.#variance
    const most = this.#most
    for (let k = 0; k < outlook.length; k++) {
      const ahead = OUTLOOK_TOKENS[k]!
      const tokens = held + Math.min(ahead, left)
      const expected = tokens * outlook[k]!
      mean[k] = mean[k]! + sign * expected
      variance[k] = variance[k]! + sign * expected * (tokens - expected)
      most[k] = most[k]! + sign * tokens
      if (ahead >= left) return
    }
  }

  /** Add tokens that are held whatever ends: a prefix that several share. */
  addFixed(tokens: number): void {
    for (let k = 0; k < this.#mean.length; k++) {
      this.#mean[k] = this.#mean[k]! + tokens
      this.#most[k] = this.#most[k]! + tokens
    }
  }

  /** Tokens to have at hand: what is held at the worst time, with the reserve. */
  peakTokens(): number {
    let peak = 0
    for (let k = 0; k < this.#mean.length; k++) {
      const reserve = RESERVE_SIGMAS * Math.sqrt(Math.max(0, this.#variance[k]!))
      peak = Math.max(peak, Math.min(this.#most[k]!, this.#mean[k]! + reserve))
    }
    return peak
  }
}

/** Never less than the forecast's peak, from two sums instead of sixty: where even this fits, nothing need be foreseen.
 * For a request that holds h + x tokens, x of output, with probability p: (h + x)·p ≤ h + max x·p, and the variance
 * (h + x)²·p·(1 − p) ≤ h²/2 + 2·max x²·p. */
export class MemoryCeiling {
  #tokens = 0
  #variance = 0

  clear(): void {
    this.#tokens = this.#variance = 0
  }

  addFixed(tokens: number): void {
    this.#tokens += tokens
  }

  add(held: number, { tokens, squares, start }: Readonly<OutlookBounds>): void {
    const rest = Math.max(0, held - start)
    this.#tokens += rest + tokens
    this.#variance += (rest * rest) / 2 + 2 * squares
  }

  get peakTokens(): number {
    return ROUNDING * (this.#tokens + RESERVE_SIGMAS * Math.sqrt(this.#variance))
  }
}
