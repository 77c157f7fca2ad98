/** Two systems on the same window and rate, in pairs: by how many points one is ahead, and what of that is the machine,
 * whose speed one of them may have met in a better moment. */
import { linearRegression, mean, sampleStandardDeviation, sum } from "simple-statistics"

/** One run of each on the same arrivals. */
export interface Pair {
  ratePerSec: number
  /** Attainment of ours less that of the other, in points. */
  ahead: number
  /** Log of our reference batch's time over the other's: above 0 the machine was slower for ours. */
  slower: number
}

export interface PairedRow {
  /** "all": every rate. */
  rate: number | "all"
  pairs: number
  ahead: number
  error: number
  /** The same at equal references, by a straight line through all pairs; NaN with fewer than four. */
  even: number
  evenError: number
}

const standardError = (values: readonly number[]) =>
  sampleStandardDeviation([...values]) / Math.sqrt(values.length)

/** By rate, and all together; rates with one pair are left out. */
export function paired(pairs: readonly Pair[]): PairedRow[] {
  const rates = [...new Set(pairs.map(({ ratePerSec }) => ratePerSec))].sort((a, b) => a - b)
  const slope = slopeOf(pairs)
  const rowOf = (rate: PairedRow["rate"], own: readonly Pair[]): PairedRow => {
    const ahead = own.map((pair) => pair.ahead)
    const even = own.map((pair) => pair.ahead - slope.value * pair.slower)
    // What is not known of the line adds to the scatter around it.
    const evenError = Math.hypot(standardError(even), slope.error * mean(own.map(({ slower }) => slower)))
    return {
      ...{ rate, pairs: own.length, ahead: mean(ahead), error: standardError(ahead) },
      ...{ even: mean(even), evenError },
    }
  }
  const rows = rates.map((rate) => ({ rate, own: pairs.filter(({ ratePerSec }) => ratePerSec === rate) }))
  return [
    ...rows.filter(({ own }) => own.length > 1).map(({ rate, own }) => rowOf(rate, own)),
    ...(pairs.length > 1 ? [rowOf("all", pairs)] : []),
  ]
}

/** Points for each unit of `slower`. */
export function slopeOf(pairs: readonly Pair[]): { value: number; error: number } {
  if (pairs.length < 4) return { value: Number.NaN, error: Number.NaN }
  const line = linearRegression(pairs.map(({ slower, ahead }) => [slower, ahead]))
  const left = pairs.map(({ slower, ahead }) => ahead - line.b - line.m * slower)
  const middle = mean(pairs.map(({ slower }) => slower))
  const spread = sum(pairs.map(({ slower }) => (slower - middle) ** 2))
  const scatter = Math.sqrt(sum(left.map((value) => value * value)) / (pairs.length - 2))
  return { value: line.m, error: scatter / Math.sqrt(spread) }
}
