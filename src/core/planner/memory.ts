/** Forecast of the KV peak if every request runs to its expected end (DESIGN §4 step 3). */

/** Highest number of tokens held at once: requests end in order of what remains; when the i-th longest ends,
 * it and all longer ones have grown by its remainder. `current` and `remaining` are parallel, in tokens. */
export function peakTokens(current: readonly number[], remaining: readonly number[]): number {
  const order = current.map((_, i) => i).sort((a, b) => remaining[b]! - remaining[a]!)
  let held = 0
  let peak = 0
  for (let i = 0; i < order.length; i++) {
    held += current[order[i]!]!
    peak = Math.max(peak, held + (i + 1) * remaining[order[i]!]!)
  }
  return peak
}
