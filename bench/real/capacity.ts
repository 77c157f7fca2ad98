/** Capacity from measured points: the highest rate at which a given share of requests attains. */

export interface RatePoint {
  ratePerSec: number
  attainment: number
  /** Requests behind the point. */
  weight: number
}

/** Attainment can only fall as the rate grows: least-squares non-increasing fit (pool adjacent violators). */
export function isotonic(points: readonly RatePoint[]): RatePoint[] {
  const sorted = [...points].sort((a, b) => a.ratePerSec - b.ratePerSec)
  const blocks: { sum: number; weight: number; count: number }[] = []
  for (const { attainment, weight } of sorted) {
    blocks.push({ sum: attainment * weight, weight, count: 1 })
    for (let last = blocks.at(-1)!; blocks.length > 1; last = blocks.at(-1)!) {
      const before = blocks.at(-2)!
      if (before.sum / before.weight >= last.sum / last.weight) break
      blocks.splice(-2, 2, {
        sum: before.sum + last.sum,
        weight: before.weight + last.weight,
        count: before.count + last.count,
      })
    }
  }
  const fitted = blocks.flatMap((block) => Array<number>(block.count).fill(block.sum / block.weight))
  return sorted.map((point, i) => ({ ...point, attainment: fitted[i]! }))
}

/** The rate where the smoothed curve crosses `target`, interpolated. `bound`: the points lie all on one side,
 * so the capacity is only known to be at least (or at most) this. */
export function capacityAt(
  points: readonly RatePoint[],
  target = 0.9,
): { ratePerSec: number; bound: "exact" | "atLeast" | "atMost" } | null {
  const curve = isotonic(points)
  const first = curve[0]
  if (first === undefined) return null
  if (first.attainment < target) return { ratePerSec: first.ratePerSec, bound: "atMost" }
  const below = curve.findIndex((point) => point.attainment < target)
  if (below === -1) return { ratePerSec: curve.at(-1)!.ratePerSec, bound: "atLeast" }
  const [a, b] = [curve[below - 1]!, curve[below]!]
  const share = (a.attainment - target) / (a.attainment - b.attainment)
  return { ratePerSec: a.ratePerSec + share * (b.ratePerSec - a.ratePerSec), bound: "exact" }
}
