/** Arrival processes. Each gives exactly `count` times within the span, so that the rate is what was asked. */
import { UserError } from "../errors.ts"
import type { Random } from "../random.ts"

/** `trace`: a window of the trace, time-compressed. `superposed`: eight such windows over each other. `raw`: the trace's
 * own gaps, as many shifted copies over each other as the rate needs, thinned to it. */
export const ARRIVALS = ["poisson", "gamma", "trace", "superposed", "raw"] as const
export type ArrivalName = (typeof ARRIVALS)[number]
export const followsTrace = (process: ArrivalName): boolean =>
  process === "trace" || process === "superposed" || process === "raw"

/** Copies of the trace that `superposed` lays over each other. */
const SUPERPOSED = 8

/** Times to follow: ms, sorted, the first at 0. */
export interface TraceTimes {
  name: string
  times: readonly number[]
}

export interface ArrivalOptions {
  count: number
  spanMs: number
  /** As in `vllm bench serve`: 1 = Poisson, smaller = more bursty. */
  burstiness: number
  trace: TraceTimes | undefined
  random: Random
}

/** One arrival; `index` and `copy` say which entry of the trace it is where the process takes entries as they are. */
export interface Arrival {
  atMs: number
  index?: number
  copy?: number
}

/** Sorted arrivals within [0, spanMs). */
export function arrivals(process: ArrivalName, options: ArrivalOptions): Arrival[] {
  return process === "raw" ? raw(options) : arrivalTimes(process, options).map((atMs) => ({ atMs }))
}

/** Sorted arrival times in ms within [0, spanMs). */
export function arrivalTimes(process: ArrivalName, options: ArrivalOptions): number[] {
  const { count, spanMs, burstiness, trace, random } = options
  if (process === "raw") return raw(options).map(({ atMs }) => atMs)
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

function needTimes(trace: TraceTimes | undefined): TraceTimes {
  if (trace !== undefined && trace.times.length > 0) return trace
  throw new UserError(
    "arrivals from a trace need a trace with timestamps: give --trace one that has them, or use --arrivals poisson or gamma",
  )
}

/** `count` consecutive arrivals of the trace from a random place, time-compressed to fill the span. */
function window(trace: TraceTimes | undefined, count: number, spanMs: number, random: Random): number[] {
  const { times, name } = needTimes(trace)
  if (count === 0) return []
  if (count >= times.length) {
    throw new UserError(
      `the trace ${name} has ${times.length} requests, the replay needs ${count + 1}: lower --rate or --duration, ` +
        "or use --arrivals raw, which repeats it",
    )
  }
  const first = random.integer(0, times.length - count)
  const start = times[first]!
  const length = times[first + count]! - start
  // Turned round by a random phase: else every window would begin with an arrival. A window of equal
  // timestamps has no gaps to stretch: everything arrives at once, as it did.
  const phase = random.uniform()
  const place = (atMs: number) => ((length === 0 ? 0 : (atMs - start) / length) + phase) % 1
  return times
    .slice(first, first + count)
    .map((atMs) => place(atMs) * spanMs)
    .sort((a, b) => a - b)
}

/** Windows of the trace as it is, from random moments (it goes round at its end), over each other until there are
 * `count` arrivals or more; then so many of them by chance. */
function raw({ trace, count, spanMs, random }: ArrivalOptions): Arrival[] {
  const { times, name } = needTimes(trace)
  if (times.at(-1) === times[0]) {
    throw new UserError(
      `all requests of the trace ${name} came at one moment: raw arrivals need gaps; use --arrivals poisson or gamma`,
    )
  }
  // One mean gap after the last arrival the trace begins again.
  const roundMs = times.at(-1)! * (1 + 1 / Math.max(1, times.length - 1)) + 1e-3
  if (count / times.length > (10_000 * spanMs) / roundMs) {
    throw new UserError(
      `the trace ${name} has ${((times.length / roundMs) * 1000).toPrecision(2)} requests a second: too few for ` +
        "raw arrivals at this rate; use --arrivals trace, which compresses its time",
    )
  }
  const found: Arrival[] = []
  for (let copy = 0; found.length < count; copy++) {
    const from = random.uniform() * roundMs
    for (let turn = 0; turn * roundMs < from + spanMs; turn++) {
      for (let index = 0; index < times.length; index++) {
        const atMs = times[index]! + turn * roundMs - from
        if (atMs >= 0 && atMs < spanMs) found.push({ atMs, index, copy: copy * 1000 + turn })
      }
    }
  }
  // Partial Fisher–Yates: the first `count` are a fair choice.
  for (let i = 0; i < count; i++) {
    const j = random.integer(i, found.length)
    ;[found[i], found[j]] = [found[j]!, found[i]!]
  }
  return found.slice(0, count).sort((a, b) => a.atMs - b.atMs)
}
