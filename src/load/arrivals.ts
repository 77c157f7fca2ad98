/** Arrival processes. Each gives exactly `count` times within the span, so that the rate is what was asked. */
import { UserError } from "../errors.ts"
import type { Random } from "../random.ts"
import type { Trace } from "./trace.ts"

export const ARRIVALS = ["poisson", "gamma", "trace", "superposed"] as const
export type ArrivalName = (typeof ARRIVALS)[number]

/** Copies of the trace that `superposed` lays over each other. */
const SUPERPOSED = 8

/** Sorted arrival times in ms within [0, spanMs). `burstiness` as in `vllm bench serve`: 1 = Poisson,
 * smaller = more bursty. */
export function arrivalTimes(
  process: ArrivalName,
  options: { count: number; spanMs: number; burstiness: number; trace: Trace | undefined; random: Random },
): number[] {
  const { count, spanMs, burstiness, trace, random } = options
  if (process === "poisson") return renewal(count, spanMs, 1, random)
  if (process === "gamma") return renewal(count, spanMs, burstiness, random)
  if (process === "trace") return window(trace, count, spanMs, random)
  const times: number[] = []
  for (let i = 0; i < SUPERPOSED; i++) {
    const share = Math.floor((count * (i + 1)) / SUPERPOSED) - Math.floor((count * i) / SUPERPOSED)
    times.push(...window(trace, share, spanMs, random))
  }
  return times.sort((a, b) => a - b)
}

/** Gamma-distributed gaps, scaled (as `vllm bench serve` does) so that they fill the span exactly. */
function renewal(count: number, spanMs: number, burstiness: number, random: Random): number[] {
  const times: number[] = []
  let at = 0
  // The first gap starts inside one: else every plan would begin with a lull.
  const head = random.gamma(burstiness) * random.uniform()
  at += head
  for (let i = 0; i < count; i++) {
    times.push(at)
    at += random.gamma(burstiness)
  }
  return times.map((time) => (time / at) * spanMs)
}

/** `count` consecutive arrivals of the trace from a random place, time-compressed to fill the span. */
function window(trace: Trace | undefined, count: number, spanMs: number, random: Random): number[] {
  const rows = trace?.rows
  if (rows === undefined || rows[0]?.atMs === undefined) {
    throw new UserError(
      "arrivals from a trace need a trace with timestamps: give --trace an Azure CSV, or use --arrivals poisson or gamma",
    )
  }
  if (count === 0) return []
  if (count >= rows.length) {
    throw new UserError(
      `the trace ${trace!.path} has ${rows.length} requests, the replay needs ${count + 1}: lower --request-rate or --duration`,
    )
  }
  const first = random.integer(0, rows.length - count)
  const start = rows[first]!.atMs!
  const length = rows[first + count]!.atMs! - start
  // Turned round by a random phase: else every window would begin with an arrival. A window of equal
  // timestamps has no gaps to stretch: everything arrives at once, as it did.
  const phase = random.uniform()
  const place = (atMs: number) => ((length === 0 ? 0 : (atMs - start) / length) + phase) % 1
  return rows
    .slice(first, first + count)
    .map((row) => place(row.atMs!) * spanMs)
    .sort((a, b) => a - b)
}
