/** Which of the recorded arrivals are played, and when: a lead-in that is not counted, the counted part, and some of it again
 * at the end, so that the last ones meet as much company as the others. */
import { chance } from "../sim/chance.ts"
import type { Arrival } from "./arrival.ts"
import { completed } from "./lengths.ts"
import type { Score } from "./play.ts"
import { growth } from "./trend.ts"

export interface Recording {
  /** In order of time. */
  arrivals: readonly Arrival[]
  /** Everything that came from here on is in it, µs. */
  sinceUs: number
  /** When it was taken. */
  nowUs: number
}

export interface ScoreOptions {
  /** The last minutes that count as what is to come, s. */
  windowS: number
  /** Time from the wish for a replica until it serves, s: load that rises will have grown by then. 0: no trend is followed. */
  coldStartS: number
  /** Most arrivals that are played. */
  most: number
  /** Replicas that serve now: of a large fleet a fair part is played. */
  replicas: number
}

export interface PlannedScore extends Score {
  /** Each replica in the play stands for so many. */
  each: number
  /** Load in the play over that of the window. */
  growth: number
  /** What of the recording is used, s. */
  spanS: number
}

const LEAD_IN = 0.2
/** Rather a part of the fleet than less than this of its time, µs. */
const LEAST_SPAN_US = 60e6
/** A part of a fleet has at least so many replicas: smaller ones even out less. */
const LEAST_PART = 4

export function scoreOf(recording: Recording, options: ScoreOptions): PlannedScore {
  const { nowUs } = recording
  const whole = completed(recording.arrivals, nowUs)
  const longestUs = Math.max(0, Math.min(options.windowS * 1e6, nowUs - recording.sinceUs))
  const spanUs = shortened(whole, nowUs, longestUs, options)
  const fromUs = nowUs - spanUs
  const within = whole.filter(({ atUs }) => atUs >= fromUs && atUs < nowUs)
  const each = Math.max(1, Math.ceil(within.length / options.most))
  const grown = growth(within, fromUs, nowUs, options.coldStartS * 1e6)
  const factor = options.coldStartS > 0 ? grown : 1
  const part = within.filter((arrival, at) => chosen(arrival, at, each))
  const place = (atUs: number) => (atUs - fromUs) / factor
  const toUs = place(nowUs)
  const leadUs = LEAD_IN * toUs
  const arrivals = part.map((arrival) => ({ ...arrival, atUs: place(arrival.atUs) }))
  const after = arrivals.filter(({ atUs }) => atUs < leadUs).map((arrival) => again(arrival, toUs))
  return {
    ...{ arrivals: [...arrivals, ...after], fromUs: leadUs, toUs },
    ...{ each, growth: factor, spanS: spanUs / 1e6 },
  }
}

/** The span that has no more arrivals than can be played, by whole fleet or, of a large one, by a part. */
function shortened(
  arrivals: readonly Arrival[],
  nowUs: number,
  longestUs: number,
  { most, replicas }: ScoreOptions,
): number {
  const oldest = (count: number) => nowUs - (arrivals.at(-count)?.atUs ?? Number.NEGATIVE_INFINITY)
  const leastUs = Math.min(longestUs, LEAST_SPAN_US)
  const whole = Math.min(longestUs, oldest(most))
  if (whole >= leastUs) return whole
  const parts = Math.max(1, Math.floor(replicas / LEAST_PART))
  return Math.min(leastUs, oldest(most * parts))
}

/** One in `each` by chance, sessions as a whole. */
function chosen({ session }: Arrival, at: number, each: number): boolean {
  return each === 1 || chance(Number(session >= 0), session >= 0 ? session : at, 0) < 1 / each
}

/** The arrival once more, later, and of no session. */
function again(arrival: Arrival, laterUs: number): Arrival {
  return { ...arrival, atUs: arrival.atUs + laterUs, session: -1 }
}
