/** What served steps say of their predictions: how far off, when too long, and why. */
import { quantile } from "simple-statistics"
import type { Calibration } from "../../src/core/learn/calibration.ts"
import type { Step } from "./window.ts"

/** Upper ends of the bins of actual over predicted; the last is open. */
export const BINS = Array.from({ length: 27 }, (_, i) => Math.round((0.5 + 0.05 * i) * 100) / 100)
/** A step that takes so many times its prediction makes decodes late. */
const TOO_LONG = 1.2

export interface Findings {
  steps: number
  /** Steps in each bin: up to BINS[i], and above the last. */
  histogram: number[]
  /** Of actual over predicted. */
  quantiles: { p5: number; p50: number; p95: number; p99: number }
  /** Shares of all steps that took more than so many times their prediction. */
  over: { "1.1": number; "1.2": number; "1.3": number }
  overByKind: { decode: number; prefill: number }
  /** How much of a step's difference (ln) the next one has: what the last one could have told. */
  correlation: number
  /** Of those over 1.2, shares that … */
  why: {
    /** would not be without the time that the engine's thread waited for a core. */
    waited: number
    /** would not be without the time of a garbage collection (that ran on another thread meanwhile). */
    collected: number
    /** followed half a second without a step. */
    idle: number
    /** ran all the time, and were slow: clock rate, shared caches and memory, or the model. */
    slow: number
  }
}

const IDLE_US = 500_000

/** The same steps as a calibration would have predicted them: what it learns, apart from the luck of the hour. An older one may
 * not know the machine of the moment. */
export function repredicted(
  steps: readonly Step[],
  calibration: Pick<Calibration, "ratio" | "observe"> & Partial<Pick<Calibration, "momentary">>,
): Step[] {
  let nowUs = 0
  return steps.map((step) => {
    const kind = step.prefill ? "mixed" : "decode"
    nowUs += step.idleUs
    const predictedUs = step.modelUs * calibration.ratio(kind) * (calibration.momentary?.(nowUs) ?? 1)
    nowUs += step.us
    calibration.observe(kind, step.modelUs, step.us, nowUs)
    return { ...step, predictedUs }
  })
}

export function findingsOf(steps: readonly Step[]): Findings {
  const ratios = steps.map(ratioOf)
  const share = (list: readonly Step[], most: number) =>
    list.filter((step) => ratioOf(step) > most).length / Math.max(1, list.length)
  const [p5, p50, p95, p99] = [0.05, 0.5, 0.95, 0.99].map((q) => quantile(ratios, q))
  return {
    steps: steps.length,
    histogram: histogramOf(ratios),
    quantiles: { p5: p5!, p50: p50!, p95: p95!, p99: p99! },
    over: { "1.1": share(steps, 1.1), "1.2": share(steps, 1.2), "1.3": share(steps, 1.3) },
    overByKind: {
      decode: share(
        steps.filter(({ prefill }) => !prefill),
        TOO_LONG,
      ),
      prefill: share(
        steps.filter(({ prefill }) => prefill),
        TOO_LONG,
      ),
    },
    correlation: correlationOf(ratios.map(Math.log)),
    why: whyOf(steps.filter((step) => ratioOf(step) > TOO_LONG)),
  }
}

/** Each for the first reason that holds. */
function whyOf(long: readonly Step[]): Findings["why"] {
  const count = { waited: 0, collected: 0, idle: 0, slow: 0 }
  for (const step of long) {
    const within = (lessUs: number) => (step.us - lessUs) / step.predictedUs <= TOO_LONG
    if (within(step.waitedUs)) count.waited++
    else if (within(step.waitedUs + step.gcUs)) count.collected++
    else if (step.idleUs >= IDLE_US) count.idle++
    else count.slow++
  }
  const share = (n: number) => n / Math.max(1, long.length)
  return {
    ...{ waited: share(count.waited), collected: share(count.collected) },
    ...{ idle: share(count.idle), slow: share(count.slow) },
  }
}

function histogramOf(ratios: readonly number[]): number[] {
  const counts = new Array<number>(BINS.length + 1).fill(0)
  for (const ratio of ratios) {
    const bin = BINS.findIndex((end) => ratio <= end)
    counts[bin === -1 ? BINS.length : bin]!++
  }
  return counts
}

function correlationOf(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
  let both = 0
  let own = 0
  for (const [i, value] of values.entries()) {
    own += (value - mean) ** 2
    if (i > 0) both += (value - mean) * (values[i - 1]! - mean)
  }
  return own > 0 ? both / own : 0
}

function ratioOf({ us, predictedUs }: Step): number {
  return us / Math.max(1, predictedUs)
}
