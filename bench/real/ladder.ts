/** Which rates to measure: a ladder of rates, climbed per system until its knee (attainment from above 0.97 to
 * below 0.8) is bracketed; later seeds repeat the rungs around the knee. */

/** Rungs are a factor 2^(1/4) = 1.19 apart; rung 0 is 1 request/s. */
export function rateOf(rung: number): number {
  return Number((2 ** (rung / 4)).toPrecision(4))
}

export function rungOf(ratePerSec: number): number {
  return Math.round(4 * Math.log2(ratePerSec))
}

export interface Measured {
  rung: number
  attained: number
  total: number
}

const HIGH = 0.97
const LOW = 0.8
const TARGET = 0.9
/** Most rungs repeated for every seed. */
const KNEE_RUNGS = 5
const LOWEST_RUNG = -16
const HIGHEST_RUNG = 32

/** The rungs worth measuring, given what was measured so far (over all seeds). */
export function wantedRungs(measured: readonly Measured[], guess: number): number[] {
  const pooled = pool(measured)
  if (pooled.length === 0) return [guess]
  const high = pooled.findLast((point) => point.share >= HIGH)?.rung
  const low = pooled.find(
    (point) => point.share < LOW && point.rung > (high ?? Number.NEGATIVE_INFINITY),
  )?.rung
  const first = pooled[0]!
  const last = pooled.at(-1)!
  if (high === undefined && first.rung > LOWEST_RUNG) return [first.rung - (first.share < 0.5 ? 4 : 1)]
  if (low === undefined && last.rung < HIGHEST_RUNG) return [last.rung + (last.share > 0.99 ? 3 : 1)]
  const from = high ?? first.rung
  const to = low ?? last.rung
  const between = Array.from({ length: to - from + 1 }, (_, i) => from + i)
  const missing = between.filter((rung) => !pooled.some((point) => point.rung === rung))
  // Halve a wide bracket before filling it.
  if (missing.length > KNEE_RUNGS) return [Math.floor((from + to) / 2)]
  if (between.length <= KNEE_RUNGS) return between
  const knee = crossing(pooled)
  return [...between].sort((a, b) => Math.abs(a - knee) - Math.abs(b - knee)).slice(0, KNEE_RUNGS)
}

function pool(measured: readonly Measured[]): { rung: number; share: number }[] {
  const sums = new Map<number, { attained: number; total: number }>()
  for (const { rung, attained, total } of measured) {
    const sum = sums.get(rung) ?? { attained: 0, total: 0 }
    sums.set(rung, { attained: sum.attained + attained, total: sum.total + total })
  }
  return [...sums]
    .map(([rung, { attained, total }]) => ({ rung, share: attained / total }))
    .sort((a, b) => a.rung - b.rung)
}

/** The (fractional) rung where attainment falls through the target. */
function crossing(points: readonly { rung: number; share: number }[]): number {
  const below = points.findIndex((point) => point.share < TARGET)
  if (below <= 0) return points[Math.max(0, below)]!.rung
  const [a, b] = [points[below - 1]!, points[below]!]
  return a.rung + ((a.share - TARGET) / (a.share - b.share)) * (b.rung - a.rung)
}
