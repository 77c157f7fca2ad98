/** Repeats of one batch. What disturbs a step makes it longer, never shorter: so a point is settled once two repeats agree on
 * the fastest time, and those far above it are not believed. */
import { median, min } from "simple-statistics"

/** Within this share of the fastest a repeat agrees with it: twice what a quiet machine scatters. */
const AGREEMENT = 0.1
/** Within this share it is believed: with less only the luckiest repeats would count. */
const BELIEVED = 0.2

/** Two repeats agree on the fastest time. */
export function isSettled(timesUs: readonly number[]): boolean {
  return within(AGREEMENT, timesUs).length >= 2
}

/** The time of a point: the median of the repeats that are believed, µs. */
export function typicalUs(timesUs: readonly number[]): number {
  return median(within(BELIEVED, timesUs))
}

function within(share: number, timesUs: readonly number[]): number[] {
  const most = (1 + share) * min([...timesUs])
  return timesUs.filter((us) => us <= most)
}
