/** Online correction of the cost model: exponentially weighted mean of actual / predicted step time, apart for
 * decode-only batches and batches with prefill, since the two drift in opposite directions (docs/design.md, Margin and
 * calibration). */

/** Weight of a new step. 0.05 follows a drift of CPU speed within ~20 steps and ignores single stalls. */
const WEIGHT = 0.05
/** A single step (page fault, descheduling) may not move the estimate by more than this ratio. */
const CLAMP = 3
/** The estimate itself stays within this range: outside it the profile is wrong, not drifting. */
const RANGE = 8

export class Calibration {
  #ratios: [decodeOnly: number, withPrefill: number] = [1, 1]

  /** Multiply predicted µs by this. */
  ratio(withPrefill: boolean): number {
    return this.#ratios[withPrefill ? 1 : 0]
  }

  /** A step predicted (uncalibrated) to take `predictedUs` took `actualUs`. */
  observe(withPrefill: boolean, predictedUs: number, actualUs: number): void {
    if (predictedUs <= 0 || actualUs <= 0) return
    const kind = withPrefill ? 1 : 0
    const before = this.#ratios[kind]
    const seen = Math.min(before * CLAMP, Math.max(before / CLAMP, actualUs / predictedUs))
    this.#ratios[kind] = Math.min(RANGE, Math.max(1 / RANGE, before + WEIGHT * (seen - before)))
  }

  snapshot(): readonly [number, number] {
    return [...this.#ratios]
  }
}
